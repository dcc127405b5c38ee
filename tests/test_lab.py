"Warm kernels in a real JupyterLab and a stock Voila, seen with a real browser: the same as cold ones, only sooner. Nothing but 127.0.0.1 to talk to."
import json, os, re, signal, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path
from types import SimpleNamespace

import psutil, pytest

from mlops_nb.run import warm
from tests.conftest import CHROMIUM, ROOT, free_port, gone, wait_until, write_notebook

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only"),
              pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed; apt-get install chromium")]

# --- a server, a page, a notebook in it ---

def home(folder, **more):
    "Environment of a server with its own home, whose Python kernels are warm; the kernel `cold` is not, `mlops-nb` is by its own choice."
    own = {k: str(folder/k.lower()) for k in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    spec = json.loads((ROOT/"mlops_nb/run/kernel.json").read_text())
    for name, provisioner in (("mlops-nb", spec["metadata"]["kernel_provisioner"]["provisioner_name"]), ("cold", "local-provisioner")):
        spec["metadata"]["kernel_provisioner"] = dict(provisioner_name=provisioner)
        path = Path(own["JUPYTER_DATA_DIR"])/"kernels"/name/"kernel.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(spec))
    return {**os.environ, **own, "MLOPS_NB_ROOT": str(folder), "JUPYTER_DEFAULT_PROVISIONER_NAME": warm.NAME, **more}

def serve(folder, env, probe, *words):
    "(process, address) of a server that answers."
    address, log = f"http://127.0.0.1:{(port := free_port())}", folder/"server.log"
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", *map(str, words), "--no-browser", f"--port={port}"], cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
    def answers():
        assert process.poll() is None, log.read_text()[-3000:]
        try: return urllib.request.urlopen(address + probe, timeout=2).close() is None
        except urllib.error.HTTPError: return True
        except OSError: return False
    wait_until("answer of the server", answers)
    return process, address

def zygote_of(env):
    "Process id of the zygote of such kernels, once it is ready."
    wait_until("zygote", lambda: warm.prepare(env) != "importing")
    assert warm.prepare(env) == "ready"
    return warm._told(warm.zygote_name({**warm.QUIET, **env}))["pid"]

def tab(browser, address):
    "A page that can reach this server and nothing else."
    page = browser.new_context(viewport=dict(width=1400, height=1000)).new_page()
    page.set_default_timeout(90_000)
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith((address, "data:", "blob:")) else route.abort())
    return page

def js(page, body, given=None, seconds=90):
    "Value of the script, in which `given` stands; fails when it takes too long."
    late = f"new Promise((_, no) => setTimeout(() => no(new Error('not within {seconds} s: ' + {json.dumps(body)})), {1000*seconds}))"
    return page.evaluate(f"given => Promise.race([(async () => {{ {body} }})(), {late}])", given)

class Notebook:
    "A notebook in JupyterLab's page; `n` is the number of its panel. Everything goes through JupyterLab's own commands, models and kernel connection."

    PANEL = "const panel = window.panels[%d], kernel = panel.sessionContext.session?.kernel, cells = panel.content.widgets;"

    def __init__(self, page, name):
        "Open it and wait until its kernel stands."
        self.page, self.n = page, page.evaluate("""async name => {
            const panel = await jupyterapp.commands.execute('docmanager:open', {path: name});
            await panel.context.ready; await panel.sessionContext.ready;
            return (window.panels ??= []).push(panel) - 1}""", name)
        self.idle()

    def js(self, body, given=None, seconds=90):
        "Value of the script, in which `panel`, `kernel`, `cells` and `given` stand."
        return js(self.page, self.PANEL % self.n + body, given, seconds)

    def until(self, condition): self.js(f"while (!({condition})) await new Promise(done => setTimeout(done, 5))")

    def idle(self): self.until("panel.sessionContext.session?.kernel?.status == 'idle'")

    def front(self):
        "Its panel on the page, brought to the front as a click on its tab does."
        return self.page.locator(f"#{self.js('jupyterapp.shell.activateById(panel.id); return panel.id')}")

    def start(self, i):
        "Run a cell without waiting for it."
        self.front()
        self.js("panel.content.activeCellIndex = given; panel.content.deselectAll(); jupyterapp.commands.execute('notebook:run-cell')", i)

    def run(self, i):
        "Run a cell and wait for the end; returns what it shows."
        self.front()
        some = self.js("panel.content.activeCellIndex = given; panel.content.deselectAll(); await jupyterapp.commands.execute('notebook:run-cell'); return cells[given].model.outputs.length", i)
        for _ in range(100 if some else 0):      # an output is in the model a moment before it is painted; a picture has no words
            if self.text(i): break
            time.sleep(.02)
        return self.text(i)

    def run_all(self):
        "Run all cells and wait for the end; returns their outputs as they will be saved."
        self.front()
        return self.js("await jupyterapp.commands.execute('notebook:run-all-cells'); return cells.map(c => c.model.outputs.toJSON())")

    def shown(self, i): return self.front().locator(f".jp-Cell >> nth={i}").locator(".jp-OutputArea-output")

    def text(self, i): return "\n".join(self.shown(i).all_inner_texts()).strip()

    def sees(self, i, words):
        "Wait until the cell shows the words."
        self.shown(i).filter(has_text=words).first.wait_for()
        return self.text(i)

    def asks(self, method, **content): return self.js(f"return (await kernel.{method}(given)).content", content)

    def button(self, command): self.front().locator(f".jp-NotebookPanel-toolbar [data-command='{command}']").click()

    def restart(self, button="notebook:restart-kernel"):
        "As a person does it: the button, and yes; the kernel stands afterwards."
        self.js("panel.restarted = false; kernel.statusChanged.connect((_, s) => { if (s.includes('restarting')) panel.restarted = true })")
        self.button(button)
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.until("panel.restarted && kernel.status == 'idle'")

    def close(self): self.js("await panel.sessionContext.shutdown(); panel.dispose()")

def end(process):
    process.terminate()
    try: process.wait(20)
    except subprocess.TimeoutExpired: process.kill()

def start_lab(folder, env, browser):
    "A JupyterLab on `folder/books` with warm kernels and its page: `page`, `process`, `zygote`, `env`, `log`, and `open(name, *cells)`."
    warm.prepare(env)
    (folder/"books").mkdir(exist_ok=True)
    process, address = serve(folder, env, "/api", "jupyterlab", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder/'books'}", "--IdentityProvider.token=tok",
                             "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
    try:
        zygote, page = zygote_of(env), tab(browser, address)
        page.goto(f"{address}/lab?reset&token=tok", wait_until="commit")
        page.wait_for_function("window.jupyterapp?.shell", timeout=60_000)
        page.evaluate("jupyterapp.restored")
    except BaseException:
        end(process)
        raise
    def opened(name, *cells, kernel="python3"):
        write_notebook(folder/f"books/{name}.ipynb", *cells, kernel=kernel)
        return Notebook(page, f"{name}.ipynb")
    return SimpleNamespace(page=page, process=process, zygote=zygote, env=env, log=folder/"server.log", open=opened)

@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    folder = tmp_path_factory.mktemp("lab")
    lab = start_lab(folder, home(folder), browser)
    yield lab
    lab.page.context.close()
    end(lab.process)
    warm._end(warm.zygote_name({**warm.QUIET, **lab.env}))

@pytest.fixture
def book(lab):
    "`lab.open`, with an end: what a test opened is closed, its kernels too, and so is a dialogue that stayed."
    opened = []
    yield lambda *words, **more: opened.append(lab.open(*words, **more)) or opened[-1]
    if (button := lab.page.locator(".jp-Dialog .jp-mod-accept")).count(): button.first.click()
    for b in opened if lab.process.poll() is None else (): b.close()

WHO = "import os; print(os.getpid(), os.getppid())"

def who(text): return [int(n) for n in re.findall(r"\d+", text)]

# --- what a person does ---

def test_open_run_and_see(lab, book):
    "Print, value, figure and widget; the widget talks to the kernel both ways."
    slider = "import ipywidgets as w\ns, told = w.IntSlider(3), w.Label('nothing yet')\ns.observe(lambda c: setattr(told, 'value', f'got {c.new} of {n}'), 'value')\nw.VBox([s, told])"
    b = book("see", WHO, "n = 6\nn*7", "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);", slider)
    b.run_all()
    assert who(b.text(0))[1] == lab.zygote and b.text(1) == "42"
    image = b.shown(2).locator("img")
    image.wait_for()
    assert image.evaluate("i => i.complete && i.naturalWidth > 100 && i.src.startsWith('data:image/png')")
    handle = b.shown(3).locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    assert "got 4 of 6" in b.sees(3, "got 4 of 6")

def test_the_kernelspec_is_warm_by_its_own_choice(lab, book):
    assert who(book("spec", WHO, kernel="mlops-nb").run(0))[1] == lab.zygote
    assert who(book("cold", WHO, kernel="cold").run(0))[1] == lab.process.pid

LONG = "import subprocess\nbefore = 7\nprint('on its way')\nsubprocess.run(['sleep', '60'])"

def test_interrupt(lab, book):
    "With the button: the cell and what it had started end, the state stays. The other notebook's kernel goes on."
    b, other = book("long", LONG, f"print(before)\n{WHO}", "import psutil, time\nfor _ in range(3000): time.sleep(.02)"), book("other", "import time\nfor n in range(8): time.sleep(.25)\nprint('not disturbed')")
    b.start(0)
    other.start(0)
    b.sees(0, "on its way")
    children = lambda: [c for k in psutil.Process(lab.zygote).children() for c in k.children() if c.name() == "sleep"]
    wait_until("sleep", children)
    b.button("notebook:interrupt-kernel")
    assert "KeyboardInterrupt" in b.sees(0, "KeyboardInterrupt")
    wait_until("end of the child", lambda: not children(), seconds=5)
    assert b.run(1).startswith("7\n")
    b.start(2)
    b.until("kernel.status == 'busy'")
    b.button("notebook:interrupt-kernel")
    b.sees(2, "KeyboardInterrupt")
    assert b.run(1).startswith("7\n") and other.sees(0, "not disturbed") == "not disturbed"

def test_restart_and_restart(lab, book):
    "State gone, another process, a fork again, and figures as before; the second one in the middle of a cell."
    b = book("again", WHO, "try: print('still', old)\nexcept NameError: print('gone')\nold = 1", "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);", "import time\nprint('busy', flush=True)\ntime.sleep(60)")
    pids = []
    for k in range(3):
        pids.append(who(b.run(0)))
        assert b.run(1) == "gone" and b.run(1) == "still 1"
        b.run(2)
        b.shown(2).locator("img").wait_for()
        if k == 1:
            b.start(3)
            b.sees(3, "busy")
        if k < 2: b.restart()
    assert len({p for p, _ in pids}) == 3 and {z for _, z in pids} == {lab.zygote}
    assert all(gone(p) for p, _ in pids[:2])

def test_restart_and_run_all(lab, book):
    b = book("anew", "n = globals().get('n', 0) + 1\nn")
    assert [b.run(0), b.run(0)] == ["1", "2"]
    b.restart("notebook:restart-run-all")
    assert b.sees(0, re.compile("^1$")) == "1"

@pytest.mark.parametrize("kernel", ["python3", "cold"])
def test_killed(lab, book, kernel):
    "The server notices and starts another; the page says so; state is gone; it works. As with cold kernels."
    b = book(f"killed-{kernel}", f"{WHO}\nn = globals().get('n', 0) + 1\nprint('n', n)", kernel=kernel)
    pid, parent, n = who(b.run(0))
    os.kill(pid, signal.SIGKILL)
    dialog = lab.page.locator(".jp-Dialog")
    dialog.wait_for()
    assert "appears to have died. It will restart automatically" in dialog.inner_text()
    dialog.locator(".jp-mod-accept").click()
    b.idle()
    another, *rest = who(b.run(0))
    assert another != pid and rest == [parent, n] == [lab.zygote if kernel == "python3" else lab.process.pid, 1]

def test_input(lab, book):
    b = book("ask", "import getpass\nname = input('who? ')\nprint(f'hello {name}', getpass.getpass('word? '))")
    for kind, said in ((":not([type=password])", "Ada"), ("[type=password]", "secret")):
        if said == "Ada": b.start(0)
        field = lab.page.locator(f".jp-Stdin-input{kind}")
        field.fill(said)
        field.press("Enter")
    assert "hello Ada secret" in b.sees(0, "hello Ada secret")

COUNT = "import time\nname = {name!r}\nfor n in range(20):\n    print(name, n, flush=True); time.sleep(.02)"

def test_two_at_once_do_not_mix(lab, book):
    "Names, outputs, histories, random numbers, widgets' comms."
    own = "import random, numpy, ipywidgets\nprint(name, random.random(), numpy.random.rand(), ipywidgets.IntText().comm.comm_id, get_ipython().history_manager.session_number)"
    two = [book(name, COUNT.format(name=name), own) for name in ("a", "b")]
    for b in two: b.start(0)
    for b, name in zip(two, "ab"):
        b.sees(0, f"{name} 19")
        assert b.text(0).split("\n") == [f"{name} {n}" for n in range(20)]
    a, b = (n.run(1).split() for n in two)
    assert a[0] == "a" and b[0] == "b" and not set(a) & set(b)

# --- the same as cold, through the page's own connection to the kernel; two streams in one cell come in either order, cold too ---

CELLS = ["print('out')", "import sys; print('err', file=sys.stderr)", "!echo from a shell", "%%bash\necho from bash >&2", "import os\nos.write(1, b'by descriptor\\n'), os.system('echo by a child')",
         "import subprocess\nsubprocess.run(['echo', 'by another']).returncode", "import pandas as pd\npd.DataFrame({'a': [1, 2]})", "from IPython.display import HTML, clear_output\ndisplay(HTML('<b>x</b>')); clear_output(wait=True); HTML('<i>y</i>')",
         "import warnings, logging\nwarnings.warn('take care'); logging.warning('logged')", "import asyncio\nawait asyncio.sleep(.01, 'awaited')", "import threading\nt = threading.Thread(target=print, args=('from a thread',)); t.start(); t.join()",
         "from tqdm.auto import tqdm\nlist(tqdm(range(3), desc='on')) and type(tqdm()).__module__", "import faulthandler, signal, gc\nfaulthandler.is_enabled(), sys.flags, sys.argv[0], sys.path, __name__, sys.stdin.isatty(), gc.isenabled(), signal.getsignal(signal.SIGINT)",
         "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1)); plt.plot([1, 2]); plt.get_backend()", "x = 3\n%timeit -n1 -r1 -q -o x\n%who_ls", "%env MLOPS_NB_ROOT", "?str.upper", "def f(x): return 1/x\nf(0)"]

def told(outputs):
    "Less what differs between any two kernels."
    return re.sub(r"ipykernel_\d+/\d*|0x[0-9a-f]+|IPY_MODEL_\w+|\"model_id\": \"\w+\"|\[\d\d:\d\d<.*?\]|Tip: .*?\\n|[\d.]+it/s", "*", json.dumps(outputs, indent=1))

def test_the_same_outputs_as_cold(book):
    cold, warmed = (book(f"same-{k}", *CELLS, kernel=k).run_all() for k in ("cold", "python3"))
    for source, a, b in zip(CELLS, cold, warmed): assert told(b) == told(a), source
    assert [o["output_type"] for o in warmed[-1]] == ["error"] and all(warmed[:-2])

ASKED = [("requestComplete", dict(code="pd.read_p", cursor_pos=9)), ("requestComplete", dict(code="half.__na", cursor_pos=9)), ("requestComplete", dict(code="%matplot", cursor_pos=8)),
         ("requestComplete", dict(code="from json.dec", cursor_pos=13)), ("requestInspect", dict(code="frame.groupby", cursor_pos=13, detail_level=0)), ("requestInspect", dict(code="half", cursor_pos=4, detail_level=1)),
         ("requestIsComplete", dict(code="for i in range(3):")), ("requestKernelInfo", {})]

def test_completion_and_inspection(book):
    "Tab, shift-tab and the kernel's own description."
    def replies(kernel):
        b = book(f"ask-{kernel}", "import pandas as pd\nframe = pd.DataFrame({'a': [1]})\ndef half(x):\n    'Half of it.'\n    return x/2", kernel=kernel)
        b.run(0)
        return [b.asks(method, **content) for method, content in ASKED]
    cold, warmed = replies("cold"), replies("python3")
    for asked, a, b in zip(ASKED, cold, warmed): assert told({**b, "metadata": 0}) == told({**a, "metadata": 0}), asked   # there jedi says what it found out in time
    assert warmed[0]["matches"] == ["read_parquet", "read_pickle"] and "__name__" in warmed[1]["matches"][0] and "Half of it." in warmed[5]["data"]["text/plain"]

SUBSHELL = """
const id = (await kernel.requestCreateSubshell({}).done).content.subshell_id, said = [], second = kernel.clone();
second.subshellId = id;
const first = kernel.requestExecute({code: "import time; time.sleep(1); late = 1"}), began = performance.now();
const quick = second.requestExecute({code: "print(x, globals().get('late'))"});
quick.onIOPub = m => m.header.msg_type == 'stream' && said.push(m.content.text);
await quick.done;
const meanwhile = performance.now() - began < 900, listed = (await kernel.requestListSubshell({}).done).content.subshell_id.length;
await first.done;
await kernel.requestDeleteSubshell({subshell_id: id}).done;
return [said.join(''), meanwhile, listed, (await kernel.requestListSubshell({}).done).content.subshell_id.length, kernel.supportsSubshells]
"""

@pytest.mark.parametrize("kernel", ["python3", "cold"])
def test_subshells(book, kernel):
    "A second shell answers while the first is busy."
    b = book(f"sub-{kernel}", "x = 5", kernel=kernel)
    b.run(0)
    assert b.js(SUBSHELL) == ["5 None\n", True, 1, 0, True]

DEBUG = """
const kernel = await jupyterapp.serviceManager.kernels.startNew({name: given});
let seq = 1;
const ask = async (command, args = {}) => (await kernel.requestDebug({type: 'request', seq: seq++, command, arguments: args}, true).done).content;
const events = [], seen = (_, m) => m.header.msg_type == 'debug_event' && events.push(m.content);
kernel.iopubMessage.connect(seen);
const event = async kind => { while (!events.some(e => e.event == kind)) await new Promise(done => setTimeout(done, 5)); return events.splice(events.findIndex(e => e.event == kind), 1)[0].body };
const code = "from tqdm.utils import disp_len\\ndef f(n):\\n    m = n + 1\\n    return m*2\\nr = f(20)\\nlength = disp_len('abc')", said = {};
const stack = async threadId => (await ask('stackTrace', {threadId})).body.stackFrames.map(f => ({...f, source: f.source.path.replace(/.*site-packages/, '')}));
said.initialize = await ask('initialize', {clientID: 'test', adapterID: '', pathFormat: 'path', linesStartAt1: true, columnsStartAt1: true, supportsVariableType: true, supportsRunInTerminalRequest: true, locale: 'en'});
said.attach = await ask('attach');
said.info = await ask('debugInfo');
const source = {path: (await ask('dumpCell', {code})).body.sourcePath};
said.breakpoints = await ask('setBreakpoints', {source, breakpoints: [{line: 3}, {line: 6}], sourceModified: false});
said.done = await ask('configurationDone');
const run = kernel.requestExecute({code});
const {threadId, reason} = await event('stopped');
said.stack = await stack(threadId);
const scopes = (await ask('scopes', {frameId: said.stack[0].id})).body.scopes;
said.variables = await ask('variables', {variablesReference: scopes[0].variablesReference});
said.evaluated = await ask('evaluate', {expression: 'n*100', frameId: said.stack[0].id, context: 'repl'});
said.step = await ask('next', {threadId});
said.after = (await event('stopped')).reason;
said.continued = await ask('continue', {threadId});
said.again = (await event('stopped')).reason;
said.into = await ask('stepIn', {threadId});
said.there = (await event('stopped')).reason;
said.library = await stack(threadId);
said.last = await ask('continue', {threadId});
said.reply = (await run.done).content;
said.inspected = (await ask('inspectVariables')).body.variables.filter(v => v.name == 'r');
said.disconnected = await ask('disconnect', {restart: false, terminateDebuggee: true});
said.later = (await kernel.requestExecute({code: 'r'}).done).content.status;
said.reason = reason;
await kernel.shutdown();
return said
"""

def test_debugger_speaks_as_cold(lab):
    "Every reply of a session: attach, break, look, evaluate, step, continue, step into a library, leave; with a kernel that JupyterLab's own debugger does not know."
    def said(kernel):
        return {k: re.sub(r'"(seq|request_seq|id|frameId|variablesReference|threadId|processId|hashSeed|pydevdVersion|systemProcessId)": \d+', r'"\1": 0', told(v)) for k, v in js(lab.page, DEBUG, kernel).items()}
    cold, warmed = said("cold"), said("python3")
    for k in cold: assert warmed[k] == cold[k], k
    assert '"n"' in warmed["variables"] and "2000" in warmed["evaluated"] and json.loads(warmed["reason"]) == "breakpoint"
    assert [f["name"] for f in json.loads(warmed["library"])] == ["disp_len", "<module>"]

def test_debugger_by_hand(lab, book):
    "The bug button, a click beside a line, a stop there, the variable in the panel, continue; and the same after a restart."
    b = book("bug", "def f(n):\n    m = n + 1\n    return m*2", "print(f(20))")
    bug, side = b.front().locator(".jp-DebuggerBugButton"), lab.page.locator(".jp-DebuggerSidebar")
    while bug.get_attribute("aria-pressed") != "true":   # JupyterLab loses a click that comes before its debugger knows the notebook
        bug.click()
        lab.page.wait_for_timeout(500)
    b.front().locator(".cm-breakpoint-gutter .cm-gutterElement >> nth=2").click()
    side.locator(".jp-DebuggerBreakpoint").wait_for()
    for again in range(2):
        if again: b.restart()
        b.until("(await kernel.requestDebug({type: 'request', seq: 1000, command: 'debugInfo', arguments: {}}).done).content.body.breakpoints.length")   # it takes JupyterLab a moment
        b.run(0)
        b.start(1)
        side.locator(".jp-DebuggerCallstackFrame-name", has_text="f").wait_for()
        side.locator(".jp-debuggerVariables-local", has_text="20").wait_for()
        lab.page.locator("[data-command='debugger:continue']").click()
        assert b.sees(1, "42") == "42"
        b.idle()

# --- Voila ---

PAGE = ["import os, ipywidgets as w, matplotlib.pyplot as plt", "print('pids', os.getpid(), os.getppid())", "plt.plot([1, 3, 2]); plt.show()",
        "s, told = w.IntSlider(3), w.Label('nothing yet')\ns.observe(lambda c: setattr(told, 'value', f'got {c.new}'), 'value')\nw.VBox([s, told])"]

def test_voila(lab, tmp_path, browser):
    "The page paints, its widget answers, its kernel is a fork; killed, the server leaves none."
    page_file = write_notebook(tmp_path/"page.ipynb", *PAGE)
    (tmp_path/"voila.json").write_text((ROOT/"voila.json").read_text())
    process, address = serve(tmp_path, lab.env, "/static/voila.js", "voila", page_file, "--Voila.ip=127.0.0.1")
    try:
        pids = []
        for _ in range(2):
            page = tab(browser, address)
            page.goto(address, wait_until="commit")
            pid, parent = who(page.get_by_text("pids").inner_text(timeout=60_000))
            assert parent == lab.zygote
            page.locator("img[src^='data:image/png']").wait_for()
            handle = page.locator(".noUi-handle")
            handle.focus()
            handle.press("ArrowRight")
            page.get_by_text("got 4").wait_for()
            pids.append(pid)
        assert len({*pids}) == 2 and not any(gone(p) for p in pids)
    finally:
        process.kill()
        process.wait()
    wait_until("end of the kernels", lambda: all(gone(p) for p in pids))

# --- the end, last in this file ---

def test_closing_the_server_leaves_no_kernel(lab, book):
    pids = [who(book(f"left-{k}", WHO, kernel=k).run(0))[0] for k in ("python3", "mlops-nb", "cold")]
    assert not any(gone(p) for p in pids)
    lab.process.terminate()
    lab.process.wait(20)
    wait_until("end of the kernels", lambda: all(gone(p) for p in pids))
    assert not psutil.Process(lab.zygote).children()
