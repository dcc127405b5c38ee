"""nbclient's client for a notebook run to its end by a machine: no fixed waits, and a clear word when the kernel dies. `nbs/run/engine.ipynb` tells its story.

nbclient turns messages into outputs, displays and widgets, and jupyter_client starts and ends kernels, whatever their language. What is ours: the handshake
(theirs waits a fixed 0.2 s for silence), the watch on the process (theirs looks every second), time-outs that show where the cell was, an end to what one
cell may print, and a shutdown that does not wait for its next look.
"""
import ast, asyncio, os, signal
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import zmq
from jupyter_client.provisioning import LocalProvisioner
from nbclient import NotebookClient
from nbclient.client import timestamp
from nbclient.exceptions import CellExecutionComplete, CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_output

from . import engine

SHOWN = ("stream", "display_data", "execute_result", "update_display_data")
LAST_WORDS = .2      # Seconds that a dead kernel's messages may still be on their way
AFTER_INTERRUPT = 2  # Seconds a cell that took too long has to say where it was

class Stopped(Exception):
    "The kernel died or took too long; it stands in the notebook like any other error."
    def __init__(self, ename, evalue):
        super().__init__(evalue)
        self.ename, self.evalue = ename, evalue

class Client(NotebookClient):
    "One notebook and its kernel, within one event loop."
    limits:dict; on_cell:Callable|None; info:dict
    limit, limits, on_cell, on_text, on_output, noted = 10e6, {}, None, None, None, None   # Set by the engine
    marks = True   # papermill's markers of an error; false where papermill itself inserts them
    began, heard, size, peak, kills, gone, deaf, info = 0., 0., 0, 0, 0, None, False, {}

    # --- start and end ---

    async def start(self, seconds=60, **launch):
        "Start the kernel; returns when it listens, and when no output can be lost any more."
        self.kills = engine.oom_kills()
        self.create_kernel_manager().context.setsockopt(zmq.RECONNECT_IVL, 5)   # a kernel that is not there yet is looked for every 5 ms, not every 100
        self.km.context.setsockopt(zmq.RCVHWM, 0)                               # a kernel that says more than we can read drops it; better we keep it
        if any("ipykernel" in word for word in self.km.kernel_spec.argv): self.extra_arguments = [*self.extra_arguments, "--log-level=50", "--HistoryManager.hist_file=:memory:"]   # a person's history is not for machines
        try: await self.async_start_new_kernel(**launch)
        except OSError as e: raise Stopped("DeadKernelError", f"the kernel {self.kernel_name!r} cannot be started ({e}); reinstall it, or name another in the notebook") from None
        self.gone = asyncio.ensure_future(self._ended())
        self.kc = self.km.client(context=self.km.context)
        self.kc.start_channels(stdin=False, hb=False)
        hello = asyncio.ensure_future(self._hello())
        await asyncio.wait({hello, self.gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not hello.done(): raise await self._death() if self.gone.done() else Stopped("DeadKernelError", f"the kernel did not answer within {seconds} s")
        self.info = hello.result()

    async def _hello(self):
        heard = asyncio.ensure_future(self.kc.iopub_channel.get_msg(timeout=None))
        while True:
            info = await self._reply(self.kc.kernel_info())
            if (await asyncio.wait({heard}, timeout=.2))[0]: return info["content"]

    async def _ended(self):
        "Returns when the kernel's process has ended: at once where the system tells, else within a second."
        try: watched = os.pidfd_open(self._pid())
        except (AttributeError, TypeError, OSError):
            while await self.km.is_alive(): await asyncio.sleep(1)
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(watched, ended.set)
        try: await ended.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)

    def _pid(self): return self.km.provisioner.pid if isinstance(self.km.provisioner, LocalProvisioner) else None

    async def end(self, busy=False):
        "Ask the kernel to end, insist after 2.5 seconds as Jupyter does, kill it after four; and with it what it left running in its process group."
        group, provisioner = self._pid() if self.km and self.km.has_kernel else None, self.km and self.km.provisioner
        if self.gone and not self.deaf:
            if busy: await self.km.interrupt_kernel()
            provisioner.hasty = True
            if not self.gone.done(): await self.km.request_shutdown()
            if not getattr(provisioner, "left", False):
                await asyncio.wait({self.gone}, timeout=1)
                await self.km.finish_shutdown(waittime=3)   # none of it when it has ended
        elif self.km and self.km.has_kernel: await self.km.shutdown_kernel(now=True)
        if group and getattr(provisioner, "pgid", None) == group:
            with suppress(OSError): os.killpg(group, signal.SIGKILL)
        await self.leave()
        if self.km: await self.km.cleanup_resources()

    async def leave(self):
        "Let go of the kernel without ending it."
        if self.gone: self.gone.cancel()
        for channel in (self.kc._shell_channel, self.kc._iopub_channel, self.kc._control_channel) if self.kc else ():   # stop_channels would make those that are not there
            if channel: channel.stop()

    # --- cells ---

    async def cells(self, book):
        "All cells in their order, up to the first that fails: its index, else None."
        self.noted = lambda out: book.save()
        for index, cell in enumerate(self.nb.cells):
            try:
                book.cell_start(cell, cell_index=index)
                if engine.is_run(cell, self.skip_cells_with_tag): await self._cell(cell, index)
            except (CellExecutionError, Stopped) as e:
                if isinstance(e, Stopped): self._tell(cell, e)
                book.cell_exception(cell, cell_index=index, exception=e)
                return index
            except asyncio.CancelledError:
                self._tell(cell, Stopped("KeyboardInterrupt", "stopped by the user"))
                book.cell_exception(cell, cell_index=index)
                raise
            finally: book.cell_complete(cell, cell_index=index)

    async def _cell(self, cell, index):
        if self.on_cell: self.on_cell(index)
        cell.outputs, cell.metadata["execution"], self.clear_before_next_output, self.size = [], {}, False, 0
        lenient = self.allow_errors or "raises-exception" in cell.metadata.get("tags", [])
        id = self.kc.execute(cell.source, stop_on_error=not lenient)
        try: reply = await self._answer(id, cell, index)
        finally: self.join(cell, index)
        cell.metadata["execution"]["shell.execute_reply"] = timestamp(reply)
        await self._check_raise_for_error(cell, index, reply)

    async def _answer(self, id, cell, index):
        said = asyncio.ensure_future(self._said(id, cell, index))
        name, seconds = self._time_left()
        try:
            await asyncio.wait({said, self.gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not said.done() and self.gone.done():
                await asyncio.wait({said}, timeout=LAST_WORDS)
                if not said.done(): raise await self._death()
            if not said.done():
                await self.km.interrupt_kernel()
                await asyncio.wait({said, self.gone}, timeout=AFTER_INTERRUPT, return_when=asyncio.FIRST_COMPLETED)
                self.deaf = not said.done()
                raise Stopped(*name)
            return said.result()
        finally: said.cancel()

    def _time_left(self):
        "What ends first, and in how many seconds."
        told = {"cell": ("CellTimeoutError", "the cell took more than {:g} s; raise cell_timeout in settings.ini"), "run": ("RunTimeoutError", "the run took more than {:g} s; give it more with --timeout, timeout= in [pipeline], or run_timeout in settings.ini")}
        left = [(given - (monotonic() - self.began if what == "run" else 0), (told[what][0], told[what][1].format(given))) for what, given in self.limits.items() if given]
        seconds, name = min(left, default=(None, None))
        return name, seconds and max(seconds, 0)

    async def _said(self, id, cell, index):
        "The answer to a request, when all its outputs are here. A kernel that never says it is idle again is waited for as long as it says something."
        listening = asyncio.ensure_future(self._listen(id, cell, index))
        try:
            reply, self.heard = await self._reply(id), monotonic()
            while not listening.done() and monotonic() - self.heard < self.iopub_timeout: await asyncio.wait({listening}, timeout=self.iopub_timeout)
            if listening.done(): listening.result()
            return reply
        finally: listening.cancel()

    async def _reply(self, id):
        while (msg := await self.kc.shell_channel.get_msg(timeout=None))["parent_header"].get("msg_id") != id: pass
        return msg

    async def _listen(self, id, cell, index):
        while True:
            msg = await self.kc.iopub_channel.get_msg(timeout=None)
            self.heard = monotonic()
            if msg["parent_header"].get("msg_id") != id: continue
            try: self.process_message(msg, cell, index)
            except CellExecutionComplete: return

    # --- outputs ---

    def process_message(self, msg, cell, cell_index):
        "nbclient's, up to the limit of what one cell may show."
        kind = msg["msg_type"]
        if kind == "clear_output": self.size = 0
        if kind == "error": self._cut_error(msg["content"])
        if kind in SHOWN and not self._fits(msg["content"], cell, cell_index): return None
        if kind == "stream" and not self.clear_before_next_output and not self.output_hook_stack.get(msg["parent_header"].get("msg_id")):   # most of all, and without the 2 ms that nbformat takes to look at it
            cell.outputs.append(out := NotebookNode(output_type="stream", **{k: msg["content"][k] for k in ("name", "text")}))
        else: out = super().process_message(msg, cell, cell_index)
        for tell in (self.noted, self.on_output) if out else (): tell and tell(out)
        if out and self.on_text and out.output_type != "error": self.on_text(engine.plain(out))
        return out

    def _cut_error(self, content):
        cut = lambda text: text if len(text) <= self.limit/4 else f"{text[:int(self.limit/8)]} [{len(text):,} characters, cut] {text[-int(self.limit/8):]}"
        content["evalue"], content["traceback"] = cut(content["evalue"]), [cut(line) for line in content["traceback"]][-50:]

    def _fits(self, content, cell, index):
        if self.size is None: return False
        self.size += engine.weight(content)
        if self.size <= self.limit: return True
        self.join(cell, index)   # a progress bar that overwrites itself is short after all
        kept = sum(map(engine.weight, cell.outputs))
        if kept + engine.weight(content) < .9*self.limit:
            self.size = kept + engine.weight(content)
            return True
        self.size = None
        if "text" in content: cell.outputs.append(new_output("stream", name=content["name"], text=content["text"][:max(0, int(self.limit - kept))]))
        cell.outputs.append(new_output("stream", name="stderr", text=engine.CUT.format(self.limit/1e6)))
        if self.on_text: self.on_text(engine.CUT.format(self.limit/1e6))
        return False

    def join(self, cell, index):
        "Neighbouring pieces of one stream become one output, as a terminal shows it."
        cell.outputs, places = engine.joined(cell.outputs)
        for where in self._display_id_map.values():
            if index in where: where[index] = [places[i] for i in where[index]]

    def _tell(self, cell, stopped):
        "An error output; if the cell was interrupted, where it was."
        if cell.cell_type != "code": return
        last = next((o for o in cell.outputs if o.output_type == "error"), None)
        if last: cell.outputs.remove(last)
        cell.outputs.append(new_output("error", ename=stopped.ename, evalue=stopped.evalue, traceback=[*(last.traceback if last else []), f"{stopped.ename}: {stopped.evalue}"]))

    # --- the process ---

    async def _death(self):
        for _ in range(50):
            if (code := await self.km.provisioner.poll()) is not None: break
            await asyncio.sleep(.01)
        return Stopped("DeadKernelError", "the kernel died: " + engine.death(code, self.peak, engine.oom_kills() > self.kills))

    def look(self):
        if self.km and self.km.has_kernel: self.peak = max(engine.memory_of(self._pid()), self.peak)

    async def evaluate(self, expression, seconds=5):
        "Value of a Python expression in the kernel, after the cells; None when it cannot say, or is no Python."
        if self.info.get("implementation") != "ipython" or self.gone.done() or self.deaf: return None
        id = self.kc.execute("", silent=True, store_history=False, user_expressions={"it": expression})
        try: said = (await asyncio.wait_for(self._reply(id), seconds))["content"]["user_expressions"]["it"]
        except (asyncio.TimeoutError, KeyError): return None
        return ast.literal_eval(said["data"]["text/plain"]) if said["status"] == "ok" else None
