"""The monitoring page as a visitor meets it, in a real browser with a cold cache, side by side and in turn: our server, stock Voila cold, stock Voila with its pool, the static copy; Panel, Streamlit, marimo and Solara with the
same verdict, tiles, charts and tables from the same tables, as a user of theirs would write it (bench/pages_peers). The browser resolves no other host, whoever asks is counted. Needs chromium and playwright; the peers live in
~/.cache/mlops-nb/bench/pages. Then five visitors at once, and VISITS in a row on our server (200 by default): kernels left over, pages without their widgets, numbers older than the data. ROUNDS, VISITS and ONLY=ours,panel limit the work."""
import contextlib, json, os, platform, statistics, subprocess, sys, tempfile, threading, time, urllib.request
from pathlib import Path

import psutil

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)   # bytecode is kept between starts, as on a person's machine

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT/"tests")]
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", PYTHONPATH=str(ROOT))

ROUNDS, VISITS = int(os.environ.get("ROUNDS", 5)), int(os.environ.get("VISITS", 200))
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/pages"
PEERS = dict(panel=["panel==1.9.4"], streamlit=["streamlit==1.67.0"], marimo=["marimo==0.25.2", "altair==6.3.0"], solara=["solara==1.58.2", "solara-server==1.58.2", "solara-ui==1.58.2", "solara-assets==1.58.2", "ipyvuetify==1.12.0", "matplotlib==3.11.2"])   # the newest Solara whose files come without a CDN
PAINTED = """([verdict, chart]) => {
    const deep = (root, s) => { let f = root.querySelector(s); for (const e of f ? [] : root.querySelectorAll('*')) if (e.shadowRoot && (f = deep(e.shadowRoot, s))) break; return f };
    return [verdict, chart].every(s => { const e = deep(document, s); return e && e.getBoundingClientRect().height > 0 }) }"""
OURS = ".verdict", ".two svg", "select"
SEEN = dict(panel=(".answer", "canvas", "select"), streamlit=("[data-testid=stHeading]", "[data-testid=stVegaLiteChart] :is(canvas, svg)", "[data-testid=stSelectbox]"),
            marimo=("h1", ".vega-embed :is(canvas, svg)", "select"), solara=(".answer", ".course :is(img, svg)", ".v-select"))   # verdict, first chart, widget

@contextlib.contextmanager
def served(folder, words, path=""):
    "(address, process) of a server that answers; `words` makes its command of a port."
    from conftest import free_port, wait_until
    port, own = free_port(), {k: str(folder/"home") for k in ("HOME", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    env = {**os.environ, **own, "MLOPS_NB_ROOT": str(folder), **({"PYTHONPATH": str(ROOT/"bench/pages_peers")} if HOME in Path(words(port)[0]).parents else {})}
    with (folder/f"{port}.log").open("w") as out: process = subprocess.Popen([*map(str, words(port))], cwd=folder, env=env, stdout=out, stderr=out)
    def answers():
        try: return urllib.request.urlopen(f"http://127.0.0.1:{port}/voila/static/voila.js", timeout=2).close() is None
        except urllib.error.HTTPError: return True
        except OSError: return False
    try:
        wait_until("answer", answers, process)
        yield f"http://127.0.0.1:{port}/{path}", process
    finally:
        process.terminate()
        try: process.wait(30)
        except subprocess.TimeoutExpired: process.kill()

def prepare(wanted):
    "The peers that are asked for, each in an environment of its own."
    import deltalake, pandas, pyarrow
    for name in [n for n in PEERS if n in wanted and not (HOME/n/"ready").exists()]:
        HOME.mkdir(parents=True, exist_ok=True)
        subprocess.run(["uv", "venv", "-q", "--clear", "-p", sys.executable, HOME/name], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", HOME/name/"bin/python", *PEERS[name], f"deltalake=={deltalake.__version__}", f"pandas=={pandas.__version__}", f"pyarrow=={pyarrow.__version__}"], check=True)
        (HOME/name/"ready").touch()

def commands():
    "name -> (port -> command, path of the page)."
    voila = [sys.executable, "-m", "voila", ROOT/"nbs/dashboards/monitoring.ipynb", "--Voila.ip=127.0.0.1", "--no-browser"]
    ours = [sys.executable, "-P", "-c", "import sys; from mlops_nb.cli.cli import main; sys.exit(main())", "dashboard", "monitoring", "--no-token", "--grace=10", "--no-browser"]
    peer = lambda name, *words: (lambda port: [HOME/name/"bin"/name, words[0], ROOT/f"bench/pages_peers/{name}_page.py", *(w.format(port=port) for w in words[1:])])
    own = {k: ((lambda port, w=w: [*w, f"--port={port}"]), "") for k, w in dict(ours=[*ours, "--pool=2"], ours_without_pool=[*ours, "--pool=0"], stock_cold=voila, stock_pool=[*voila, "--preheat_kernel=True", "--pool_size=2"]).items()}
    return own | dict(panel=(peer("panel", "serve", "--port={port}", "--address=127.0.0.1", "--allow-websocket-origin=127.0.0.1:{port}"), "panel_page"),
        streamlit=(peer("streamlit", "run", "--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"), ""),
        marimo=(peer("marimo", "run", "--headless", "--no-token", "--host=127.0.0.1", "--port={port}"), ""),
        solara=(peer("solara", "run", "--host=127.0.0.1", "--port={port}", "--no-open", "--production"), ""))

def visit(browser, url, seen=OURS):
    "Seconds to the verdict and first chart painted, seconds to live widgets, megabytes, requests to other hosts; a fresh browser profile."
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page, outer = context.new_page(), []
        page.on("request", lambda r: None if r.url.startswith((url.split("/", 3)[0] + "//127.0.0.1", "file:", "data:", "blob:")) else outer.append(r.url))
        began = time.perf_counter()
        page.goto(url, wait_until="commit", timeout=120_000)
        page.wait_for_function(PAINTED, arg=seen[:2], timeout=120_000, polling=10)
        painted = time.perf_counter() - began
        if seen[2]: page.locator(seen[2]).first.wait_for(timeout=120_000)
        live = time.perf_counter() - began if seen[2] else float("nan")
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

def grown(server, browser, url, seen, n=5):
    "Megabytes that a server of one process grows by, for each of n visitors who stay."
    used = lambda: sum(p.memory_full_info().uss for p in (psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)))/1e6
    before, pages = used(), []
    for _ in range(n):
        pages.append(browser.new_context(viewport={"width": 1280, "height": 900}).new_page())
        pages[-1].goto(url, wait_until="commit", timeout=120_000)
        pages[-1].wait_for_function(PAINTED, arg=seen[:2], timeout=120_000)
        pages[-1].locator(seen[2]).first.wait_for(timeout=120_000)
    took = (used() - before)/n
    for page in pages: page.context.close()
    return took

def at_once(url, seen=OURS, n=5):
    "Seconds until the last of n visitors sees the verdict; each in a thread with a browser of its own."
    from playwright.sync_api import sync_playwright
    from conftest import CHROMIUM, FLAGS
    took, gate = [], threading.Barrier(n)
    def one():
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, ALONE])
            page = browser.new_page()
            gate.wait()
            began = time.perf_counter()
            page.goto(url, wait_until="commit", timeout=120_000)
            page.wait_for_function(PAINTED, arg=seen[:2], timeout=120_000, polling=50)
            took.append(time.perf_counter() - began)
            page.close(run_before_unload=True)
            browser.close()
    threads = [threading.Thread(target=one) for _ in range(n)]
    for t in threads: t.start()
    for t in threads: t.join()
    return max(took)

def in_a_row(folder, url, browser, n):
    "(kernels left, pages without widgets, stale numbers) after n visits, half of them after a change of the data."
    from conftest import wait_until
    from mlops_nb.core.config import settings_for
    from mlops_nb.data import dataset
    dead = stale = 0
    with settings_for(folder): months = dataset.read("monitoring").sort_values("month")
    for i in range(n):
        share = round(.1 + i/2000, 4)
        with settings_for(folder): dataset.commit(months.assign(observed=[*months.observed[:-1], share]), "monitoring") if i % 2 == 0 else None
        page = browser.new_page()
        page.goto(url, wait_until="commit", timeout=120_000)
        page.locator("body[data-live]").wait_for(timeout=120_000)
        dead += page.locator("select").count() == 0
        stale += i % 2 == 0 and f"{share:.1%}" not in page.locator(".tiles").inner_text()
        page.close(run_before_unload=True)
    health = lambda: json.loads(urllib.request.urlopen(url.rsplit("/", 1)[0] + "/health").read())["visitors"]
    with contextlib.suppress(AssertionError): wait_until("end of the kernels", lambda: health() == 0, seconds=90)
    return health(), dead, stale

def year(folder):
    "A project of the flights' year: months from April on, judged by the share of late flights at that hour of January to March; the drift of every input, month by month."
    import numpy as np, pandas as pd
    from mlops_nb.core import ledger
    from mlops_nb.core.config import settings_for
    from mlops_nb.core.finding import at_least
    from mlops_nb.data import dataset, samples
    from mlops_nb.monitor import drift
    (folder/"settings.ini").write_text("[mlops_nb]\n[goal]\nowner = operations\nminimum = 0.66\n[pipeline]\nmonitor =\n")
    df = samples.flights().merge(samples.flight_outcomes()[["flight_id", "dep_delay"]], on="flight_id").dropna(subset="dep_delay")
    df = df.assign(late=df.dep_delay > 15, month=df.scheduled.dt.strftime("%Y-%m"), day=df.scheduled.dt.date, at=df.scheduled.dt.hour)
    past, months, moved, limit = df[df.month < "2013-04"], [], [], .66
    inputs = [c for c in df if c not in ("flight_id", "dep_delay", "late", "month", "day", "scheduled", "at")]
    score, auc = past.groupby("at").late.mean(), lambda s, y: (s.rank()[y].mean() - (y.sum() + 1)/2)/(~y).sum()
    weight = {c: float(np.nan_to_num(abs(np.corrcoef(pd.factorize(past[c])[0] if past[c].dtype.kind not in "if" else past[c].fillna(past[c].median()), past.late)[0, 1]))) for c in inputs}
    for m, now in df[df.month >= "2013-04"].groupby("month"):
        s = now["at"].map(score).fillna(score.mean())
        value, spread = auc(s, now.late), 1.96*now.assign(s=s).groupby("day")[["s", "late"]].apply(lambda d: auc(d.s, d.late)).sem()
        months.append(dict(model="late_flights", month=m, window="M", as_of=f"{m}-28", n=len(now), labels=len(now), coverage=1., observed=now.late.mean(), auc=value, auc_lo=value - spread, auc_hi=value + spread, version="1" if m < "2013-08" else "2", drifted=0, alarm="auc" if value < limit else "", action="retrain" if value < limit else "keep"))
        table = drift.compare(past[inputs].sample(8000, random_state=0), now[inputs].sample(8000, random_state=0), importance=weight, cluster=False).to_frame()
        moved.append(table[table.slice == ""].assign(month=m, window="M", model="late_flights"))
        months[-1]["drifted"] = int(moved[-1].drifted.sum())
    with settings_for(folder):
        dataset.commit(pd.DataFrame(months), "monitoring")
        dataset.commit(pd.concat(moved, ignore_index=True), "drift")
        ledger.record([at_least("auc", "late_flights", months[-1]["auc"], limit, action="mlops-nb retrain late_flights"), at_least("label_coverage", "late_flights", 1., .8, level="warn")], topic="late_flights")
        for v, at in ((1, "2013-03-31"), (2, "2013-07-31")):
            ledger.event("register", "late_flights", version=v, metrics={"auc": months[0]["auc"]}, tags={"trained_until": at})
            ledger.event("promote", "late_flights", version=v, reason="first model that meets the goal" if v == 1 else "better by more than the limit")

ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"

def main():
    from playwright.sync_api import sync_playwright
    from mlops_nb.core.config import settings_for
    from mlops_nb.pages.monitoring import write_report
    from mlops_nb.run import warm
    from conftest import CHROMIUM, FLAGS
    wanted = [k for k in commands() if k in os.environ.get("ONLY", ",".join(commands())).split(",")]
    prepare(wanted)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}; medians of {ROUNDS} rounds, cold cache", flush=True)
    with tempfile.TemporaryDirectory() as tmp, sync_playwright() as p, contextlib.ExitStack() as stack:
        folder = Path(tmp)
        os.environ.update(XDG_RUNTIME_DIR=f"{tmp}/run", MLOPS_NB_ROOT=tmp)
        (folder/"voila.json").write_text("{}")
        year(folder)
        with settings_for(folder): static = Path(write_report("late_flights")).resolve().as_uri()
        warm.start()
        warm.wait(300)
        servers = {k: stack.enter_context(served(folder, *commands()[k])) for k in wanted}
        seen = {k: SEEN.get(k, OURS) for k in wanted}
        browser = p.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, ALONE])
        try:
            ask = {k: (lambda k=k: visit(browser, servers[k][0], seen[k])) for k in wanted} | {"static": lambda: visit(browser, static, (*OURS[:2], ""))}
            time.sleep(10)   # the pools fill
            took = [{k: f() for k, f in ask.items()} for _ in range(ROUNDS + 1)][1:]
            print(f"{'':22}{'painted s':>11}{'live s':>9}{'MB':>7}{'other hosts':>13}{'MB a visitor':>13}")
            for k in ask:
                painted, live, size, outer = (statistics.median(t[k][i] for t in took) for i in range(4))
                memory = float("nan") if k == "static" else grown(servers[k][1], browser, servers[k][0], seen[k]) if k in PEERS else unshared(servers[k][1], k.startswith("ours"))
                print(f"{k:22}{painted:11.2f}{live:9.2f}{size:7.2f}{outer:13.0f}{memory:13.0f}", flush=True)
            if others := [k for k in servers if k in PEERS]: print("quickest of the others: painted {:.2f}, live {:.2f}".format(*(min(statistics.median(t[k][i] for t in took) for k in others) for i in (0, 1))))
            for k in servers: print(f"five visitors at once, {k}: the last sees it after {at_once(servers[k][0], seen[k]):.1f} s", flush=True)
            if "ours" in servers: print("{} visits in a row: {} kernels left over, {} pages without widgets, {} stale numbers".format(VISITS, *in_a_row(folder, servers["ours"][0] + "monitoring", browser, VISITS)))
        finally:
            browser.close()
            warm.stop()

if __name__ == "__main__": main()
