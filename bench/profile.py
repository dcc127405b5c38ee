"""A profile of every row, with its page: ours, data_profiling (minimal, the lightest it has), and two that make no page: DuckDB SUMMARIZE and polars describe.
The flights as a frame and, with BIG=1, 5 million rows x 20 columns in a Parquet file (ours and DuckDB read it in place, the others load it first, and the loading counts). Alternating, each time in a
process of its own; the clock starts when everything is imported, once after a warm-up on 1,000 rows. Seconds, peak memory of the process, size of the page; the import apart."""
import json, os, platform, statistics, subprocess, sys, tempfile
from pathlib import Path

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)   # bytecode is kept between starts, as on a person's machine

ROUNDS, BIG = int(os.environ.get("ROUNDS", 3)), os.environ.get("BIG")
COMMON = """
import json, os, sys, time
os.environ.update(YDATA_PROFILING_NO_ANALYTICS="True", DO_NOT_TRACK="true")
path, out, began = sys.argv[1], sys.argv[2], time.perf_counter()
def memory(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))/1e6   # ru_maxrss would count the parent's too
def tell(since, imported): print(json.dumps(dict(seconds=time.perf_counter() - since, imported=imported, memory=memory(), page=os.path.getsize(out)/1e6 if os.path.exists(out) else 0)))
"""
PEERS = {
"mlops_nb": """
from mlops_nb.data import profile, report
imported = time.perf_counter() - began
import pandas as pd
from mlops_nb.data.samples import flights
small = flights(until="2013-01-02").head(1000)
report.page(profile.profile(small))
data = path if sys.argv[3] else pd.read_parquet(path)
since = time.perf_counter()
report.write(profile.profile(data), out)
tell(since, imported)
""", "data_profiling, minimal": """
import pandas as pd
from data_profiling import ProfileReport
imported = time.perf_counter() - began
from mlops_nb.data.samples import flights
quiet = dict(minimal=True, progress_bar=False)
ProfileReport(flights(until="2013-01-02").head(1000), **quiet).to_html()
data = None if sys.argv[3] else pd.read_parquet(path)
since = time.perf_counter()
ProfileReport(pd.read_parquet(path) if data is None else data, **quiet).to_file(out, silent=True)
tell(since, imported)
""", "DuckDB SUMMARIZE, no page": """
import duckdb, pandas as pd
imported = time.perf_counter() - began
con = duckdb.connect()
con.execute("SET enable_progress_bar = false")
data = None if sys.argv[3] else pd.read_parquet(path)
if data is None: con.execute("CREATE VIEW d AS FROM read_parquet('" + path + "')")
else: con.register("d", data)
since = time.perf_counter()
con.execute("SUMMARIZE d").fetchall()
tell(since, imported)
""", "polars describe, no page": """
import polars as pl
imported = time.perf_counter() - began
data = None if sys.argv[3] else pl.read_parquet(path)
since = time.perf_counter()
(pl.read_parquet(path) if data is None else data).describe()
tell(since, imported)
"""}

def flights(path):
    "The figures as the package has them: 336,776 rows x 19 columns."
    import pandas as pd, zipfile
    from mlops_nb.data.samples import _file
    source = _file("flights.csv.zip")
    with zipfile.ZipFile(source).open("flights.csv") as f: pd.read_csv(f, parse_dates=["time_hour"]).to_parquet(path)

def big(path, n=5_000_000, seed=0):
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    r, cols = np.random.default_rng(seed), {}
    for i in range(10): cols[f"x{i}"] = pa.array(r.normal(size=n)*(i + 1) + i, mask=(r.random(n) < .03) if i % 3 == 0 else None)
    for i, m in enumerate((10, 1000, 100_000, 2_000_000)): cols[f"n{i}"] = pa.array(r.integers(0, m, n))
    for i, m in enumerate((5, 300, 20_000)): cols[f"c{i}"] = pa.DictionaryArray.from_arrays(pa.array(r.integers(0, m, n).astype("int32")), pa.array([f"value {j}" for j in range(m)])).cast(pa.string())
    cols["id"] = pa.array([f"id-{j:08d}" for j in range(n)])
    cols["at"] = pa.array(np.datetime64("2020-01-01T00:00:00", "us") + np.sort(r.integers(0, 3*365*86400, n)).astype("timedelta64[s]"))
    cols["yes"] = pa.array(r.random(n) < .2)
    pq.write_table(pa.table(cols), path, row_group_size=500_000)

def once(code, path, out, in_place):
    Path(out).unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-c", COMMON + code, str(path), str(out), "1" if in_place else ""], capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])

def race(title, path, folder, peers, in_place):
    figures = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name in peers: figures[name].append(once(PEERS[name], path, folder/"page.html", in_place))
    middle = {name: {k: statistics.median(f[k] for f in fs) for k in fs[0]} for name, fs in figures.items()}
    print(f"\n{title}\n{'':28}{'seconds':>9}{'x ours':>8}{'GB':>7}{'page MB':>9}{'import s':>10}")
    for name, m in middle.items(): print(f"{name:28}{m['seconds']:9.2f}{m['seconds']/middle['mlops_nb']['seconds']:8.1f}{m['memory']:7.2f}{m['page']:9.2f}{m['imported']:10.2f}", flush=True)

def main():
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        os.environ["MLOPS_NB_ROOT"] = tmp
        print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}; medians of {ROUNDS} rounds")
        flights(folder/"flights.parquet")
        race("flights, 336,776 x 19", folder/"flights.parquet", folder, list(PEERS), False)
        if not BIG: return
        big(folder/"big.parquet")
        race("5,000,000 x 20", folder/"big.parquet", folder, [p for p in PEERS if BIG == "all" or not p.startswith("data_profiling")], True)

if __name__ == "__main__": main()
