"""Voila with what pages for other people need: several of them, kernels that stand ready and none left over, an address with a token. `nbs/pages/live.ipynb` tells its story."""
import ast, asyncio, json, logging, os, re, secrets, sys, time, webbrowser
from collections import defaultdict, deque
from pathlib import Path

import nbformat, tornado.ioloop, tornado.iostream, tornado.web
from jupyter_core.paths import jupyter_path
from jupyter_core.utils import ensure_async
from jupyter_server.auth.identity import PasswordIdentityProvider, User
from jupyter_server.base.handlers import FileFindHandler, JupyterHandler
from jupyter_server.utils import url_path_join
from traitlets import Bool, Dict, Float, Int
from voila.app import Voila
from voila.handler import BaseVoilaHandler
from voila.notebook_renderer import NotebookRenderer
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler
from voila.utils import get_page_config

from ..core import store
from ..core.distant import file_system
from ..core.secrets import redact
from ..core.source import heading
from .live import actors

REQUEST = "SCRIPT_NAME PATH_INFO QUERY_STRING SERVER_SOFTWARE SERVER_PROTOCOL SERVER_PORT SERVER_NAME".split()   # what a page's kernel is told of the visit

def ahead(source):
    "May this code run before anybody has come? Only imports and literals: whatever it computes would be as old as the pool."
    try: body = ast.parse(source).body
    except SyntaxError: return False
    return all(isinstance(n, (ast.Import, ast.ImportFrom)) or isinstance(n, (ast.Assign, ast.Expr)) and _literal(n.value) for n in body)

def _literal(node):
    try: ast.literal_eval(node)
    except (ValueError, TypeError): return False
    return True

class Page(NotebookRenderer):
    "A notebook in its kernel: its imports run at once, the rest when a visitor is there."

    def __init__(self, **more):
        super().__init__(**more)
        self.kernel, self.work, self.widgets, self.early, self.visitor, self.held = None, None, False, False, asyncio.get_running_loop().create_future(), asyncio.Event()

    async def load_notebook(self, path): return await self.fix_notebook(nbformat.read(path, as_version=4))

    async def start(self, kernel, manager):
        "Returns when its imports have run."
        self.kernel = kernel
        self.stream, self.head = self.generate_content_generator(kernel, manager.get_kernel(kernel)), asyncio.Queue()
        self.work = asyncio.create_task(self._work())
        waits = asyncio.create_task(self.held.wait())
        await asyncio.wait([self.work, waits], return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
        if self.work.done(): self.work.result()
        return self

    async def _work(self):
        try:
            async for snippet, _ in self.stream: self.head.put_nowait(snippet)
        finally: self.head.put_nowait(None)

    async def show(self, facts):
        "The page, piece by piece, for the visitor of these facts."
        self.visitor.set_result(facts)
        while (snippet := await self.head.get()) is not None: yield snippet

    async def _jinja_cell_generator(self, nb, kernel_id):
        waiting, self.executor.allow_errors = True, True
        await self._told("from mlops_nb.pages.live import show_errors; show_errors()")
        for i, cell in enumerate(nb.cells):
            if cell.cell_type == "code":
                if waiting and not ahead(cell.source): waiting = await self._hold()
                await self._run(cell, i)
            self.widgets |= "application/vnd.jupyter.widget-view+json" in str(cell.get("outputs", ""))
            yield cell
        if waiting: await self._hold()
        await self._cleanup_resources()

    async def _hold(self):
        if self.early: await self._told("from mlops_nb.pages.live import rehearse; rehearse()")
        self.held.set()
        await self._told(f"import os; os.environ.update({await self.visitor!r})")

    async def _told(self, code): await ensure_async(self.executor.kc.execute(code, silent=True, store_history=False))

    async def _run(self, cell, i):
        "An error is shown in its place and told to the log; what follows still runs. Not with `execute_cell`, which hides what the error was."
        cell.outputs = []
        try: await self.executor.async_execute_cell(cell, i, store_history=False)
        except Exception as e:   # the kernel is gone, or the cell took too long
            self.log.error("page %s, cell %s: %s", self.notebook_path, i, redact(f"{type(e).__name__}: {e}")[:500])
            cell.outputs = [dict(output_type="error", ename=type(e).__name__, evalue="the computation ended before it was done", traceback=[])]
        for output in cell.outputs:
            if output.get("output_type") != "error": continue
            output["evalue"] = redact(output["evalue"])[:300]
            self.log.error("page %s, cell %s: %s: %s", self.notebook_path, i, output["ename"], output["evalue"])

class Pool:
    "Pages that wait for a visitor. One that is taken is nobody else's, and one that waits is never culled."

    def __init__(self, app, size):
        self.app, self.size, self.waiting, self.filling, self.open, self.lines = app, size, defaultdict(deque), defaultdict(int), {}, defaultdict(set)

    async def take(self, name):
        while self.waiting[name]:
            page, stamp = self.waiting[name].popleft()
            if stamp == self.app.stamp(name) and await self.app.alive(page.kernel): break
            await self.app.end(page.kernel)
        else: page = await self.app.begin(name)
        self.open[page.kernel] = time.monotonic()
        self.fill(name, .3)
        return page

    def fill(self, name, delay=0.):
        while len(self.waiting[name]) + self.filling[name] < self.size:
            self.filling[name] += 1
            asyncio.ensure_future(self._fill(name, delay))

    async def _fill(self, name, delay):
        try:
            await asyncio.sleep(delay)
            while self.rendering(): await asyncio.sleep(.1)   # visitors first
            stamp = self.app.stamp(name)
            self.waiting[name].append((await self.app.begin(name, early=True), stamp))
        except Exception as e:
            self.app.log.error("page %s cannot be made ready: %s; it is tried again in a minute", name, redact(str(e))[:500])
            tornado.ioloop.IOLoop.current().call_later(60, self.fill, name)
        finally: self.filling[name] -= 1

    def connected(self, kernel):
        "Is a browser there? Jupyter's own count is one too low for good when a browser leaves while its line is being laid."
        self.lines[kernel] = {line for line in self.lines[kernel] if line.ws_connection}
        return bool(self.lines[kernel])

    def rendering(self): return any(began == float("inf") for began in self.open.values())

    async def cull(self, grace):
        "End the kernels of visitors who have been away for a while; a page that is just being made has somebody."
        now = time.monotonic()
        for kernel, since in [*self.open.items()]:
            if kernel not in self.app.kernel_manager: await self.app.end(kernel)
            elif self.connected(kernel) or since == float("inf"): self.open[kernel] = max(since, now)
            elif now - since > grace: await self.app.end(kernel)

class People(PasswordIdentityProvider):
    "One token is for looking; each of those who may act has one of his own."
    actors:dict[str, str] = {}   # token by name

    async def get_user_token(self, handler):
        given = (self.get_token(handler) or "").encode()
        name = next((n for n, token in self.actors.items() if secrets.compare_digest(token.encode(), given)), None)
        return User(name) if name else await super().get_user_token(handler)

class PageHandler(BaseVoilaHandler):
    "One page; `/` is the home page."

    def initialize(self, app, **more):
        super().initialize(voila_configuration=app.voila_configuration)
        self.app = app

    @tornado.web.authenticated
    async def get(self, name=""):
        name = name.removesuffix(".ipynb") or self.app.home
        if name == "": return self.finish(self._list())
        if name not in self.app.pages: raise tornado.web.HTTPError(404, f"there is no page {name!r}")
        self.xsrf_token   # its cookie lets the tab end its kernel
        for k, v in {"Content-Type": "text/html; charset=UTF-8", "Cache-Control": "no-store", "Referrer-Policy": "same-origin"}.items(): self.set_header(k, v)
        page, pool = await self.app.pool.take(name), self.app.pool
        pool.open[page.kernel] = float("inf")
        try:
            async for snippet in page.show(self._facts()): await self._send(snippet)
            (self.app.with_widgets.add if page.widgets else self.app.with_widgets.discard)(name)
        except tornado.iostream.StreamClosedError: await self.app.end(page.kernel)   # the visitor has left
        finally:
            if page.kernel in pool.open: pool.open[page.kernel] = time.monotonic()

    async def _send(self, snippet):
        self.write(snippet)
        await self.flush()

    def _facts(self):
        r, (host, _, port) = self.request, self.request.host.lower().partition(":")
        query = "&".join(p for p in r.query.split("&") if p and not p.startswith("token="))
        name = getattr(self.current_user, "username", "")
        return dict(zip(REQUEST, (r.path, "", query, "voila/mlops-nb", str(r.version), port, host)), MLOPS_NB_ACTOR=name if name in People.actors else "")

    def _list(self):
        rows = [(f"{self.base_url}{name}", *heading(json.loads(path.read_text(encoding="utf-8"))), name) for name, path in self.app.pages.items()]
        return self.render_template("pages.html", pages=[dict(url=u, title=t or n, promise=re.sub(r"[`*]", "", p).split(". ")[0]) for u, t, p, n in rows])

    def write_error(self, status_code, **more):
        error = more.get("exc_info", (None, None))[1]
        words = (getattr(error, "log_message", None) or "") if status_code < 500 else "This page cannot be shown just now; the log of the server says why."
        self.finish(self.render_template("error.html", status_code=status_code, status_message="There is no such page" if status_code == 404 else "Something went wrong", message=words))

class Copy(PageHandler):
    "The file of a page in the reports folder, to send to somebody."
    @tornado.web.authenticated
    async def get(self, name=""):
        fs, path = file_system(store.report_path(name))
        if not fs.exists(path): raise tornado.web.HTTPError(404, f"there is no file {name!r}; mlops-nb dashboard --copy writes it")
        for k, v in {"Content-Type": "text/html; charset=UTF-8", "Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}.items(): self.set_header(k, v)
        self.finish(fs.cat_file(path))

class Health(tornado.web.RequestHandler):
    "For load balancers: open to all, so it names nothing."
    def initialize(self, app): self.app = app
    def get(self):
        pool = self.app.pool
        self.finish(dict(status="ok", pages=len(self.app.pages), visitors=len(pool.open), ready=sum(map(len, pool.waiting.values()))))

class Quiet(logging.Filter):
    "No secret, no token and no source of a cell reaches the log."
    def filter(self, record):
        text = re.sub(r"(token=|Bearer |_xsrf=)[^&\s\"']+", r"\1***", redact(record.getMessage()))
        if text.startswith("The websocket_ping_timeout"): return False   # tornado takes Jupyter's milliseconds for seconds
        record.msg, record.args = (text[:text.find("{'cell_type'")] + "a cell" if "{'cell_type'" in text else text), ()
        if record.exc_info: record.msg, record.exc_info, record.exc_text = f"{record.msg}: {redact(str(record.exc_info[1]))[:500]}", None, None
        return True

class Line(VoilaKernelWebsocketHandler):
    "Voila takes every binary message for one of the newer form and counts without end where it is not; our pages speak the older one, and pictures are binary."

    def initialize(self, pool):
        super().initialize()
        self.pool = pool

    async def open(self, kernel_id):
        self.pool.lines[kernel_id].add(self)
        await super().open(kernel_id)

    def write_message(self, message, binary=False):
        if self.selected_subprotocol or not isinstance(message, bytes): return super().write_message(message, binary)
        return super(VoilaKernelWebsocketHandler, self).write_message(message, binary)

class Pages(Voila):
    "The server of `mlops-nb dashboard`."
    pages, home, with_widgets, made = Dict(), "", set[str](), dict[str, str]()   # made: page by kernel
    identity_provider_class = People
    pool_size = Int(2, config=True, help="Kernels of each page that wait for visitors")
    grace = Float(45, config=True, help="Seconds a kernel is kept without a browser")
    check = Float(3, config=True, help="Seconds between looks for kernels without a browser")
    quiet = Bool(True, config=True, help="Keep secrets out of the log")

    def init_settings(self):
        settings = super().init_settings()
        if self.quiet:
            for log in (self.log, *map(logging.getLogger, ("tornado.access", "tornado.application", "tornado.general", "asyncio"))): log.addFilter(Quiet())
        return {**settings, "log_function": lambda handler: None}   # who asked for what is nobody's business

    def init_handlers(self):
        self.pool = Pool(self, self.pool_size)
        at = lambda path: url_path_join(self.server_url, path)
        nbextensions = (at(r"/voila/nbextensions/(.*)"), FileFindHandler, {"path": jupyter_path("nbextensions"), "no_cache_paths": []})
        kept = [h for h in super().init_handlers() if h[0] != at(r"/(.*)") and not re.search(r"/voila/(tree|render|files|api/contents)", h[0]) and h[0] != self.server_url]
        kept = [(h[0], Line, {"pool": self.pool}) if h[1] is VoilaKernelWebsocketHandler else h for h in kept]
        mine = [(at("/health"), Health, {"app": self}), (at(r"/(?:voila/render/)?copies/(\w[\w.-]*\.html)"), Copy, {"app": self}), nbextensions, *((at(path), PageHandler, {"app": self}) for path in (r"/voila/render/(.*)", r"/([\w.-]*)"))]
        return [*mine[:3], *kept, *mine[3:]]

    def listen(self):
        tornado.ioloop.PeriodicCallback(lambda: self.pool.cull(self.grace), 1000*self.check).start()
        tornado.ioloop.IOLoop.current().add_callback(self._begin)
        super().listen()

    def _begin(self):
        print(f"{', '.join(self.pages)}: {self.link(self.identity_provider.token)}", *(f"{name} may also act: {self.link(token)}" for name, token in People.actors.items()), sep="\n", flush=True)
        for name in self.pages: self.pool.fill(name)

    def launch_browser(self): webbrowser.open(self.link(self.identity_provider.token))

    def link(self, token):
        "The address with a token, which the log never has."
        return (self.custom_display_url or self._url(self.ip)) + (f"?token={token}" if token else "")

    def _handle_signal_stop(self, sig, frame): self.ioloop.add_callback_from_signal(self.ioloop.stop)

    # --- kernels ---

    def stamp(self, name): return self.pages[name].stat().st_mtime_ns

    async def begin(self, name, early=False):
        "A kernel in which the imports of a page have run; early: nobody waits for it yet."
        page = self._page(name)
        page.early = early
        await page.initialize()
        title, _ = heading(page.notebook)
        page.resources.update(mlops_live=True, mlops_title=title or name, mlops_preload=name in self.with_widgets)
        spec = page.notebook.metadata.kernelspec.name
        words = ["--IPKernelApp.log_level=ERROR"] if "ipykernel_launcher" in self.kernel_spec_manager.get_kernel_spec(spec).argv else []   # it warns of each kernel that its ports, on this machine, are not encrypted
        kernel = await self.kernel_manager.start_kernel(kernel_name=spec, path=str(self.pages[name].parent), env=self._env(page.notebook), extra_arguments=words)
        self.made[kernel] = page
        try: return await page.start(kernel, self.kernel_manager)
        except BaseException:
            await self.end(kernel)
            raise

    def _env(self, notebook):
        writes = notebook.metadata.get("voila", {}).get("writes", False)
        return {**os.environ, "SERVER_SOFTWARE": "voila/mlops-nb", "VOILA_PREHEAT": "False", **({} if writes else {"MLOPS_NB_READ_ONLY": "true"})}

    def _page(self, name):
        config = get_page_config(base_url=self.base_url, settings=self.app.settings, log=self.log, voila_configuration=self.voila_configuration)
        facts = {k: getattr(self, k) for k in ("voila_configuration", "template_paths", "config_manager", "contents_manager", "base_url", "kernel_spec_manager")}
        return Page(traitlet_config=self.config, notebook_path=str(self.pages[name]), page_config=config, **facts)

    async def alive(self, kernel): return kernel in self.kernel_manager and await self.kernel_manager.get_kernel(kernel).is_alive()

    async def end(self, kernel):
        for kept in (self.pool.open, self.pool.lines): kept.pop(kernel, None)
        if (page := self.made.pop(kernel, None)) and page.work: page.work.cancel()
        if kernel in self.kernel_manager: await self.kernel_manager.shutdown_kernel(kernel, now=True)

def main(pages, home, argv):
    "Serve notebooks by name until the process is told to end."
    here = Path(__file__).resolve().parents[1]/"static"/"jupyter"
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(here), os.environ.get("JUPYTER_PATH")]))
    Pages.pages.default_value, Pages.home = {k: Path(v) for k, v in pages.items()}, home
    People.actors = {name: secrets.token_hex(24) for name in actors()}
    Pages.launch_instance(argv)

if __name__ == "__main__": main(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:])
