"""From the click to the next item painted, in a real JupyterLab and a real Voila with a real Chromium: our card, superintendent and plain ipywidgets in turn, by the same clock
(the time stamp of the click; painted is the task after the animation frame after the first change of the item). Idle, with the kernel busy 1 s of every 1.05, and behind
50 ms of network, which a TCP proxy delays (25 ms each way). Peers live in ~/.cache/mlops-nb/bench/label_click. CLICKS=60, HOSTS=voila,lab, CASES=idle,busy,far."""
import asyncio, os, platform, random, statistics, subprocess, sys, tempfile, threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", PYTHONPATH=str(ROOT))

CLICKS, HOSTS, CASES = int(os.environ.get("CLICKS", 60)), os.environ.get("HOSTS", "voila,lab").split(","), os.environ.get("CASES", "idle,busy,far").split(",")
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/label_click"
PEERS = ["superintendent==0.6.0", "ipyannotations==0.5.1", "sqlmodel==0.0.22", "ipywidgets==8.1.9", "ipykernel==7.4.0", "voila==0.5.13", "jupyterlab==4.6.6", "setuptools<81"]   # a newer sqlmodel refuses its dates
BUSY = """import asyncio, time
async def work():
    while True:
        until = time.monotonic() + 1
        while time.monotonic() < until: pass
        await asyncio.sleep(.05)
busy = asyncio.get_event_loop().create_task(work())"""
OURS = "from mlops_nb.label.widget import label\nlabel('{name}', 'ana')"
PLAIN = """import ipywidgets as w, sqlite3
kept, n = sqlite3.connect('{folder}/plain.db', isolation_level=None, check_same_thread=False), [0]
kept.execute('create table if not exists label (item, label)')
item, buttons = w.HTML('item 0'), [w.Button(description=d) for d in ('good', 'bad')]
def clicked(b):
    kept.execute('insert into label values (?, ?)', (n[0], b.description))
    n[0] += 1
    item.value = f'item {{n[0]}}'
for b in buttons: b.on_click(clicked)
w.VBox([item, w.HBox(buttons)], layout=w.Layout(height='200px')).add_class('bench')"""
SUPER = """import warnings; warnings.simplefilter('ignore')
from ipyannotations.generic import ClassLabeller
from superintendent import Superintendent
made = Superintendent(features=[f'item {{i}}' for i in range(2000)], labelling_widget=ClassLabeller(options=['good', 'bad'], allow_freetext=False), database_url='sqlite:///{folder}/{name}.db')
made.add_class('bench')"""
CLOCK = """({root, words}) => {
    window.took = []; window.root = root; let began = null, was = null;
    const node = () => document.querySelector(root), item = () => node()?.textContent.match(/item (\\d+)/)?.[1];
    window.addEventListener('click', e => { if (e.target.closest?.('button')?.textContent.includes(words)) { began = e.timeStamp; was = item() } }, true);
    new MutationObserver(() => {
        if (began === null || item() === undefined || item() === was) return;
        const since = began; began = null;
        requestAnimationFrame(() => { const c = new MessageChannel(); c.port1.onmessage = () => window.took.push(performance.now() - since); c.port2.postMessage(0) });
    }).observe(document.body, {subtree: true, childList: true, characterData: true}) }"""

def peer_python():
    python = HOME/"bin/python"
    if not python.exists():
        subprocess.run(["uv", "venv", "-q", str(HOME)], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), *PEERS], check=True)
    return str(python)

class Far:
    "A TCP proxy that hands each piece on after 25 ms, in order."
    def __init__(self, port):
        self.loop, ready = asyncio.new_event_loop(), threading.Event()
        async def pipe(reader, writer):
            queue = asyncio.Queue()
            async def out():
                while (piece := await queue.get())[1]:
                    await asyncio.sleep(max(0, piece[0] - self.loop.time()))
                    writer.write(piece[1])
                    await writer.drain()
                writer.close()
            sender = self.loop.create_task(out())
            try:
                while data := await reader.read(1 << 16): queue.put_nowait((self.loop.time() + .025, data))
            except ConnectionError: pass
            queue.put_nowait((0, b""))
            await asyncio.gather(sender, return_exceptions=True)
        async def meet(reader, writer):
            other, out = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pipe(reader, out), pipe(other, writer), return_exceptions=True)
        async def serve():
            server = await asyncio.start_server(meet, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
        threading.Thread(target=lambda: (self.loop.create_task(serve()), self.loop.run_forever()), daemon=True).start()
        ready.wait()

def serve(host, python, folder):
    from tests import test_lab
    from tests.test_label_widget import environment
    (folder/"books").mkdir(exist_ok=True)
    env = environment(folder) if python == sys.executable else {k: v for k, v in environment(folder).items() if k != "PYTHONPATH"}
    words = {"voila": ["voila", str(folder/"books"), "--Voila.ip=127.0.0.1"],
             "lab": ["jupyterlab", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder/'books'}", "--IdentityProvider.token=tok", "--ServerApp.allow_remote_access=True",
                     "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]}[host]
    was, test_lab.sys.executable = sys.executable, python
    try: return test_lab.serve(folder, env, "/static/voila.js" if host == "voila" else "/api", *words)
    finally: test_lab.sys.executable = was

def page_of(host, context, address, book):
    from tests.test_lab import Notebook
    from tests.test_label_widget import guarded, open_lab
    page = guarded(context, address)
    if host == "voila": page.goto(f"{address}/voila/render/{book}.ipynb", wait_until="commit", timeout=120_000)
    else:
        open_lab(page, address)
        note = Notebook(page, f"{book}.ipynb")
        note.js("await jupyterapp.commands.execute('notebook:run-all-cells')", seconds=120)
    return page

def clicks(page, root, n):
    "Real clicks, one after the other is painted, after a pause as a quick person makes it."
    button = page.locator(f"{root} button", has_text="good").first
    for _ in range(n):
        before = page.evaluate("window.took.length")
        page.wait_for_timeout(random.randrange(120, 360))
        box = button.bounding_box()
        page.mouse.click(box["x"] + box["width"]/2, box["y"] + box["height"]/2)
        page.wait_for_function("n => window.took.length > n", arg=before, timeout=60_000)

def measure(host, case, folder, browser):
    from mlops_nb.core.config import settings_for
    from mlops_nb.label import queue
    from tests.conftest import write_notebook
    from tests.test_label_widget import end, new_project
    new_project(folder)
    name = f"{host}_{case}"
    with settings_for(folder): queue.create(name, [dict(id=i, text=f"item {i}") for i in range(3000)], key="id", kind="text", classes=("good", "bad"))
    codes = dict(ours=OURS, plain=PLAIN, superintendent=SUPER)
    peer, took, pages, processes = peer_python(), {}, {}, []
    try:
        for python in dict.fromkeys((sys.executable, peer)):
            home = folder if python == sys.executable else new_project(folder/"peer")
            for who, code in codes.items():
                if (who == "superintendent") == (python == peer): write_notebook(home/f"books/{who}.ipynb", code.format(name=name, folder=home), *(["made"] if who == "superintendent" else []), *([BUSY] if case == "busy" else []))
            if python == peer: (home/"voila.json").unlink()      # its own extensions
            process, address = serve(host, python, home)
            processes.append(process)
            if case == "far": address = f"http://127.0.0.1:{Far(int(address.rsplit(':', 1)[1])).port}"
            for who in codes:
                if (who == "superintendent") != (python == peer): continue
                root = ".mlops-label" if who == "ours" else ".bench"
                try:
                    page = page_of(host, browser.new_context(viewport=dict(width=1280, height=900)), address, who)
                    page.locator(f"{root} button", has_text="good").first.wait_for(timeout=90_000)
                    page.evaluate(CLOCK, dict(root=root, words="good"))
                    pages[who] = (page, root)
                except Exception as e: print(f"  {who} does not come up in {host}: {str(e).splitlines()[0][:140]}", flush=True)
        for turn in range(max(1, CLICKS//10) + 1):
            for who, (page, root) in [*pages.items()]:
                page.bring_to_front()
                try: clicks(page, root, 10)
                except Exception as e:
                    print(f"  {who} stopped in {host}, {case}: {str(e).splitlines()[0][:140]}", flush=True)
                    del pages[who]
                if turn == 0: page.evaluate("window.took = []")            # warming up
        took = {who: page.evaluate("window.took") for who, (page, _) in pages.items()}
    finally:
        for page, _ in pages.values(): page.context.close()
        for process in processes: end(process)
    for who, times in took.items():
        times = sorted(times)
        if len(times) > 5: print(f"{host:6}{case:5}{who:16}{statistics.median(times):8.1f}{times[int(.95*len(times))]:8.1f}{times[-1]:9.1f}{len(times):5}   load {os.getloadavg()[0]:.1f}", flush=True)

def main():
    from playwright.sync_api import sync_playwright
    from tests.conftest import CHROMIUM, FLAGS
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}\n{'':27}{'p50 ms':>8}{'p95':>8}{'max':>9}{'n':>5}", flush=True)
    with tempfile.TemporaryDirectory() as tmp, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for host in HOSTS:
            for case in CASES: measure(host, case, Path(tmp)/f"{host}{case}", browser)
        browser.close()

if __name__ == "__main__": main()
