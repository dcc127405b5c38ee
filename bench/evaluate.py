"""Evaluation: exact AUC draws and slices on a million rows, how often 95 % intervals hold the truth, how often slices are found where there are none, and fairness beside fairlearn.
CPU medians, single thread; figures alternate between ours and scikit-learn's in one process.

    python bench/evaluate.py                      # all of it, about ten minutes
    python bench/evaluate.py auc slices           # parts: auc, slices, coverage, null, fairness
    TRIALS=200 python bench/evaluate.py coverage
fairlearn lives in a virtual environment below ~/.cache/mlops-nb/bench/evaluate and is used from there."""
import os
os.environ.setdefault("OMP_NUM_THREADS", "1"); os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import json, platform, resource, statistics, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd

HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/evaluate"
PEER = "fairlearn==0.14.0"
ROWS, TRIALS, ROUNDS = int(os.environ.get("ROWS", 1_000_000)), int(os.environ.get("TRIALS", 2000)), int(os.environ.get("ROUNDS", 3))

def cost(call):
    began, wall = time.process_time(), time.perf_counter()
    result = call()
    return result, time.process_time() - began, time.perf_counter() - wall

# --- the area under the curve: a thousand exact draws ---

def auc():
    from sklearn.metrics import roc_auc_score
    from mlops_nb.train.intervals import areas, auc_interval, draws, units
    rng = np.random.default_rng(0)
    y = rng.random(ROWS) < .2
    for what, p in (("all different", rng.normal(size=ROWS) + .7*y), ("a hundred different", np.round(rng.normal(size=ROWS) + .7*y, 1))):
        day = rng.integers(0, 365, ROWS)
        unit, w = units(day, ROWS), draws(365)
        got = areas(y, p, unit, w)
        off = max(abs(got[i] - roc_auc_score(y, p, sample_weight=w[i][unit])) for i in range(0, 1001, 100))
        ours, theirs, free = [], [], []
        for _ in range(ROUNDS):
            ours.append(cost(lambda: auc_interval(y, p, day))[1:])
            theirs.append(cost(lambda: roc_auc_score(y, p, sample_weight=w[1][unit]))[1])
            free.append(cost(lambda: auc_interval(y, p))[1])
        one, mine = statistics.median(theirs), statistics.median(t[0] for t in ours)
        print(f"AUC, {ROWS:,} rows, scores {what}: 1,000 draws of 365 days {mine:.2f} s CPU ({statistics.median(t[1] for t in ours):.2f} s wall); scikit-learn one draw {one:.2f} s, a thousand {1000*one:,.0f} s: "
              f"{1000*one/mine:,.0f} times; DeLong {statistics.median(free):.2f} s; largest difference on 11 draws {off:.1e}", flush=True)

# --- slices of a million rows ---

def table(rows, rng):
    return pd.DataFrame({**{f"n{i}": rng.normal(size=rows) for i in range(12)}, **{f"c{i}": rng.choice(list("abcdefghij"), rows) for i in range(6)}, "hour": rng.integers(0, 24, rows), "weekday": rng.integers(0, 7, rows)})

def slices():
    from mlops_nb.train.slices import find
    rng = np.random.default_rng(0)
    X, loss, day = table(ROWS, rng), rng.exponential(size=ROWS), rng.integers(0, 365, ROWS)
    loss[(X["c0"] == "a") & (X["n3"] > .7)] += .3
    for name, d in (("independent rows", None), ("365 days", day)):
        took = [cost(lambda: find(X, loss, d)) for _ in range(ROUNDS)]
        found = took[0][0]
        print(f"slices, {ROWS:,} x {X.shape[1]}, {name}: {statistics.median(t[1] for t in took):.1f} s CPU ({statistics.median(t[2] for t in took):.1f} s wall), {found.attrs['looked']:,} looked at; found {list(found['slice'])}", flush=True)

# --- do 95 % intervals hold the truth? ---

def _two(rng, n, k, day_effect):
    "Answers and scores of n rows in k days; days shift answers, and how well scores follow."
    day = rng.integers(0, k, n)
    p = rng.beta(2, 3, n)
    odds = np.log(p/(1 - p)) + day_effect*rng.normal(size=k)[day]
    return (rng.random(n) < 1/(1 + np.exp(-odds))).astype(int), p, day

def _three(rng, n):
    q = rng.dirichlet([1.5, 1, 1], n)
    return np.array([rng.choice(3, p=row) for row in q]) if n < 50 else (rng.random(n)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(0, 2), q

def _line(rng, n, k, day_effect):
    day, x = rng.integers(0, k, n), rng.normal(size=n)
    return x + rng.normal(size=n) + day_effect*rng.normal(size=k)[day], x, day

CASES = {   # name: (sample of (y, p, groups), metric)
    "AUC, 300 independent rows (DeLong)": (lambda r, big: (*_two(r, 300*big, 1, 0)[:2], None), "roc_auc"),
    "AUC, 2,000 rows in 20 days": (lambda r, big: _two(r, 2000*big, 20*big, .7), "roc_auc"),
    "log loss, 2,000 rows in 20 days": (lambda r, big: _two(r, 2000*big, 20*big, .7), "log_loss"),
    "Brier score, 1,000 independent rows": (lambda r, big: (*_two(r, 1000*big, 1, 0)[:2], None), "brier_score"),
    "average precision, 1,000 independent rows": (lambda r, big: (*_two(r, 1000*big, 1, 0)[:2], None), "average_precision"),
    "F1, 1,000 independent rows": (lambda r, big: (*_two(r, 1000*big, 1, 0)[:2], None), "f1"),
    "accuracy of three classes, 600 rows": (lambda r, big: (*_three(r, 600*big), None), "accuracy"),
    "macro F1 of three classes, 600 rows": (lambda r, big: (*_three(r, 600*big), None), "f1_macro"),
    "MAE, 1,500 rows in 30 days": (lambda r, big: _line(r, 1500*big, 30*big, .4), "mae"),
    "R2, 1,500 rows in 30 days": (lambda r, big: _line(r, 1500*big, 30*big, .4), "r2")}

def covered(name, trials, seed=0, n_boot=1000):
    "(share of intervals that hold the truth, the truth): the truth is the metric of very many rows and days."
    from mlops_nb.train.intervals import metric_interval, replicates
    from mlops_nb.train.scoring import metric
    sample, asked = CASES[name]
    m = metric(asked)
    truth = np.mean([m(*sample(np.random.default_rng((seed, 1, i)), 100)[:2]) for i in range(10)])
    hits = 0
    for i in range(trials):
        y, p, groups = sample(np.random.default_rng((seed, 0, i)), 1)
        _, lo, hi = metric_interval(asked, y, p, groups, n_boot=n_boot)
        hits += lo <= truth <= hi
    return hits/trials, truth

def gain_covered(trials, seed=0):
    "As `covered`, of the gain of one model over another on the same days, by `compare`."
    from mlops_nb.train.evaluate import compare
    from sklearn.metrics import roc_auc_score
    def sample(rng, big):
        y, p, day = _two(rng, 2000*big, 20*big, .7)
        return y, np.clip(p + .15*rng.normal(size=len(p)), .001, .999), p, day
    gains = []
    for i in range(10):
        y, a, b, _ = sample(np.random.default_rng((seed, 1, i)), 100)
        gains.append(roc_auc_score(y, b) - roc_auc_score(y, a))
    hits = sum(c.lo <= np.mean(gains) <= c.hi for c in (compare(*sample(np.random.default_rng((seed, 0, i)), 1)) for i in range(trials)))
    return hits/trials, float(np.mean(gains))

def coverage():
    for name in CASES:
        share, truth = covered(name, TRIALS)
        print(f"coverage of {name}: {share:.1%} of {TRIALS:,} (truth {truth:.4f})", flush=True)
    share, truth = gain_covered(TRIALS)
    print(f"coverage of the paired gain in AUC, 2,000 rows in 20 days: {share:.1%} of {TRIALS:,} (truth {truth:.4f})", flush=True)

# --- slices where there are none ---

NULLS = {"exponential": lambda r, n: r.exponential(size=n), "lognormal": lambda r, n: r.lognormal(0, 1.5, n), "misses of 10 %": lambda r, n: (r.random(n) < .1)*1.}

def false_slices(kind, trials, rows=2000, days=0):
    "Share of tables of noise in which a slice is found; with days, loss and two columns are of the day."
    from mlops_nb.train.slices import find
    bad = 0
    for seed in range(trials):
        r = np.random.default_rng(seed)
        X, loss, day = pd.DataFrame({**{f"n{i}": r.normal(size=rows) for i in range(4)}, **{f"c{i}": r.choice(list("abcde"), rows) for i in range(3)}}), NULLS[kind](r, rows), None
        if days:
            day = r.integers(0, days, rows)
            X, loss = X.assign(w=r.normal(size=days)[day], v=r.choice(list("abc"), days)[day]), loss + .7*r.normal(size=days)[day]
        bad += len(find(X, loss, day)) > 0
    return bad/trials

def null():
    for kind in NULLS: print(f"false slices, {kind} losses, 2,000 rows x 7: in {false_slices(kind, TRIALS):.1%} of {TRIALS:,} tables", flush=True)
    print(f"false slices, exponential losses with days of their own, 2,000 rows x 9, 40 days: in {false_slices('exponential', TRIALS, days=40):.1%} of {TRIALS:,} tables", flush=True)

# --- fairness beside fairlearn ---

ASK = """import json, sys, numpy as np
from fairlearn import metrics as f
d = np.load(sys.argv[1])
names = ("demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference", "equalized_odds_ratio", "equal_opportunity_difference", "equal_opportunity_ratio")
print(json.dumps([{n: getattr(f, n)(y, y_pred=p, sensitive_features=g) for n in names} for y, p, g in zip(d["y"], d["p"], d["g"])]))"""

def peer():
    if not (HOME/"done").exists() or (HOME/"done").read_text() != PEER:
        subprocess.run(["uv", "venv", "-q", "--clear", "-p", sys.executable, HOME/"venv"], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", HOME/"venv/bin/python", PEER], check=True)
        (HOME/"done").write_text(PEER)
    return HOME/"venv/bin/python"

def fairness(tables=200, rows=3000):
    from mlops_nb.train.fairness import fairness as ours
    rng = np.random.default_rng(0)
    y, p, g = (rng.random((tables, rows)) < .3).astype(int), (rng.random((tables, rows)) < .4).astype(int), rng.integers(0, 4, (tables, rows))
    python = peer()
    np.savez(HOME/"tables.npz", y=y, p=p, g=g)
    theirs = json.loads(subprocess.run([python, "-c", ASK, HOME/"tables.npz"], capture_output=True, text=True, check=True).stdout)
    off = max(abs(ours(y[i], p[i], g[i]).disparity.loc[n, "value"] - v) for i in range(tables) for n, v in theirs[i].items())
    print(f"fairness, {tables} tables of {rows:,} rows in 4 groups, six disparities each: largest difference to {PEER.replace('==', ' ')} {off:.1e}", flush=True)

if __name__ == "__main__":
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}, Python {platform.python_version()}")
    for part in sys.argv[1:] or ("auc", "slices", "coverage", "null", "fairness"): dict(auc=auc, slices=slices, coverage=coverage, null=null, fairness=fairness)[part]()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6:.1f} GB, load {os.getloadavg()[0]:.1f}")
