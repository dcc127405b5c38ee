"""Window profiles of 1 million rows x 20 columns (15 numbers, 5 categories): making the bins, counting a window against stored bins, both windows from nothing; numpy with pandas doing the same cells
the plain way, and whylogs, which makes mergeable sketches. Every candidate runs in a process of its own, alternating; CPU seconds, the median of ten runs after one that warms up; memory is what the peak
of the process rises while it counts. Then TOTAL rows in batches from Parquet, against reading them alone. Peers live in ~/.cache/mlops-nb/bench/profiles. ROWS, ROUNDS, TOTAL, ONLY=whylogs limit the work."""
import json, os, platform, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROWS, ROUNDS, TOTAL = (int(os.environ.get(k, v)) for k, v in (("ROWS", 1_000_000), ("ROUNDS", 3), ("TOTAL", 100_000_000)))
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/profiles"
PEERS = ["whylogs==1.6.4", "pandas==2.3.3", "pyarrow==25.0.1"]
QUIET = dict(WHYLOGS_NO_ANALYTICS="True", DO_NOT_TRACK="true", MLFLOW_DISABLE_TELEMETRY="true", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", ARROW_NUM_THREADS="1")

def data(rows, path, seed):
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    rng = np.random.default_rng(seed)
    shapes = [lambda: rng.normal(size=rows)]*7 + [lambda: rng.lognormal(0, 1, rows)]*3 + [lambda: rng.integers(0, 1000, rows)]*2 + [lambda: np.where(rng.random(rows) < .1, np.nan, rng.gamma(2, 1, rows))]*2 + [lambda: rng.random(rows).astype(np.float32)]
    words = lambda k: pa.array([f"value {i}" for i in range(k)]).take(pa.array(rng.integers(0, k, rows)))
    pq.write_table(pa.table({f"x{i}": f() for i, f in enumerate(shapes)} | {f"c{i}": words(k) for i, k in enumerate((3, 10, 30, 100, 500))}), path)

def frame(path, form):
    "The rows as they lie in memory."
    import pyarrow.parquet as pq
    if form == "dictionary": return pq.read_table(path, read_dictionary=[f"c{i}" for i in range(5)])
    table = pq.read_table(path)
    if form == "arrow": return table
    df = table.to_pandas()
    return df.astype({c: form for c in df if c[0] == "c"}) if form != "object" else df

# --- candidates: (make the bins, count a window, how large its record is) ---

def ours(a, b):
    from mlops_nb.monitor import history
    from mlops_nb.monitor.bins import bins
    from mlops_nb.monitor.profile import profile
    fixed = bins(a)
    return lambda: bins(a), lambda: profile(b, fixed), lambda: history._rows(profile(b, fixed))[["cells", "sums", "distinct"]].map(len).to_numpy().sum()

def plain(a, b):
    "The same cells by np.searchsorted, moments by numpy, categories by pandas."
    import numpy as np, pandas as pd
    numbers, words = [c for c in a if c[0] == "x"], [c for c in a if c[0] == "c"]
    def make():
        cuts = {c: np.unique(np.quantile(x := a[c].dropna().to_numpy(float), np.arange(1, 256)/256)) for c in numbers}
        return cuts | {c: pd.Index(a[c].value_counts().index[:253]) for c in words}
    fixed = make()
    def count():
        for c in numbers:
            x = b[c].to_numpy(float)
            np.bincount(np.searchsorted(fixed[c], x), minlength=257)
            x = x[np.isfinite(x)]
            x.min(), x.max(), x.mean(), x.std(), (x**3).sum(), (x**4).sum()
        for c in words: fixed[c].get_indexer(pd.factorize(b[c])[1]); b[c].value_counts()
    return make, count, lambda: 0

def whylogs(a, b):
    import whylogs as why
    profiled = why.log(a)
    return lambda: None, lambda: why.log(b), lambda: len(profiled.view().serialize())

CANDIDATES = {"mlops_nb, objects": (ours, "object"), "mlops_nb, categories": (ours, "category"), "mlops_nb, Arrow strings": (ours, "arrow"), "mlops_nb, Arrow dictionaries": (ours, "dictionary"),
              "numpy and pandas, objects": (plain, "object"), "whylogs, objects": (whylogs, "object")}

def cpu(run, times):
    run()
    found = []
    for _ in range(times):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return statistics.median(found)

def one(name, folder):
    make, form = CANDIDATES[name]
    a, b = (frame(f"{folder}/{k}.parquet", form) for k in "ab")
    warm = make(*(x.slice(0, 1000) if hasattr(x, "slice") else x[:1000] for x in (a, b)))
    for f in warm[:2]: f()
    bins, count, size = make(a, b)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = 10 if name.startswith("mlops") else 1
    made, counted = cpu(bins, times), cpu(count, times)
    print("\n" + json.dumps([made, counted, made + 2*counted, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1e3, float(size())/1e3]))

# --- many rows ---

def streamed(path, count):
    "CPU seconds and peak memory (MB), at a tenth of the way and at the end, of reading TOTAL rows, counted or not."
    import pyarrow.parquet as pq
    from mlops_nb.monitor.bins import bins
    from mlops_nb.monitor.profile import profile
    fixed, peaks = bins(frame(path, "dictionary").slice(0, 200_000)), []
    def batches():
        done = 0
        while done < TOTAL:
            for batch in pq.ParquetFile(path, read_dictionary=[f"c{i}" for i in range(5)]).iter_batches(262_144, use_threads=False):
                done += len(batch)
                if not peaks and done >= TOTAL/10: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3)
                yield batch
    profile(frame(path, "dictionary").slice(0, 1000), fixed)
    began = time.process_time()
    rows = int(profile(batches(), fixed).rows[0]) if count == "yes" else sum(map(len, batches()))
    print("\n" + json.dumps([time.process_time() - began, rows, peaks[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3]))

def asked(python, tmp, *args):
    env = {**os.environ, **QUIET, "MLOPS_NB_ROOT": tmp, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([python, __file__, *args], env=env, capture_output=True, text=True)
    if done.returncode: sys.exit(f"{args}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])

def main():
    chosen = [n for n in CANDIDATES if any(a.lower() in n.lower() for a in os.environ.get("ONLY", "").split(","))]
    import quality
    python, figures, reading = quality.peers(HOME, PEERS) if any("whylogs" in n for n in chosen) else "", {}, {}
    with tempfile.TemporaryDirectory() as tmp:
        for seed, k in enumerate("ab"): data(ROWS, f"{tmp}/{k}.parquet", seed)
        for _ in range(ROUNDS):
            for name in chosen: figures.setdefault(name, []).append(asked(python if name.startswith("whylogs") else sys.executable, tmp, name, tmp))
            for count in ("no", "yes") if TOTAL and _ == 0 else (): reading[count] = asked(sys.executable, tmp, "streamed", f"{tmp}/a.parquet", count)
    print(f"{ROWS:,} x 20; {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; CPU seconds, medians of {ROUNDS} rounds\n{'':30}{'bins':>8}{'window':>8}{'both':>8}{'x':>8}{'MB':>7}{'kB':>7}")
    middle = {n: [statistics.median(f[i] for f in fs) for i in range(5)] for n, fs in figures.items()}
    base = next(iter(middle.values()))[1]
    for name, (bins, window, both, memory, size) in middle.items(): print(f"{name:30}{bins:8.3f}{window:8.3f}{both:8.3f}{window/base:8.1f}{memory:7.0f}{size:7.1f}")
    if reading: print(f"{reading['yes'][1]:,} rows from Parquet: reading {reading['no'][0]:.1f} s, reading and counting {reading['yes'][0]:.1f} s ({reading['yes'][0]/reading['no'][0]:.2f} x); peak {reading['yes'][2]:.0f} MB after a tenth, {reading['yes'][3]:.0f} MB at the end")

if __name__ == "__main__":
    if sys.argv[1:2] == ["streamed"]: streamed(*sys.argv[2:])
    elif len(sys.argv) == 3: one(*sys.argv[1:])
    else: main()
