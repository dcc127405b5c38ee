"""Executors: a pipeline of 20 independent notebooks on this machine and on a Dask cluster of two workers, overhead of a stage; rows a second and memory of a table that is scored and counted part by part.

    python bench/executors.py [pipeline|parts|scored] [--rows 5000000]

`scored` has every row answered by a registered model of gradient boosting before it is counted.
"""
import argparse, json, os, resource, statistics, sys, tempfile, time
from pathlib import Path

def book(path, seconds):
    cell = lambda i, text, *tags: dict(cell_type="code", id=f"c{i}", metadata={"tags": list(tags)}, source=text, outputs=[], execution_count=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=[cell(0, "n = 0", "parameters"), cell(1, f"import time\ntime.sleep({seconds})")], metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")), nbformat=4, nbformat_minor=5)))

def cluster():
    import dask, distributed
    dask.config.set({"distributed.nanny.pre-spawn-environ": {}})
    return distributed.LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)

def timed(act):
    began = time.perf_counter()
    return act(), time.perf_counter() - began

def pipelines(rounds, seconds=.5, n=20):
    """Ratio of the two places for n stages. What a stage costs beyond its notebook is the slope between n and 3n stages, so that connecting, once a run, is told apart."""
    from mlops_nb.core import config, executors, ledger
    from mlops_nb.run import pipeline, warm
    with tempfile.TemporaryDirectory() as tmp, config.settings_for(tmp), cluster() as dask:
        for i in range(3*n): book(Path(tmp)/f"nbs/workflows/s{i:02}.ipynb", seconds)
        warm.start(), warm.wait(300)
        where = {"local": "local:2", "dask": dask.scheduler_address.replace("tcp", "dask")}
        took, own = {(name, k): [] for name in where for k in (n, 3*n)}, {name: [] for name in where}
        for i in range(rounds + 1):
            for k in (n, 3*n):
                (Path(tmp)/"settings.ini").write_text("[mlops_nb]\n[pipeline]\n" + "".join(f"s{j:02} =\n" for j in range(k)))
                for name in where if i % 2 else reversed(where):
                    with config.settings_for(tmp, executor=where[name]): ended, t = timed(lambda: pipeline.run({f"s{j:02}": {"n": 1000*i + 10*k + (name == "dask")} for j in range(k)}))
                    assert {r.state for r in ended} == {"done"}
                    if i: took[name, k].append(t), own[name].extend(r.seconds for r in ended)
        with config.settings_for(tmp, executor=where["dask"]), executors.pool() as p: _, t = timed(lambda: [f.result() for f in [p.submit(abs, -1) for _ in range(500)]])
        ledger.close()
    median = lambda name, k: statistics.median(took[name, k])
    beyond = {name: round(1000*((median(name, 3*n) - median(name, n))/n - statistics.median(own[name])), 1) for name in where}   # two workers, 2n more stages
    ratio = [b/a for a, b in zip(took["local", n], took["dask", n])]
    once = {name: round(1000*(median(name, n) - (median(name, 3*n) - median(name, n))/2)) for name in where}
    print(json.dumps(dict(stages=n, notebook_s=seconds, seconds={f"{name}, {k} stages": v for (name, k), v in took.items()}, ratio_median=round(statistics.median(ratio), 3), a_stage_beyond_the_notebook_ms=beyond, a_run_ms=once, empty_task_ms=round(1000*t/500, 2), load=os.getloadavg()), indent=1))

def champion(first, names):
    "(name, version) of a model of these columns."
    from sklearn.ensemble import HistGradientBoostingClassifier
    from mlops_nb.registry import models
    df = first.slice(0, 50_000).to_pandas()
    model = HistGradientBoostingClassifier(max_iter=50).fit(df[names], df[names[0]] + df[names[1]]*df[names[2]] > 0)
    return "big", models.register(model, "big", df[names].head(), {}, {"roc_auc": .9}).version

def parts(rows, columns=20, scored=False):
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    from mlops_nb.core import config, ledger
    from mlops_nb.monitor.bins import bins
    from mlops_nb.monitor.partitions import count
    with tempfile.TemporaryDirectory() as tmp, config.settings_for(tmp):
        rng, names = np.random.default_rng(0), [f"x{i}" for i in range(columns)]
        made = lambda n: pa.table({k: rng.normal(size=n).astype("float32") for k in names} | {"score": rng.uniform(size=n)})
        first = made(500_000)
        with pq.ParquetWriter(f"{tmp}/big.parquet", first.schema) as f:
            for _ in range(rows//500_000): f.write_table(made(500_000), row_group_size=500_000)
        by, found = bins(first, names), {}
        how = dict(model=champion(first, names)) if scored else dict(score="score")
        for workers in (2, 1, 2) if scored else (1, 1, 2, 1, 2):   # the first has the file come into the page cache, and the counting compiled
            got, t = timed(lambda: count(f"{tmp}/big.parquet", by, 500_000, workers, **how))
            found.setdefault(workers, []).append(round(t, 1))
            assert got.rows.sum() == rows//500_000*500_000
        ledger.close()
    found = {w: t[1:] if w == (2 if scored else 1) else t for w, t in found.items()}
    peak = max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))/1024
    print(json.dumps(dict(rows=rows, columns=columns, scored=scored, seconds_by_workers=found, rows_a_second={w: round(rows/min(t)) for w, t in found.items()}, peak_mb_of_one_process=round(peak), load=os.getloadavg()), indent=1))

if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("what", nargs="?", choices=["pipeline", "parts", "scored"])
    p.add_argument("--rows", type=int, default=5_000_000)
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if args.what in (None, "pipeline"): pipelines(args.rounds)
    for what in ("parts", "scored"):
        if args.what in (None, what): parts(args.rows, scored=what == "scored")
