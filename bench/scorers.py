"""One row and 1,000 rows by each scorer, by the model itself on a frame, and by MLflow's pyfunc, alternating in one process: CPU medians and ratios, equal answers asserted. Then the exported scorer in a process of
its own, and (--proof N) N random pipelines of each family against scikit-learn on odd rows.

    python bench/scorers.py                  # flights: linear, boosted trees, forest, and an array model; --rounds 9
    python bench/scorers.py --proof 20       # the property test at length"""
import os
os.environ.setdefault("OMP_NUM_THREADS", "1")
import argparse, logging, platform, statistics, subprocess, sys, tempfile, time, warnings
from pathlib import Path

ROWS = 3000

def models():
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    return dict(linear=LogisticRegression(max_iter=500), boosted=HistGradientBoostingClassifier(max_iter=100, random_state=0), forest=RandomForestClassifier(100, min_samples_leaf=5, random_state=0), network=MLPClassifier((20,), max_iter=30, random_state=0))

def took(f, seconds=.05):
    "CPU microseconds of one call, of as many as fit."
    calls, began = 0, time.process_time()
    while (now := time.process_time() - began) < seconds: f(); calls += 1
    return now/calls*1e6

def rounds(ways, n):
    "{way: median microseconds}, the ways taking turns."
    seen = {name: [] for name in ways}
    for _ in range(n):
        for name, f in ways.items(): seen[name].append(took(f))
    return {name: statistics.median(v) for name, v in seen.items()}

def wrapped(model, df, folder):
    import mlflow
    from mlops_nb.train.persistence import quiet, save
    with quiet(): return mlflow.pyfunc.load_model(str(save(model, folder, df.head(20), ["scikit-learn"]).folder))

def cold(path, row):
    "Seconds and MB of a new process that loads an exported scorer and answers one row."
    code = f"from mlops_nb.serve.export import load\nload({str(path)!r}).row({row!r})\nprint(next(int(l.split()[1])/1024 for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, float(done.stdout)

def measured(name, estimator, df, y, n, tmp):
    import numpy as np
    from mlops_nb.features.build import pipeline
    from mlops_nb.serve.export import export, load
    from mlops_nb.serve.scorer import difference, scorer
    from mlops_nb.serve.table import of_rows
    model = pipeline(df, estimator).fit(df, y)
    began = time.process_time()
    proven = scorer(model, sample=df.head(200))
    made, pyfunc = time.process_time() - began, wrapped(model, df, f"{tmp}/{name}")
    records = df.head(1000).astype(object).where(df.head(1000).notna(), None).assign(scheduled=df["scheduled"].astype(str)).to_dict("records")
    print(f"\n{name}: {proven}, made in {made:.1f} s CPU, {len(df.columns)} columns")
    for size in (1, 1000):
        some, table = records[:size], of_rows(records[:size])
        frame = of_rows(some).frame().assign(scheduled=df["scheduled"].head(size)).astype({c: float for c in df if df[c].dtype.kind == "f"})
        assert difference(proven(of_rows(some)), np.asarray(pyfunc.predict(frame))[:, 1]) <= 1e-12
        ways = dict(scorer=lambda: proven(table), plain=lambda: proven.plain(of_rows(some)), predict_proba=lambda: model.predict_proba(frame), pyfunc=lambda: pyfunc.predict(frame))
        if size == 1: ways["row"] = lambda: proven.way.row(some[0])
        if proven.kind != "array":
            alone = load(export(proven, f"{tmp}/{name}.npz"))
            ways["numpy alone"] = lambda: alone(table)
        if proven.kind == "array": ways.pop("row", None)
        us = rounds(ways, n)
        print(f"  {size:5} rows  " + "  ".join(f"{way} {t:,.0f} us" if t >= 100 else f"{way} {t:.1f} us" for way, t in us.items()) + f"  | scorer ahead of predict_proba {us['predict_proba']/us['scorer']:.0f}x, pyfunc {us['pyfunc']/us['scorer']:.0f}x; {size/us['scorer']*1e6:,.0f} rows/s")
    if proven.kind != "array":
        seconds, mb = zip(*(cold(f"{tmp}/{name}.npz", records[0]) for _ in range(5)))
        print(f"  exported {Path(f'{tmp}/{name}.npz').stat().st_size/1e3:.0f} kB; a new process to its first answer {statistics.median(seconds):.2f} s, {max(mb):.1f} MB at most")

def proofs(n):
    sys.path.insert(0, str(Path(__file__).parent.parent/"tests"))
    import test_scorers as t
    from sklearn.base import clone
    for name, family in (("linear", t.LINEAR), ("trees", t.TREES), ("other", t.OTHER)):
        for built in (True, False):
            kinds, wrong, began = [], 0, time.perf_counter()
            for seed in range(1000, 1000 + n):
                for k, (estimator, classes) in enumerate(family):
                    proven, bad = t.proof(100*seed + k, clone(estimator), classes, built)
                    kinds.append(proven.kind); wrong += len(bad)
                    if bad: print("  DIFFERS", seed, k, estimator, proven, str(bad[0])[:300])
            print(f"{name} {'built' if built else 'random'}: {len(kinds)} pipelines, {31*len(kinds):,} odd tables, {wrong} answered otherwise than by scikit-learn; {({k: kinds.count(k) for k in sorted(set(kinds))})}, {time.perf_counter() - began:.0f} s", flush=True)

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--proof", type=int, default=0)
    given = p.parse_args()
    warnings.simplefilter("ignore"); logging.disable(logging.WARNING)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if given.proof: proofs(given.proof)
    else:
        from mlops_nb.data import samples
        df = samples.flights(until="2013-01-15").head(ROWS).drop(columns=["flight_id"])
        late = samples.flight_outcomes(until="2013-01-15")["dep_delay"].head(ROWS).fillna(0) > 15
        with tempfile.TemporaryDirectory() as tmp:
            for name, estimator in models().items(): measured(name, estimator, df, late, given.rounds, tmp)
