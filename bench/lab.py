"""JupyterLab and Voila as a person meets them, in a real browser: cold kernels against warm ones, alternating, in the same server or with the same page. Needs
chromium and playwright. Seconds from the click to what is seen: a restart and the imports again, a notebook opened and run, the monitoring page."""
import os, platform, statistics, sys, tempfile, time, urllib.request
from pathlib import Path

import psutil

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)   # bytecode is kept between starts, as on a person's machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", PYTHONPATH=str(ROOT))

ROUNDS = int(os.environ.get("ROUNDS", 5))
IMPORTS = "import pandas as pd\nimport sklearn.ensemble\nimport mlflow.sklearn\nprint('ready')"
RESTART = "const began = performance.now(); await kernel.restart(); await kernel.requestExecute({code: given}).done; return (performance.now() - began)/1000"
OPEN = """async name => {
    const began = performance.now(), panel = await jupyterapp.commands.execute('docmanager:open', {path: name});
    await panel.context.ready; await panel.sessionContext.ready;
    jupyterapp.commands.execute('notebook:run-all-cells');
    while (!panel.node.querySelector('.jp-OutputArea-output')) await new Promise(done => setTimeout(done, 5));
    const took = (performance.now() - began)/1000;
    await panel.sessionContext.shutdown(); panel.dispose();
    return took}"""

def in_turn(measures):
    "Median seconds of each; one round unmeasured, then in turn, so that what else the machine does meets all."
    took = [{name: measure() for name, measure in measures.items()} for _ in range(ROUNDS + 1)][1:]
    return {name: statistics.median(t[name] for t in took) for name in measures}

def forks(zygote): return len(psutil.Process(zygote).children())

def show(title, took): print(f"{title:44}{took['cold']:8.2f}{took['warm']:8.2f}{took['cold']/took['warm']:8.1f}x", flush=True)

def jupyterlab(folder, browser):
    from tests.test_lab import Notebook, end, home, start_lab, write_notebook
    env, kernels = home(folder), dict(cold="cold", warm="python3")
    for name, kernel in kernels.items(): write_notebook(folder/f"books/{name}.ipynb", IMPORTS, kernel=kernel)
    lab = start_lab(folder, env, browser)
    try:
        show("JupyterLab: open a notebook, first output", in_turn({name: lambda name=name: lab.page.evaluate(OPEN, f"{name}.ipynb") for name in kernels}))
        books = {name: Notebook(lab.page, f"{name}.ipynb") for name in kernels}
        assert forks(lab.zygote) == 1, "the warm kernel is not a fork"
        show("JupyterLab: restart and imports", in_turn({name: lambda b=b: b.js(RESTART, IMPORTS, seconds=120) for name, b in books.items()}))
        assert forks(lab.zygote) == 1, "the warm kernel is not a fork any more"
    finally: end(lab.process)

def store(folder):
    "A small project for the monitoring page."
    import pandas as pd
    from mlops_nb.core import ledger
    from mlops_nb.core.config import settings_for
    from mlops_nb.core.finding import at_least
    from mlops_nb.data import dataset
    from tests.test_dashboard import MONTHS, drift
    for name, text in (("settings.ini", "[mlops_nb]\n"), ("voila.json", (ROOT/"voila.json").read_text())): (folder/name).write_text(text)
    with settings_for(folder):
        dataset.commit(pd.DataFrame(MONTHS), "monitoring")
        dataset.commit(pd.DataFrame([drift("[0.9, 0.1]")]), "drift")
        ledger.record([at_least("auc", "late_flights", .6412, .66)], topic="late_flights")

def voila(folder, browser):
    from tests.test_lab import end, home, serve, zygote_of
    store(folder)
    env = home(folder)
    servers = {name: serve(folder, {**env, "JUPYTER_DEFAULT_PROVISIONER_NAME": provisioner}, "/static/voila.js", "voila", ROOT/"nbs/dashboards/monitoring.ipynb", "--Voila.ip=127.0.0.1")
               for name, provisioner in (("cold", "local-provisioner"), ("warm", "mlops-nb-warm"))}
    try:
        zygote = zygote_of(env)
        contexts = {name: browser.new_context() for name in servers}   # of a person who has been there before
        def timed(f):
            began = time.perf_counter()
            f()
            return time.perf_counter() - began
        def visit(context, address):
            page = context.new_page()
            page.goto(address, wait_until="commit")
            page.locator(".mlops-page .verdict").wait_for(timeout=120_000)
        def seen(context, address):
            took = timed(lambda: visit(context, address))
            for page in context.pages: page.close()
            return took
        def first(address):
            with browser.new_context() as context: return seen(context, address)
        show("Voila: the page as the server sends it", in_turn({name: lambda a=a: timed(lambda: urllib.request.urlopen(a).read()) for name, (_, a) in servers.items()}))
        show("Voila: the page seen, first visit", in_turn({name: lambda a=a: first(a) for name, (_, a) in servers.items()}))
        show("Voila: the page seen, later visits", in_turn({name: lambda a=a, name=name: seen(contexts[name], a) for name, (_, a) in servers.items()}))
        assert forks(zygote) == 3*(ROUNDS + 1), "some warm page had a cold kernel"   # Voila keeps them until they are culled
    finally:
        for process, _ in servers.values(): end(process)

def main():
    from playwright.sync_api import sync_playwright
    from mlops_nb.run import warm
    from tests.conftest import CHROMIUM, FLAGS
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}; medians of {ROUNDS} rounds\n{'seconds':44}{'cold':>8}{'warm':>8}")
    with tempfile.TemporaryDirectory() as tmp, sync_playwright() as p:
        os.environ.update(XDG_RUNTIME_DIR=f"{tmp}/run", MLOPS_NB_ROOT=tmp)
        browser = p.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        try:
            for measure in (jupyterlab, voila):
                (folder := Path(tmp)/measure.__name__).mkdir()
                measure(folder, browser)
        finally:
            warm.stop()
            browser.close()

if __name__ == "__main__": main()
