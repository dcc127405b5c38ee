"""The monitoring page as a visitor meets it, in a real browser with a cold cache, side by side and in turn: our server, stock Voila cold, stock Voila with its pool, the static copy. Needs
chromium and playwright. Then five visitors at once, and VISITS in a row (200 by default): kernels left over, pages without their widgets, numbers older than the data."""
import contextlib, json, os, platform, re, statistics, subprocess, sys, tempfile, threading, time, urllib.request
from pathlib import Path

import psutil

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)   # bytecode is kept between starts, as on a person's machine

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT/"tests")]
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", PYTHONPATH=str(ROOT))

ROUNDS, VISITS = int(os.environ.get("ROUNDS", 5)), int(os.environ.get("VISITS", 200))
PAINTED = "() => { const v = document.querySelector('.verdict'); return v && v.getBoundingClientRect().height > 0 && document.querySelector('.two svg') }"

@contextlib.contextmanager
def served(folder, *words, **env):
    "(address, process) of a server that answers."
    from conftest import free_port, wait_until
    port, own = free_port(), {k: str(folder/"home") for k in ("HOME", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    with (folder/f"{port}.log").open("w") as out:
        process = subprocess.Popen([*map(str, words), f"--port={port}", "--no-browser"], cwd=folder, env={**os.environ, **own, "MLOPS_NB_ROOT": str(folder), **env}, stdout=out, stderr=out)
    def answers():
        try: return urllib.request.urlopen(f"http://127.0.0.1:{port}/voila/static/voila.js", timeout=2).close() is None
        except urllib.error.HTTPError: return True
        except OSError: return False
    try:
        wait_until("answer", answers, process)
        yield f"http://127.0.0.1:{port}/", process
    finally:
        process.terminate()
        process.wait(30)

def visit(browser, url, widgets=True):
    "Seconds to the verdict and first chart painted, seconds to live widgets, megabytes, requests to other hosts; a fresh browser profile."
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page, outer = context.new_page(), []
        page.on("request", lambda r: None if r.url.startswith((url.split("/", 3)[0] + "//127.0.0.1", "file:", "data:", "blob:")) else outer.append(r.url))
        began = time.perf_counter()
        page.goto(url, wait_until="commit", timeout=120_000)
        page.wait_for_function(PAINTED, timeout=120_000, polling=10)
        painted = time.perf_counter() - began
        if widgets: page.locator("select").first.wait_for(timeout=120_000)
        live = time.perf_counter() - began if widgets else float("nan")
        size = page.evaluate("performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).reduce((n, e) => n + (e.transferSize || 0), 0)")/1e6
        page.close(run_before_unload=True)
        return painted, live, size, len(outer)

def unshared(server, forks):
    "Megabytes that belong to the kernels of a server alone, a kernel."
    from mlops_nb.run import warm
    pids = {c.pid for r in warm.status() if r["pid"] for c in psutil.Process(r["pid"]).children()} if forks else {c.pid for c in psutil.Process(server.pid).children(recursive=True)}
    sizes = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            if "ipykernel" in " ".join(psutil.Process(pid).cmdline()) or "zygote" in " ".join(psutil.Process(pid).cmdline()): sizes.append(psutil.Process(pid).memory_full_info().uss/1e6)
    return statistics.median(sizes) if sizes else float("nan")

def at_once(url, n=5):
    "Seconds until the last of n visitors sees the verdict; each in a thread with a browser of its own."
    from playwright.sync_api import sync_playwright
    from conftest import CHROMIUM, FLAGS
    took, gate = [], threading.Barrier(n)
    def one():
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page()
            gate.wait()
            began = time.perf_counter()
            page.goto(url, wait_until="commit", timeout=120_000)
            page.wait_for_function(PAINTED, timeout=120_000, polling=50)
            took.append(time.perf_counter() - began)
            page.close(run_before_unload=True)
            browser.close()
    threads = [threading.Thread(target=one) for _ in range(n)]
    for t in threads: t.start()
    for t in threads: t.join()
    return max(took)

def in_a_row(folder, url, browser, n):
    "(kernels left, pages without widgets, stale numbers) after n visits, half of them after a change of the data."
    import pandas as pd
    from conftest import wait_until
    from mlops_nb.core.config import settings_for
    from mlops_nb.data import dataset
    from test_dashboard import MONTHS
    dead = stale = 0
    for i in range(n):
        share = round(.1 + i/2000, 4)
        with settings_for(folder): dataset.commit(pd.DataFrame([*MONTHS[:-1], {**MONTHS[-1], "observed": share}]), "monitoring") if i % 2 == 0 else None
        page = browser.new_page()
        page.goto(url, wait_until="commit", timeout=120_000)
        page.locator("body[data-live]").wait_for(timeout=120_000)
        dead += page.locator("select").count() == 0
        stale += i % 2 == 0 and f"{share:.1%}" not in page.locator(".tiles").inner_text()
        page.close(run_before_unload=True)
    health = lambda: json.loads(urllib.request.urlopen(url.rsplit("/", 1)[0] + "/health").read())["visitors"]
    with contextlib.suppress(AssertionError): wait_until("end of the kernels", lambda: health() == 0, seconds=90)
    return health(), dead, stale

def main():
    from playwright.sync_api import sync_playwright
    from bench.lab import store
    from mlops_nb.core.config import settings_for
    from mlops_nb.pages.monitoring import write_report
    from mlops_nb.run import warm
    from conftest import CHROMIUM, FLAGS
    page = ROOT/"nbs/dashboards/monitoring.ipynb"
    voila = [sys.executable, "-m", "voila", page, "--Voila.ip=127.0.0.1"]
    ours = [sys.executable, "-P", "-c", "import sys; from mlops_nb.cli.cli import main; sys.exit(main())", "dashboard", "monitoring", "--no-token", "--grace=10"]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}; medians of {ROUNDS} rounds, cold cache", flush=True)
    with tempfile.TemporaryDirectory() as tmp, sync_playwright() as p, contextlib.ExitStack() as stack:
        folder = Path(tmp)
        os.environ.update(XDG_RUNTIME_DIR=f"{tmp}/run", MLOPS_NB_ROOT=tmp)
        (folder/"voila.json").write_text("{}")
        store(folder)
        (folder/"voila.json").write_text("{}")
        with settings_for(folder): static = Path(write_report("late_flights")).resolve().as_uri()
        warm.start()
        warm.wait(300)
        kinds = dict(ours=[*ours, "--pool=2"], ours_without_pool=[*ours, "--pool=0"], stock_cold=voila, stock_pool=[*voila, "--preheat_kernel=True", "--pool_size=2"])
        servers = {k: stack.enter_context(served(folder, *w)) for k, w in kinds.items()}
        browser = p.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        try:
            ask = {k: (lambda u=u: visit(browser, u)) for k, (u, _) in servers.items()} | {"static": lambda: visit(browser, static, False)}
            time.sleep(10)   # the pools fill
            took = [{k: f() for k, f in ask.items()} for _ in range(ROUNDS + 1)][1:]
            print(f"{'':22}{'painted s':>11}{'live s':>9}{'MB':>7}{'other hosts':>13}{'MB a kernel':>13}")
            for k in ask:
                painted, live, size, outer = (statistics.median(t[k][i] for t in took) for i in range(4))
                print(f"{k:22}{painted:11.2f}{live:9.2f}{size:7.2f}{outer:13.0f}{unshared(servers[k][1], k.startswith('ours')) if k in servers else float('nan'):13.0f}", flush=True)
            for k in servers: print(f"five visitors at once, {k}: the last sees it after {at_once(servers[k][0]):.1f} s", flush=True)
            left, dead, stale = in_a_row(folder, servers["ours"][0] + "monitoring", browser, VISITS)
            print(f"{VISITS} visits in a row: {left} kernels left over, {dead} pages without widgets, {stale} stale numbers")
        finally:
            browser.close()
            warm.stop()

if __name__ == "__main__": main()
