"""Many warm kernels: twenty at a time without an error, and nothing left of them: no process, open file, port, memory or connection file.

In the suite a few dozen; `LOAD=full` starts 100 and 500.
"""
import asyncio, os, sys
from ast import literal_eval
from pathlib import Path

import psutil, pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir

from tests.conftest import wait_until
from tests.test_warm import full   # noqa: F401  `full` is the zygote of the session

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
FULL = os.environ.get("LOAD") == "full"

async def answer(number):
    "What a new kernel computes, and whose child it is; it is gone afterwards."
    km = AsyncKernelManager(kernel_name="python3")
    await km.start_kernel(extra_arguments=["--log-level=40"])
    try:
        kc = km.client()
        kc.start_channels()
        await kc.wait_for_ready(timeout=120)
        reply = await kc.execute_interactive("import os, sklearn.ensemble", user_expressions=dict(got=f"(os.getppid(), {number}**2)"), timeout=120, output_hook=lambda _: None)
        kc.stop_channels()
        return literal_eval(reply["content"]["user_expressions"]["got"]["data"]["text/plain"])
    finally: await km.shutdown_kernel()

def answers(numbers, at_once):
    async def all():
        room = asyncio.Semaphore(at_once)
        async def one(n):
            async with room: return await answer(n)
        return await asyncio.gather(*(one(n) for n in numbers))
    return asyncio.run(all())

def test_twenty_at_once(full):   # noqa: F811
    numbers = range(100 if FULL else 40)
    assert answers(numbers, 20) == [(full, n*n) for n in numbers]

def held(process):
    "What a process holds: open files, listening sockets, children."
    return dict(files=process.num_fds(), ports=sum(c.status == psutil.CONN_LISTEN for c in process.net_connections("inet")), children=len(process.children()))

def connection_files(): return {p.name for p in Path(jupyter_runtime_dir()).glob("kernel-*.json")}

def memory(pid):
    "MB of its own, not shared with its forks."
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    return (int(rollup[rollup.index("Private_Dirty:") + 1]) + int(rollup[rollup.index("Shared_Dirty:") + 1]))/1024

def test_nothing_is_left_of_many(full):   # noqa: F811
    "After the first ones, which fill caches and pools, nothing grows."
    zygote, me = psutil.Process(full), psutil.Process()
    answers(range(20), 10)
    wait_until("end of the kernels", lambda: not zygote.children(), seconds=20)
    before = held(zygote), held(me), connection_files(), memory(full)
    answers(range(500 if FULL else 40), 10)
    wait_until("end of the kernels", lambda: not zygote.children(), seconds=20)
    after = held(zygote), held(me), connection_files(), memory(full)
    print("MB", before[3], after[3])
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 4
