"""SHAP values, ours against the packages shap and WoodElf: rows explained per CPU second, and how far the base and the values miss the model's own answers. Alternating in one process,
one thread, medians; then interaction values, ours of raw columns against the background and theirs path-dependent. Peers live in ~/.cache/mlops-nb/bench/explain. ROWS, BACKGROUND, TREES, ROUNDS limit the work; shap gets FEW rows where it is slow, and rows/s are compared."""
import os
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", DO_NOT_TRACK="true")
import contextlib, io, platform, statistics, subprocess, sys, time, warnings
from pathlib import Path

ROWS, BACKGROUND, TREES, ROUNDS, FEW = (int(os.environ.get(k, d)) for k, d in dict(ROWS=20_000, BACKGROUND=1000, TREES=100, ROUNDS=3, FEW=50).items())
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/explain"
PEERS = ["woodelf-explainer==0.4.8", "shap==0.50.0"]

def python():
    "An environment that sees this one, with the peers on top."
    own = HOME/"bin/python"
    if not (HOME/"ready").exists():
        import site
        subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
        packages = next(HOME.glob("lib/python*/site-packages"))
        (packages/"base.pth").write_text("\n".join([*site.getsitepackages(), str(Path(__file__).resolve().parents[1])]))
        subprocess.run([own, "-m", "pip", "install", "-q", *PEERS], check=True)
        (HOME/"ready").touch()
    return own

def data():
    "20 columns, the first of 12 categories, some values missing."
    import numpy as np
    from sklearn.datasets import make_regression
    X, y = make_regression(ROWS, 20, n_informative=10, noise=10, random_state=0)
    rng, C = np.random.default_rng(0), X.copy()
    C[:, 0] = rng.integers(0, 12, ROWS)
    C[rng.random(C.shape) < .05] = np.nan
    return X, y, C, y + 300*(C[:, 0] % 3 == 1)

def models():
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    X, y, C, z = data()
    yield "boosting", HistGradientBoostingRegressor(max_iter=TREES, random_state=0).fit(X, y), X
    yield "boosting, categories and gaps", HistGradientBoostingRegressor(max_iter=TREES, categorical_features=[0], random_state=0).fit(C, z), C
    yield "forest, depth 8", RandomForestRegressor(TREES, max_depth=8, max_features=.5, random_state=0).fit(X, y), X

def ways(model, X):
    "(name, rows, function of rows giving values and base)"
    import numpy as np, pandas as pd, shap
    from mlops_nb.features.explain import explain
    from woodelf import WoodelfExplainer
    names = [f"x{i}" for i in range(X.shape[1])]
    def ours(rows, back):
        e = explain(model, rows, background=back, method="trees")
        return e.values, e.base
    def theirs(make, frame=False):
        def run(rows, back):
            e = make(back)
            kw = {} if frame else dict(check_additivity=False)
            return np.asarray(e.shap_values(pd.DataFrame(rows, columns=names) if frame else rows, **kw)), np.ravel(e.expected_value)[0]
        return run
    yield "ours", ROWS, ours
    yield "shap", FEW, theirs(lambda back: shap.TreeExplainer(model, shap.maskers.Independent(back, max_samples=len(back))))
    yield "woodelf", ROWS, theirs(lambda back: WoodelfExplainer(model, pd.DataFrame(back, columns=names)), True)
    yield "shap, path-dependent", 20*FEW, theirs(lambda back: shap.TreeExplainer(model))
    yield "woodelf, path-dependent", ROWS, theirs(lambda back: WoodelfExplainer(model), True)

def pair_ways(model, X):
    "The same for interaction values."
    import numpy as np, pandas as pd, shap
    from mlops_nb.features.explain import explain_pairs
    from woodelf import WoodelfExplainer
    names = [f"x{i}" for i in range(X.shape[1])]
    def ours(rows, back):
        e = explain_pairs(model, rows, background=back)
        return e.values, e.base
    def theirs(make, frame=False):
        def run(rows, back):
            e = make()
            return np.asarray(e.shap_interaction_values(pd.DataFrame(rows, columns=names) if frame else rows)), np.ravel(e.expected_value)[0]
        return run
    n = min(ROWS, 200_000_000//(8*X.shape[1]**2*4))
    yield "ours, pairs", n, ours
    yield "shap, pairs", FEW, theirs(lambda: shap.TreeExplainer(model))
    yield "woodelf, pairs", n, theirs(lambda: WoodelfExplainer(model), True)

def one(run, rows, back, model):
    import numpy as np
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): values, base = run(rows, back)
    spent = time.process_time() - start
    values = values.sum(axis=2) if values.ndim == 3 and values.shape[1] == values.shape[2] else values
    missed = values.sum(axis=1) + base - model.predict(rows)
    return len(rows)/spent, abs(float(np.median(missed))), float(np.abs(missed - np.median(missed)).max())

def main():
    import numpy as np
    warnings.simplefilter("ignore")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {ROWS:,} rows x 20, {TREES} trees, {BACKGROUND:,} background rows, median of {ROUNDS}")
    for (name, model, X), ways_of in ((m, w) for m in models() for w in (ways, pair_ways)):
        back, found = X[:BACKGROUND], {}
        for i in range(ROUNDS + 1):            # the first round compiles
            for way, n, run in ways_of(model, X):
                if i == 0 and not way.startswith("ours") or isinstance(found.get(way), str): continue
                try: found.setdefault(way, []).append(one(run, X[:n], back, model))
                except Exception as e: found[way] = f"{type(e).__name__}: {str(e)[:90]}"
        own = statistics.median(r[0] for r in next(iter(found.values()))[1:])
        for way, got in found.items():
            if isinstance(got, str): print(f"{name:30} {way:24} {got}"); continue
            rate, base, gap = statistics.median(r[0] for r in got[-ROUNDS:]), *(max(g[k] for g in got) for k in (1, 2))
            print(f"{name:30} {way:24} {rate:10,.0f} rows/s  ours {own/rate:8.1f}x  base off by {base:.1g}, values by {gap:.1g}{'  WRONG' if max(gap, base) > 1e-3*np.std(model.predict(X[:500])) else ''}")

if __name__ == "__main__":
    if os.environ.get("INSIDE"): main()
    else: sys.exit(subprocess.run([python(), __file__], env=os.environ | {"INSIDE": "1"}).returncode)
