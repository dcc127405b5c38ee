"""Permutation importance, ours and scikit-learn's, alternating in one process: CPU and wall medians, ratios, identical arrays asserted.

    python bench/permutation.py                        # one round of every case
    python bench/permutation.py hgb linear --rounds 3  # some cases; --rows, --columns, --jobs, --repeats
LightGBM and XGBoost are measured when they are installed (equal within 1e-6 there)."""
import os, sys
if "--threads" not in sys.argv: os.environ.setdefault("OMP_NUM_THREADS", "1"); os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import argparse, json, platform, resource, statistics, threading, time
import numpy as np

def data(rows, columns, seed=0):
    from sklearn.datasets import make_classification
    return make_classification(rows, columns, n_informative=min(columns//2, 20), random_state=seed)

def hgb(X, y):
    from sklearn.ensemble import HistGradientBoostingClassifier
    return HistGradientBoostingClassifier(random_state=0).fit(X, y), X

def _forest(X, y, trees):
    from sklearn.ensemble import RandomForestClassifier
    return RandomForestClassifier(trees, random_state=0, n_jobs=-1).fit(X[:20_000], y[:20_000]).set_params(n_jobs=None), X

def forest(X, y): return _forest(X, y, 200 if X.shape[1] < 100 else 100)

def linear(X, y):
    "A frame with gaps and two text columns: impute, scale, one-hot, logistic regression."
    import pandas as pd
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    rng = np.random.default_rng(0)
    df = pd.DataFrame(np.where(rng.random(X.shape) < .02, np.nan, X)[:, :-2]).rename(columns="x{}".format)
    df["carrier"], df["dest"] = rng.choice(["AA", "UA", "DL", "B6"], len(df)), rng.choice([f"D{i}" for i in range(60)], len(df))
    parts = make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
                                    (OneHotEncoder(sparse_output=False), ["carrier", "dest"]))
    return make_pipeline(parts, LogisticRegression(max_iter=50)).fit(df, y), df

def scaled(X, y):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)).fit(X, y), X

def lightgbm(X, y):
    from lightgbm import LGBMClassifier
    return LGBMClassifier(random_state=0, n_jobs=1, verbose=-1).fit(X, y), X

def xgboost(X, y):
    from xgboost import XGBClassifier
    return XGBClassifier(random_state=0, n_jobs=1).fit(X, y), X

def other(X, y):
    "No fast way: must cost what scikit-learn costs."
    from sklearn.neural_network import MLPClassifier
    return MLPClassifier((16,), max_iter=3, random_state=0).fit(X, y), X

CASES = dict(hgb=hgb, forest=forest, linear=linear, scaled=scaled, lightgbm=lightgbm, xgboost=xgboost, other=other)

def cost(call):
    "Result, CPU seconds (children too), wall seconds."
    def cpu(): return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    c, w = cpu(), time.perf_counter()
    result = call()
    return result, cpu() - c, time.perf_counter() - w

def peak(call):
    "Largest growth of the process's memory during `call`, MB."
    import psutil
    me, seen, on = psutil.Process(), [0], [True]
    def look():
        while on[0]: seen.append(me.memory_info().rss); time.sleep(.005)
    before, thread = me.memory_info().rss, threading.Thread(target=look)
    thread.start(); result = call(); on[0] = False; thread.join()
    return result, (max(seen) - before)/1e6

def run(name, a):
    from mlops_nb.features.permutation import permutation_importance as ours
    from sklearn.inspection import permutation_importance as theirs
    X, y = data(a.rows, a.columns)
    model, X = CASES[name](X, y)
    how = dict(n_repeats=a.repeats, random_state=0, scoring=a.scoring)
    _, first, _ = cost(lambda: ours(model, X, y, **how))            # loads, and once compiles
    one, two = [], []
    for i in range(a.rounds):
        for who, f, times in ((0, ours, one), (1, theirs, two))[::1 if i % 2 == 0 else -1]:
            result, *spent = cost(lambda: f(model, X, y, n_jobs=a.jobs if who == 0 else a.their_jobs, **how))
            times.append((*spent, result.importances))
    gap = float(np.abs(one[0][2] - two[0][2]).max())
    assert np.array_equal(one[0][2], two[0][2]) or name in ("lightgbm", "xgboost") and gap < 1e-6, f"{name}: not the same numbers, {gap}"
    _, mb = peak(lambda: ours(model, X, y, n_jobs=a.jobs, **how))
    m = [statistics.median(t[k] for t in side) for k in (0, 1) for side in (one, two)]
    return dict(case=name, rows=a.rows, columns=a.columns, repeats=a.repeats, jobs=a.jobs, first_call_cpu=round(first, 2), our_cpu=round(m[0], 2), their_cpu=round(m[1], 2),
                cpu_ratio=round(m[1]/m[0], 2), our_wall=round(m[2], 2), their_wall=round(m[3], 2), wall_ratio=round(m[3]/m[2], 2), identical=gap == 0, peak_mb=round(mb),
                load=round(os.getloadavg()[0], 1))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cases", nargs="*", default=list(CASES), metavar="case", help=", ".join(CASES))
    for name, default in dict(rows=100_000, columns=30, repeats=5, rounds=1, jobs=1, their_jobs=1).items(): p.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    p.add_argument("--scoring", default=None)
    p.add_argument("--threads", action="store_true", help="let scikit-learn use all cores in predict")
    a = p.parse_args()
    print(json.dumps(dict(machine=platform.processor() or platform.machine(), cores=os.cpu_count(), load=os.getloadavg()[0], python=platform.python_version())))
    for name in a.cases:
        try: print(json.dumps(run(name, a)), flush=True)
        except ImportError as e: print(json.dumps(dict(case=name, skipped=str(e))))

if __name__ == "__main__": main()
