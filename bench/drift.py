"""Drift against Evidently, NannyML, alibi-detect and whylogs: CPU for two windows of 1M x 20, and what each calls an alarm when nothing moved, when one of twenty columns moved by a tenth of
a standard deviation, when a sentinel stands in the reference, when half of a column is missing, and on two quiet halves of a month. Every candidate runs in a process of its own, alternating; data is made
in the process from seeds and is not counted. Days whose levels resemble those of the day before are quiet too: a drift tool should know. An alarm is any column called drifted by the tool's defaults. Peers live in ~/.cache/mlops-nb/bench/drift; trials of slow ones are few and said.
ROWS, ROUNDS, TRIALS (of ours at 1k), ONLY=ours,evidently, PART=cpu,cases,days,alarms, SIZES=1000,10000 limit the work."""
import json, os, platform, resource, statistics, subprocess, sys, tempfile, time, warnings
from pathlib import Path

ROWS, ROUNDS, TRIALS = int(os.environ.get("ROWS", 1_000_000)), int(os.environ.get("ROUNDS", 3)), int(os.environ.get("TRIALS", 1000))
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/drift"
PEERS = {"evidently": ["evidently==0.7.23", "pandas<3"], "nannyml": ["nannyml==0.13.1", "pandas<3", "statsmodels"], "alibi-detect": ["alibi-detect==0.13.0"], "whylogs": ["whylogs[viz]==1.6.4", "pandas<3", "numpy<2"]}
QUIET = dict(DO_NOT_TRACK="1", NML_DISABLE_USAGE_LOGGING="1", WHYLOGS_NO_ANALYTICS="True", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")

def frame(rng, n, move=0.):
    import numpy as np, pandas as pd
    d = {f"x{i}": rng.normal(size=n) for i in range(15)}
    d["x0"] += move
    for i, k in enumerate((2, 5, 10, 50, 200)):
        p = 1/np.arange(1, k + 1)
        d[f"c{i}"] = np.array([f"v{j}" for j in range(k)], object)[rng.choice(k, n, p=p/p.sum())]
    return pd.DataFrame(d)

def texts(df):
    import pandas as pd
    return [c for c in df if not pd.api.types.is_numeric_dtype(df[c])]

# --- candidates: each takes the two windows and says whether it calls an alarm ---

def ours(reference, current):
    from mlops_nb.monitor.drift import compare
    return compare(reference, current).alarm

def evidently(reference, current):
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset
    words = texts(reference)
    kinds = DataDefinition(numerical_columns=[c for c in reference if c not in words], categorical_columns=words)
    sets = [Dataset.from_pandas(df, data_definition=kinds) for df in (current, reference)]
    found = json.loads(Report([DataDriftPreset()]).run(*sets).json())
    return next(m["value"]["count"] for m in found["metrics"] if "DriftedColumnsCount" in str(m)) > 0

def nannyml(reference, current):
    import nannyml as nml
    words = texts(reference)
    found = nml.UnivariateDriftCalculator(column_names=list(reference), treat_as_categorical=words, chunk_number=10).fit(reference).calculate(current).filter(period="analysis").to_df()
    return bool(found.loc[:, [c for c in found if c[-1] == "alert"]].to_numpy(bool).any())

def alibi_detect(reference, current):
    import numpy as np
    from alibi_detect.cd import TabularDrift
    words = {i: None for i, c in enumerate(reference) if c in texts(reference)}
    codes = {c: {v: k for k, v in enumerate(sorted(set(reference[c].dropna()) | set(current[c].dropna())))} for c in texts(reference)}
    X = [np.column_stack([df[c].map(codes[c]).to_numpy(float) if c in codes else df[c].to_numpy(float) for c in reference]) for df in (reference, current)]
    return bool(TabularDrift(X[0], p_val=.05, categories_per_feature=words).predict(X[1])["data"]["is_drift"])

def whylogs(reference, current):
    import whylogs as why
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores
    views = [why.log(df).view() for df in (current, reference)]
    found = calculate_drift_scores(target_view=views[0], reference_view=views[1], with_thresholds=True)
    return any(v and v.get("drift_category") == "DRIFT" for v in found.values())

CANDIDATES = {"ours": ours, "evidently": evidently, "nannyml": nannyml, "alibi-detect": alibi_detect, "whylogs": whylogs}
SIZES = (1_000, 10_000, 100_000, 1_000_000)
ASKED = [int(n) for n in os.environ.get("SIZES", "").split(",") if n] or SIZES

def trials(name, n): return ((TRIALS, TRIALS//2, TRIALS//10, max(TRIALS//100, 1)) if name == "ours" else (20, 10, 3, 1))[SIZES.index(n)]

def cpu(): return sum(getattr(resource.getrusage(who), k) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN) for k in ("ru_utime", "ru_stime"))

def grown(work):
    "MB by which resident memory grows at the most while it works; what was freed before is given back first, so that it hides nothing. Linux."
    import ctypes, gc
    status = lambda name: next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))/1024
    gc.collect(); ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before

def timed(name):
    "CPU seconds of one comparison, imports and a small warm-up not counted; of ours also against a stored reference; extra peak memory, MB, of a second one."
    import numpy as np
    rng = np.random.default_rng(0)
    small, (a, b) = frame(rng, 2_000), (frame(rng, ROWS) for _ in range(2))
    CANDIDATES[name](small, small)
    began = cpu()
    CANDIDATES[name](a, b)
    out = {"both": cpu() - began}
    if name == "ours": out["MB"] = grown(lambda: CANDIDATES[name](a, b))
    if name == "ours":
        from mlops_nb.monitor import bins, drift, profile
        by = bins.bins(a)
        kept = profile.profile(a, by)
        began = cpu()
        drift.judge({"": (kept, profile.profile(b, by))})
        out["stored"] = cpu() - began
    return out

def alarms(name, n):
    "Shares of alarms without a move, and with one."
    import numpy as np
    found = []
    for s in range(k := trials(name, n)):
        rng = np.random.default_rng(1000 + s)
        a, b = frame(rng, n), frame(rng, n)
        still = CANDIDATES[name](a, b)
        found.append((still, CANDIDATES[name](a, b.assign(x0=b.x0 + .1))))
    return {"trials": k, "false": float(np.mean([f for f, _ in found])), "power": float(np.mean([p for _, p in found]))}

def cases(name, flights):
    "One sentinel among 100k reference rows and a move of one standard deviation; half of a column missing; two quiet halves of March."
    import numpy as np, pandas as pd
    rng = np.random.default_rng(0)
    a, b = frame(rng, 100_000), frame(rng, 20_000)
    a.loc[0, "x0"] = -999999.
    out = {"sentinel": CANDIDATES[name](a[["x0", "x1"]], b[["x0", "x1"]].assign(x0=b.x0 + 1))}
    try: out["nulls"] = CANDIDATES[name](a[["x1", "x2"]], b[["x1", "x2"]].assign(x1=b.x1.where(np.arange(len(b)) % 2 == 0)))
    except Exception as e: out["nulls"] = f"error: {type(e).__name__}"
    march = pd.read_csv(flights, parse_dates=["scheduled"])
    first, second = march[march.scheduled < "2013-03-16"], march[march.scheduled >= "2013-03-16"]
    if name != "ours": first, second = (df.drop(columns=["scheduled", "flight_id"]) for df in (first, second))
    try: out["quiet"] = CANDIDATES[name](first, second)
    except Exception as e: out["quiet"] = f"error: {type(e).__name__}"
    return out

def quiet_days(rng, first, second, k, rows=200, columns=20):
    "Two windows of so many days, one after the other: normal, the level of each column .3 sd about 0 and correlated by k with the day before."
    import numpy as np, pandas as pd
    n = first + second
    level = rng.normal(0, .3, (n, columns))
    for i in range(1, n): level[i] = k*level[i - 1] + np.sqrt(1 - k*k)*level[i]
    df = pd.DataFrame(np.repeat(level, rows, axis=0) + rng.normal(size=(n*rows, columns)), columns=[f"x{i}" for i in range(columns)])
    at = pd.Timestamp("2025-01-01") + pd.to_timedelta(np.repeat(np.arange(n), rows), unit="D")
    return [df.assign(at=at)[part] for part in (at < at[first*rows], at >= at[first*rows])]

def days(name):
    "Shares of alarms in quiet days."
    import numpy as np
    k, out = max(TRIALS//10, 1) if name == "ours" else 10, {}
    for first, second, like in ((15, 16, 0.), (15, 16, .5), (90, 30, .5)):
        windows = (quiet_days(np.random.default_rng(2000 + s), first, second, like) for s in range(k))
        out[f"{first} against {second}, r = {like:g}"] = float(np.mean([CANDIDATES[name](*(w if name == "ours" else [df.drop(columns="at") for df in w])) for w in windows]))
    return {"trials": k, **out}

def one(name, part, *args): print("\n" + json.dumps({"timed": timed, "alarms": alarms, "cases": cases, "days": days}[part](name, *(int(a) if a.isdigit() else a for a in args))))

# --- the runs ---

def python(name):
    if name == "ours": return sys.executable
    home = HOME/name
    if not (home/"done").exists() or (home/"done").read_text() != " ".join(PEERS[name]):
        subprocess.run(["uv", "venv", "-q", "--clear", "-p", sys.executable, home], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--compile-bytecode", "-p", home/"bin/python", *PEERS[name], "pyarrow", "setuptools<80"], check=True)
        (home/"done").write_text(" ".join(PEERS[name]))
    return home/"bin/python"

def run(name, *args):
    env = {**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).resolve().parents[1]) if name == "ours" else ""}
    done = subprocess.run([python(name), "-W", "ignore", __file__, name, *map(str, args)], env=env, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1]) if not done.returncode else {"error": done.stderr.strip().splitlines()[-1][:150]}

def main():
    chosen = [n for n in CANDIDATES if any(n.startswith(o) for o in os.environ.get("ONLY", "").split(","))]
    parts = os.environ.get("PART", "cpu,cases,days,alarms").split(",")
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    if "cpu" in parts:
        rounds = [{n: run(n, "timed") for n in chosen} for _ in range(ROUNDS)]
        for n in chosen:
            mid = {k: statistics.median(r[n].get(k, float("nan")) for r in rounds) for k in ("both", "stored", "MB")}
            base = statistics.median(r["ours"].get("both", float("nan")) for r in rounds) if "ours" in chosen else 1
            print(f"{n:14} {ROWS:,} x 20 twice: CPU {mid['both']:8.3f} s  {mid['both']/base:7.1f}x  stored {mid['stored']:.3f} s  extra {mid['MB']:.0f} MB  {rounds[0][n].get('error', '')}", flush=True)
    if "cases" in parts:
        with tempfile.TemporaryDirectory() as tmp:
            from mlops_nb.data.samples import flights
            flights(since="2013-03-01", until="2013-04-01").to_csv(f"{tmp}/march.csv", index=False)
            for n in chosen: print(f"{n:14} {run(n, 'cases', f'{tmp}/march.csv')}", flush=True)
    for n in chosen if "days" in parts else (): print(f"{n:14} quiet days {run(n, 'days')}", flush=True)
    if "alarms" in parts:
        for size in ASKED:
            for n in chosen: print(f"{n:14} n = {size:>9,}: {run(n, 'alarms', size)}", flush=True)

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    one(*sys.argv[1:]) if len(sys.argv) > 2 else main()
