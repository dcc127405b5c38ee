"""Importance of a table that fills much of the memory: seconds, rows per second and the peak beyond the table and beyond the model's own predict.

    python bench/large.py                                     # 1,000,000 x 50, five shuffles
    python bench/large.py --rows 10000000 --repeats 1 --trees 20
Each case in a process of its own; X is made of 32-bit floats in pieces. The disk must have room for up to 8 GB of temporary vectors (TMPDIR)."""
import os
os.environ.setdefault("OMP_NUM_THREADS", "1"); os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import argparse, json, subprocess, sys, threading, time
import numpy as np

CASES = "permutation hgb", "permutation linear", "conditional hgb", "conditional linear"

def table(n, p):
    X, rng = np.empty((n, p), np.float32), np.random.default_rng(0)
    for a in range(0, n, 100_000):
        part = rng.standard_normal((len(X[a:a+100_000]), p), np.float32)
        part[:, 1::2] += .7*part[:, ::2]
        X[a:a+100_000] = part
    return X, X[:, 0] + X[:, 1]*X[:, 2] + (X[:, 3] > 0) + rng.standard_normal(n, np.float32)

def peak(call):
    "Result, CPU seconds, wall seconds, largest growth of the memory of this process in MB."
    import ctypes, gc, psutil
    gc.collect(); ctypes.CDLL("libc.so.6").malloc_trim(0)
    me, on = psutil.Process(), [True]
    seen = [before := me.memory_info().rss]
    def look():
        while on[0]: seen.append(me.memory_info().rss); time.sleep(.01)
    thread = threading.Thread(target=look)
    thread.start()
    cpu, wall = time.process_time(), time.perf_counter()
    try: result = call()
    finally: on[0] = False; thread.join()
    return result, time.process_time() - cpu, time.perf_counter() - wall, (max(seen) - before)/1e6

def run(case, a):
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression
    from mlops_nb.features.conditional import conditional_importance
    from mlops_nb.features.permutation import permutation_importance
    X, y = table(a.rows, a.columns)
    kind, model = case.split()
    model = (HistGradientBoostingRegressor(max_iter=a.trees, early_stopping=False, random_state=0) if model == "hgb" else LinearRegression()).fit(X[:100_000], y[:100_000])
    how = dict(scoring="neg_mean_squared_error", n_repeats=a.repeats, random_state=0)
    small = slice(0, 50_000)
    f = permutation_importance if kind == "permutation" else lambda *args, **kw: conditional_importance(*args, rows=False, **kw)
    import mlops_nb.features._walk
    f(model, X[small], y[small], **how | dict(n_repeats=1))
    _, cpu, _, own = peak(lambda: model.predict(X))
    found, ours, wall, mb = peak(lambda: f(model, X, y, **how))
    plain = cpu*a.columns*a.repeats
    return dict(case=case, rows=a.rows, columns=a.columns, repeats=a.repeats, table_mb=round(X.nbytes/1e6), cpu=round(ours, 1), wall=round(wall, 1), rows_per_cpu_second=round(a.rows/ours),
                predict_cpu=round(cpu, 2), predicts_alone_cpu=round(plain, 1), predict_peak_mb=round(own), peak_mb=round(mb), importances=found.importances_mean[:5].round(3).tolist(),
                load=round(os.getloadavg()[0], 1))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    for name, default in dict(rows=1_000_000, columns=50, repeats=5, trees=100).items(): p.add_argument("--" + name, type=int, default=default)
    p.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    for case in a.cases or CASES:
        if a.here: print(json.dumps(run(case, a)), flush=True)
        else: subprocess.run([sys.executable, __file__, case, "--here", *(x for k in ("rows", "columns", "repeats", "trees") for x in (f"--{k}", str(getattr(a, k))))], check=True)

if __name__ == "__main__": main()
