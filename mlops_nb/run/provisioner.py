"""The kernel provisioner `mlops-nb-warm`: Jupyter's own local one, whose process is forked from the zygote where it can be. `nbs/run/warm.ipynb` tells its story."""
import asyncio, os, select

from jupyter_client.provisioning import LocalProvisioner

from . import warm
from .zygote import WORD

class Forked:
    "A forked kernel with the face of `subprocess.Popen` that Jupyter's local provisioner works with."
    stdin = stdout = stderr = None

    def __init__(self, pid, line): self.pid, self.line, self.returncode = pid, line, None

    def poll(self):
        "Exit code, None while it runs; -9 when the zygote died first and nobody saw the code."
        if self.returncode is None and select.select([self.line], [], [], 0)[0]:
            with self.line: word = self.line.recv(WORD.size)
            self.returncode = WORD.unpack(word)[0] if word else -9
        return self.returncode

    def wait(self):
        if self.returncode is None: select.select([self.line], [], [])
        return self.poll()

    def send_signal(self, signum):
        if self.poll() is None: os.kill(self.pid, signum)

class WarmProvisioner(LocalProvisioner):
    "A forked kernel when the zygote is ready, a cold one otherwise."

    def _finalize_env(self, env):
        super()._finalize_env(env)
        env.update({k: v for k, v in warm.QUIET.items() if k not in env})

    async def launch_kernel(self, cmd, **kwargs):
        forked = warm.fork(cmd, **kwargs)
        if forked is None: return await super().launch_kernel(cmd, **kwargs)
        self.process = Forked(*forked)
        self.pid = self.pgid = self.process.pid
        self.cwd = kwargs.get("cwd") or os.getcwd()
        return self.connection_info

    async def shutdown_requested(self, restart=False):
        "A kernel needs some 30 ms to end; its manager would look again after 100."
        for _ in range(100):
            if await self.poll() is not None: return
            await asyncio.sleep(.005)
