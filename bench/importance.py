"""Who finds the columns that matter: five designs (and `unequal`, DESIGN=unequal) whose truth is known, 20 seeds each, and whether a nominal 95 % interval covers the truth, 1,000 tables.
A column is true when the answer depends on it with all others known; copies, echoes and noise are false. FDR: mean share of false ones among those named; power: mean share of the true ones named.
Ours: `importance(...)`, what it calls needed. Permutation: 0 outside mean +- 2 std of the repeats. MDI and SHAP: above their own mean. Boruta, drop-column: ours, by their papers.
The model is HistGradientBoosting (MDI: a random forest) on ROWS rows, asked on as many new ones. SEEDS, FIRST (seed), TABLES, ROWS, ONLY=ours,plain and DESIGN=blocks,bent limit the work; run under OMP_NUM_THREADS=1,
JOBS processes. What is done is kept in OUT, a line per design, seed and way, and not done again: give another OUT after a change of the code. The seeds to report are 0 to 19; look for reasons on others (FIRST=100)."""
import json, os, platform, sys, time, warnings
from pathlib import Path
import numpy as np, pandas as pd
SEEDS, FIRST, TABLES, ROWS, JOBS = (int(os.environ.get(k, v)) for k, v in dict(SEEDS=20, FIRST=0, TABLES=1000, ROWS=3000, JOBS=2).items())
OUT = Path(os.environ.get("OUT", Path.home()/".cache/mlops-nb/bench/importance"))

def frame(*parts):
    X = np.column_stack(parts)
    return pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])

# --- designs: (seed, n) -> X, y, true columns ---

def friedman(seed, n):
    "Friedman 1: five true columns, five of noise, a copy of each true one with error .1 (their spread is .29)."
    from sklearn.datasets import make_friedman1
    rng, (X, y) = np.random.default_rng(seed), make_friedman1(n, 10, noise=1., random_state=seed)
    return frame(X, X[:, :5] + .1*rng.normal(size=(n, 5))), y, range(5)

def classes(seed, n):
    "make_classification: five informative columns, ten of noise, a copy of each informative one with error .5."
    from sklearn.datasets import make_classification
    rng, (X, y) = np.random.default_rng(seed), make_classification(n, 15, n_informative=5, n_redundant=0, shuffle=False, class_sep=1., flip_y=.02, random_state=seed)
    at = rng.permutation(n)
    X, y = X[at], y[at]
    return frame(X, X[:, :5] + .5*rng.normal(size=(n, 5))), y, range(5)

def blocks(seed, n, rho=.8):
    "Five blocks of five columns that correlate by .8; five true ones, two of them in one block with opposite signs, one block without any."
    rng, true = np.random.default_rng(seed), [0, 5, 6, 10, 15]
    X = np.column_stack([np.sqrt(rho)*rng.normal(size=(n, 1)) + np.sqrt(1 - rho)*rng.normal(size=(n, 5)) for _ in range(5)])
    return frame(X), X[:, true] @ [1.5, 1.2, -1.2, 1., 1.] + rng.normal(size=n), true

def cardinality(seed, n):
    "Three true columns of three values, two true numbers; noise: four columns of 200 values, four numbers."
    rng = np.random.default_rng(seed)
    few, x = rng.integers(0, 3, (n, 3)), rng.normal(size=(n, 2))
    z = few.sum(axis=1) - 3 + x.sum(axis=1)
    return frame(few, x, rng.integers(0, 200, (n, 4)), rng.normal(size=(n, 4))), (rng.random(n) < 1/(1 + np.exp(-1.5*z))).astype(int), range(5)

def bent(seed, n):
    "Nonlinear dependence: every true column has an echo (square, sine, absolute value, cosine, cube) with error .15; five of noise."
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 5))
    echo = np.column_stack([x[:, 0]**2, np.sin(2*x[:, 1]), np.abs(x[:, 2]), np.cos(2*x[:, 3]), x[:, 4]**3/3]) + .15*rng.normal(size=(n, 5))
    y = 2*x[:, 0]**2 + 3*np.sin(2*x[:, 1]) + 2*np.abs(x[:, 2]) + 2*x[:, 3] + 1.5*x[:, 4] + rng.normal(size=n)
    return frame(x, echo, rng.normal(size=(n, 5))), y, range(5)

def unequal(seed, n):
    "Not one of the goal's five: effects of 4, 2, 1, .5 and .25 spreads of the noise, an echo of the strongest with error .5, nine of noise."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    return frame(x, x[:, :1] + .5*rng.normal(size=(n, 1)), rng.normal(size=(n, 9))), x @ [4, 2, 1, .5, .25] + rng.normal(size=n), range(5)

DESIGNS = dict(friedman=friedman, classes=classes, blocks=blocks, cardinality=cardinality, bent=bent)
MORE = dict(unequal=unequal)   # asked for by name

# --- ways to name columns: (model, X, y, train, seed) -> names ---

def _needed(method, **options):
    def way(model, X, y, train, seed):
        from mlops_nb.features.importance import importance
        t = importance(model, X, y, method=method, train=None if method == "permutation" else train, seed=seed, **options).to_frame()
        return t["feature"][t["decision"] == "needed"]
    return way

def plain(model, X, y, train, seed):
    from mlops_nb.features.permutation import permutation_importance
    r = permutation_importance(model, X, y, n_repeats=5, random_state=seed)
    return X.columns[r.importances_mean - 2*r.importances_std > 0]

def mdi(model, X, y, train, seed):
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    share = (RandomForestClassifier if hasattr(model, "classes_") else RandomForestRegressor)(100, random_state=seed).fit(*train).feature_importances_
    return X.columns[share > share.mean()]

def shap(model, X, y, train, seed):
    from shap import TreeExplainer
    share = np.abs(TreeExplainer(model).shap_values(X[:500])).mean(axis=0)
    return X.columns[share > share.mean()]

WAYS = {"ours": _needed("permutation"), "plain": plain, "mdi": mdi, "shap": shap, "drop-column": _needed("drop-column"), "boruta": _needed("boruta", n_refits=10)}

def kept(design, seed, ways):
    "What `found` says, from the file when it is there."
    out = {}
    for way in ways:
        file = OUT/f"{design}-{ROWS}-{seed}-{way}.json"
        if not file.exists():
            got = found(design, seed, [way])[way]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(got))
        out[way] = json.loads(file.read_text())
    return out

def found(design, seed, ways):
    "{way: (false share, true share, seconds, false names)} of one table."
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    warnings.filterwarnings("ignore")
    X, y, true = {**DESIGNS, **MORE}[design](seed, 2*ROWS)
    model = (HistGradientBoostingClassifier if len(np.unique(y)) == 2 else HistGradientBoostingRegressor)(max_iter=150, random_state=seed).fit(X[:ROWS], y[:ROWS])
    out, right = {}, {f"x{j}" for j in true}
    for name in ways:
        began = time.process_time()
        named = set(WAYS[name](model, X[ROWS:].reset_index(drop=True), y[ROWS:], (X[:ROWS], y[:ROWS]), seed))
        out[name] = len(named - right)/max(len(named), 1), len(named & right)/len(right), time.process_time() - began, sorted(named - right)
    return out

# --- intervals ---

def truth(model, seed, rows=400_000):
    "What shuffling each column costs, on a table so long that it is the truth."
    from mlops_nb.features.permutation import permutation_importance
    X, y, _ = friedman(seed, rows)
    return permutation_importance(model, X, y, scoring="neg_mean_squared_error", n_repeats=3, random_state=0).importances_mean

def covered(model, true, seed, n, repeats=5):
    "(columns, 3) does the interval hold the truth: ours, std/sqrt(repeats), 2 std."
    from mlops_nb.features.evidence import estimate, row_scorer
    from mlops_nb.features.permutation import _shuffles, permutation_importance
    X, y, _ = friedman(10_000 + seed, n)
    D = permutation_importance(model, X, y, scoring=row_scorer(model, "neg_mean_squared_error", y).scorer, n_repeats=repeats, random_state=seed).importances
    e = estimate(D, _shuffles(np.random.RandomState(seed).randint(2**31), n, repeats, n)[1])
    means = D.mean(axis=2)
    off, std = np.abs(means.mean(axis=1) - true), means.std(axis=1)
    return np.column_stack([(e.lo <= true) & (true <= e.hi), off <= 1.96*std/np.sqrt(repeats), off <= 2*std])

def main():
    from joblib import Parallel, delayed
    ways = os.environ.get("ONLY", ",".join(WAYS)).split(",")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {SEEDS} seeds, {ROWS} + {ROWS} rows", flush=True)
    total = []
    for design in os.environ.get("DESIGN", ",".join(DESIGNS)).split(","):
        got = Parallel(n_jobs=JOBS)(delayed(kept)(design, s, ways) for s in range(FIRST, FIRST + SEEDS))
        table = pd.DataFrame({w: np.mean([g[w][:3] for g in got], axis=0) for w in ways}, index=["FDR", "power", "CPU s"]).T
        table["FDR +-"] = [np.std([g[w][0] for g in got], ddof=1)/len(got)**.5 for w in ways]
        total.append(table)
        print(f"\n{design}\n{table.round(3).to_string()}", flush=True)
    print(f"\nall designs\n{(sum(total)/len(total)).round(3).to_string()}", flush=True)

def coverage():
    from joblib import Parallel, delayed
    from sklearn.ensemble import HistGradientBoostingRegressor
    X, y, _ = friedman(0, 2000)
    model = HistGradientBoostingRegressor(max_iter=100, random_state=0).fit(X, y)
    true = truth(model, 1)
    for n in (300, 1000):
        got = np.mean(Parallel(n_jobs=JOBS)(delayed(covered)(model, true, s, n) for s in range(TABLES)), axis=0)
        print(f"\ncoverage of 95 %, {TABLES} tables of {n} rows, columns that matter and their copies\n" + pd.DataFrame(got[[0, 1, 2, 3, 4, 10, 11, 12, 13, 14]], index=[X.columns[j] for j in (0, 1, 2, 3, 4, 10, 11, 12, 13, 14)], columns=["ours", "std/sqrt(R)", "2 std"]).agg(["min", "mean"]).round(3).to_string(), flush=True)

if __name__ == "__main__":
    for part in sys.argv[1:] or ["main", "coverage"]: dict(main=main, coverage=coverage)[part]()
