"""The kernel provisioner `mlops-nb-warm`: Jupyter's own local one, whose process is forked from the zygote where it can be. `nbs/run/warm.ipynb` tells its story."""
import asyncio, json, os, select, subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from jupyter_client.provisioning import LocalProvisioner

from . import warm

class Forked:
    "A forked kernel with the face of `subprocess.Popen` that Jupyter's local provisioner works with."

    def __init__(self, pid, line, files):
        self.pid, self.line, self.returncode = pid, line, None
        self.words, self.leaves = line.makefile("rb"), False   # it leaves when only the system has work with it
        self.stdin, self.stdout, self.stderr = files

    def fileno(self): return self.line.fileno()

    def poll(self):
        "Exit code, None while it runs; -9 when the zygote died first and nobody saw the code."
        while self.returncode is None and select.select([self.line], [], [], 0)[0]:
            told = json.loads(self.words.readline() or '{"exit": -9}')
            self.leaves, self.returncode = self.leaves or "leaves" in told, told.get("exit")
            if self.returncode is not None: self.close()
        return self.returncode

    def close(self):
        for f in (self.words, self.line): f.close()

    def wait(self):
        while self.poll() is None: select.select([self.line], [], [])
        return self.returncode

    def send_signal(self, signum):
        if self.poll() is None: os.kill(self.pid, signum)

    def kill(self): self.send_signal(9)

    def terminate(self): self.send_signal(15)

def _streams(asked):
    "For stdin, stdout and stderr: the child's descriptor, ours if it is a pipe, and what to close when the child has its own."
    for n, (what, mode) in enumerate(zip(asked, ("wb", "rb", "rb"))):
        if what == subprocess.PIPE:
            theirs, ours = os.pipe() if n == 0 else reversed(os.pipe())
            yield theirs, open(ours, mode, buffering=0), theirs
        elif what == subprocess.DEVNULL or n == 0 and what is None:
            theirs = os.open(os.devnull, os.O_RDWR)
            yield theirs, None, theirs
        else: yield n if what is None else what if isinstance(what, int) else what.fileno(), None, None

async def _aside(function, *args, **more):
    "In a thread of its own: the loop's pool of threads is dead in a client that is itself a fork (`ProcessPoolExecutor`), and would never answer."
    pool = ThreadPoolExecutor(1)
    try: return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *args, **more))
    finally: pool.shutdown(wait=False)

class WarmProvisioner(LocalProvisioner):
    "A forked kernel when the zygote is ready, a cold one otherwise."
    hasty = False   # Has its client nothing to do with the process, once the kernel has?

    @property
    def left(self): return self.hasty and getattr(self.process, "leaves", False)

    def _finalize_env(self, env):
        super()._finalize_env(env)
        env.update({k: v for k, v in warm.QUIET.items() if k not in env})

    async def launch_kernel(self, cmd, **kwargs):
        return await _aside(self._fork, cmd, **kwargs) or await super().launch_kernel(cmd, **kwargs)

    def _fork(self, cmd, stdin=None, stdout=None, stderr=None, **kwargs):
        "The connection of a forked kernel, or None."
        told, (theirs, files, done) = None, zip(*_streams((stdin, stdout, stderr)))
        try: told = warm.fork(cmd, theirs, **kwargs)
        finally:
            for fd in done: fd is None or os.close(fd)
            for f in files: told or f is None or f.close()
        if told is None: return None
        line, facts = told
        self.process = Forked(facts["pid"], line, files)
        self.pid = self.pgid = self.process.pid
        self.cwd = kwargs.get("cwd") or os.getcwd()
        self.connection_info = {**self.connection_info, **facts["ports"]}
        for name, port in facts["ports"].items(): setattr(self.parent, name, port)   # others than it chose, if those were taken meanwhile
        return self.connection_info

    async def shutdown_requested(self, restart=False):
        "A kernel needs some 30 ms to end; its manager would look again after 100."
        for _ in range(100):
            if await self.poll() is not None or self.left: return
            await asyncio.sleep(.001)
