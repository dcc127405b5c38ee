"Kernels, cold against warm, alternating, with Jupyter's stock clients: start and imports, memory, shutdown, a papermill run; then how many a second."
import asyncio, contextlib, os, platform, statistics, tempfile, time
from pathlib import Path

import nbformat, papermill
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory as Factory

from mlops_nb.run import engine, warm

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)   # bytecode is kept between starts, as on a person's machine

engine.lean_papermill()
from mlops_nb.run.client import Client

PAIRS, MANY, AT_ONCE = 5, 100, 20
IMPORTS = "import pandas, sklearn.ensemble, mlflow.sklearn"
CELLS = [IMPORTS, "from sklearn.datasets import load_iris\nfrom sklearn.ensemble import HistGradientBoostingClassifier",
         "HistGradientBoostingClassifier(max_iter=5).fit(*load_iris(return_X_y=True)).score(*load_iris(return_X_y=True))"]

@contextlib.contextmanager
def provisioner(name):
    factory = Factory.instance()
    mine, factory.default_provisioner_name = factory.default_provisioner_name, name
    try: yield
    finally: factory.default_provisioner_name = mine

def private(pid):
    "MB that this process has for itself."
    return sum(int(l.split()[1]) for l in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if l.startswith("Private_"))/1024

async def one(code):
    "Seconds from nothing to the code's end, MB then, seconds to shut down."
    km, began = AsyncKernelManager(kernel_name="python3"), time.perf_counter()
    await km.start_kernel(extra_arguments=["--log-level=40"])
    kc = km.client()
    kc.start_channels()
    await kc.wait_for_ready(timeout=120)
    reply = await kc.execute(code, reply=True, timeout=120)
    took = time.perf_counter() - began
    assert reply["content"]["status"] == "ok", reply
    kc.stop_channels()
    forked = type(km.provisioner.process).__name__ == "Forked"
    assert forked == (Factory.instance().default_provisioner_name == warm.NAME), "the packages were changed meanwhile: start again"
    mb, began = private(km.provisioner.pid), time.perf_counter()
    await km.shutdown_kernel()
    return took, mb, time.perf_counter() - began

async def by_runner(code):
    "The same seconds with the client of our runner; its cold kernel is what a stock client's is compared with as well."
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code, metadata=dict(papermill={}))], metadata=dict(papermill={}))
    client, began = Client(nb, kernel_name="python3"), time.perf_counter()
    await client.start()
    assert await client.cells(engine._book(nb, None)) is None, nb.cells[0].outputs
    took = time.perf_counter() - began
    await client.end()
    return took

async def many(count, at_once):
    "Kernels a second, from start to end."
    room, began = asyncio.Semaphore(at_once), time.perf_counter()
    async def next():
        async with room: await one("1")
    await asyncio.gather(*(next() for _ in range(count)))
    return count/(time.perf_counter() - began)

def papermilled(path):
    began = time.perf_counter()
    papermill.execute_notebook(path, None, progress_bar=False, kernel_name="python3", log_output=False)
    return time.perf_counter() - began

def measured(name, path):
    with provisioner(name): return [*asyncio.run(one(IMPORTS)), papermilled(path), asyncio.run(by_runner(IMPORTS))]

def main():
    os.environ.update(warm.QUIET)
    warm.start()
    warm.wait(180)
    with tempfile.TemporaryDirectory() as tmp:
        path = f"{tmp}/fit.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS]), path)
        measured("local-provisioner", path), measured(warm.NAME, path)
        took = [(measured("local-provisioner", path), measured(warm.NAME, path)) for _ in range(PAIRS)]
    cold, forked = ([statistics.median(pair[i][k] for pair in took) for k in range(5)] for i in (0, 1))
    with provisioner(warm.NAME): rate = asyncio.run(many(MANY, AT_ONCE))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}; medians of {PAIRS} alternating pairs")
    for what, a, b, unit in zip(("start and imports", "private memory", "shutdown", "papermill, three cells", "our runner's start"), cold, forked, ("s", "MB", "s", "s", "s")):
        print(f"{what:24} cold {a:7.2f} {unit:3} warm {b:7.2f} {unit:3} {a/b:6.1f}x")
    print(f"{MANY} kernels, {AT_ONCE} at once: {rate:.1f} kernels a second, from start to end")

if __name__ == "__main__": main()
