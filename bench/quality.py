"""The same 24 checks on 5 million rows x 20 columns: `quality` on a pandas frame, an Arrow table and a Parquet file, hand-written polars and DuckDB, pandera's polars backend,
Great Expectations. Every candidate runs in a process of its own; the data lies in memory in the form it likes best (or on disk, where it says so), import and loading are not
counted, memory is the peak of the whole process. Alternating, medians. Peers live in ~/.cache/mlops-nb/bench/quality. ROWS, ROUNDS, ONLY=polars,duckdb limit the work."""
import json, os, platform, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROWS, ROUNDS = int(os.environ.get("ROWS", 5_000_000)), int(os.environ.get("ROUNDS", 3))
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/quality"
PEERS = ["great-expectations==1.24.1", "pandera==0.35.0", "polars==2.1.0", "pandas==2.3.3", "pyarrow==25.0.1", "duckdb==2.0.0"]
QUIET = dict(GX_ANALYTICS_ENABLED="false", DO_NOT_TRACK="true", MLFLOW_DISABLE_TELEMETRY="true", DISABLE_PANDERA_IMPORT_WARNING="True")

FILLED, NUMBERS, ORIGINS, DESTS = ["id", "start", "end", "origin", "dest", "tail", "key", "flag"], {f"x{i}": (-8, 8) for i in range(4)} | {"n0": (0, 999), "n1": (0, 999)}, ["EWR", "JFK", "LGA"], [f"D{i:03}" for i in range(105)]
TAIL, AS_OF = "N[0-9]+[AB]", "2014-01-03"

def data(rows, path):
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    rng, words = np.random.default_rng(0), lambda values: pa.array(values).take(pa.array(rng.integers(0, len(values), rows)))
    gaps = lambda x: pa.array(x, mask=rng.random(rows) < .02)
    start = np.datetime64("2013-01-01", "s") + rng.integers(0, 31_500_000, rows).astype("m8[s]")
    columns = {"id": rng.permutation(rows), **{f"x{i}": gaps(rng.normal(size=rows)) for i in range(8)}, **{f"n{i}": rng.integers(0, 1000, rows) for i in range(4)},
               "start": start.astype("M8[us]"), "end": (start + rng.integers(60, 90_000, rows).astype("m8[s]")).astype("M8[us]"), "flag": rng.random(rows) < .3,
               "origin": words(ORIGINS), "dest": words(DESTS), "tail": words([f"N{i}{'AB'[i % 2]}" for i in range(10_000, 14_000)]), "key": pa.array([f"2013-{i}-UA" for i in rng.permutation(rows)])}
    pq.write_table(pa.table(columns), path)

# --- candidates: each takes the path, loads, and returns a function that runs the 24 checks and returns how many failed ---

def lines():
    return [*(f"{c} complete" for c in FILLED), *(f"{c} between {a} and {b}" for c, (a, b) in NUMBERS.items()), f"origin in {', '.join(ORIGINS)}", f"dest in {', '.join(DESTS)}", f"tail matches {TAIL}",
            "unique id", "unique key", "end after start", "x0 < x1 + 20", "length of dest between 4 and 4", "start fresh within 5 days", f"rows between {ROWS//2} and {ROWS*2}"]

def ours(path, form):
    import duckdb, pyarrow.dataset, pyarrow.parquet as pq
    from mlops_nb.data.rules import judge
    rows = {"pandas": lambda: pq.read_table(path).to_pandas(), "arrow": lambda: pq.read_table(path), "parquet": lambda: path}[form]()
    return lambda: sum(not f.ok for f in judge(rows, lines(), as_of=AS_OF, memory=os.environ.get("MEMORY", "1GB")))

def polars(path):
    import polars as pl
    from datetime import datetime
    df, c = pl.read_parquet(path), pl.col
    def run():
        got = df.select(*(c(n).is_null().sum().alias(f"f{n}") for n in FILLED), *((~c(n).is_between(a, b)).sum().alias(f"b{n}") for n, (a, b) in NUMBERS.items()),
                        (~c("origin").is_in(ORIGINS)).sum().alias("o"), (~c("dest").is_in(DESTS)).sum().alias("d"), (~c("tail").str.contains(f"^{TAIL}$")).sum().alias("t"),
                        (pl.len() - c("id").n_unique()).alias("u"), (pl.len() - c("key").n_unique()).alias("k"), (c("end") <= c("start")).sum().alias("e"), (c("x0") >= c("x1") + 20).sum().alias("x"),
                        (c("dest").str.len_chars() != 4).sum().alias("l"), c("start").max().alias("newest"), pl.len().alias("rows")).row(0, named=True)
        newest, rows = got.pop("newest"), got.pop("rows")
        return sum(map(bool, got.values())) + ((datetime.fromisoformat(AS_OF) - newest).days > 5) + (not ROWS//2 <= rows <= ROWS*2)
    return run

def duckdb(path):
    import duckdb, pyarrow.parquet as pq
    con = duckdb.connect(config=dict(memory_limit="4GB"))
    con.register("rows", pq.read_table(path))
    among = lambda values: ", ".join(f"'{v}'" for v in values)
    wrong = [*(f'"{n}" IS NULL' for n in FILLED), *(f'NOT ("{n}" BETWEEN {a} AND {b})' for n, (a, b) in NUMBERS.items()), f"origin NOT IN ({among(ORIGINS)})", f"dest NOT IN ({among(DESTS)})",
             f"NOT regexp_full_match(tail, '{TAIL}')", '"end" <= "start"', "x0 >= x1 + 20", "length(dest) <> 4"]
    def run():
        *bad, newest, rows = con.execute(f'SELECT {", ".join(f"count(*) FILTER (WHERE {w})" for w in wrong)}, max("start"), count(*) FROM rows').fetchone()
        again = [rows - con.execute(f"SELECT count(DISTINCT {n}) FROM rows").fetchone()[0] for n in ("id", "key")]
        return sum(map(bool, bad + again)) + (newest.year < 2013) + (not ROWS//2 <= rows <= ROWS*2)
    return run

def pandera(path):
    import pandera.polars as pa, polars as pl
    df = pl.read_parquet(path)
    checks = {n: [pa.Check.in_range(a, b)] for n, (a, b) in NUMBERS.items()} | {"origin": [pa.Check.isin(ORIGINS)], "dest": [pa.Check.isin(DESTS), pa.Check.str_length(4, 4)], "tail": [pa.Check.str_matches(f"^{TAIL}$")]}
    whole = [pa.Check(lambda d: d.lazyframe.select(pl.col("end") > pl.col("start"))), pa.Check(lambda d: d.lazyframe.select((pl.col("x0") < pl.col("x1") + 20).fill_null(True))),
             pa.Check(lambda d: d.lazyframe.select(pl.col("start").max() > pl.datetime(2013, 12, 29))), pa.Check(lambda d: d.lazyframe.select(pl.len().is_between(ROWS//2, ROWS*2)))]
    schema = pa.DataFrameSchema({n: pa.Column(t, checks.get(n, []), nullable=n not in FILLED, unique=n in ("id", "key")) for n, t in df.schema.items()}, checks=whole)
    def run():
        try: schema.validate(df, lazy=True)
        except pa.errors.SchemaErrors as e: return len(e.schema_errors)
        return 0
    return run

def gx(path):
    import great_expectations as gx, pyarrow.parquet as pq
    import great_expectations.expectations as e
    from datetime import datetime
    df = pq.read_table(path).to_pandas()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b").get_batch(batch_parameters={"dataframe": df})
    df["x1p"] = df["x1"] + 20
    suite = gx.ExpectationSuite("s", expectations=[*(e.ExpectColumnValuesToNotBeNull(column=n) for n in FILLED), *(e.ExpectColumnValuesToBeBetween(column=n, min_value=a, max_value=b) for n, (a, b) in NUMBERS.items()),
        e.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS), e.ExpectColumnValuesToBeInSet(column="dest", value_set=DESTS), e.ExpectColumnValuesToMatchRegex(column="tail", regex=f"^{TAIL}$"),
        e.ExpectColumnValuesToBeUnique(column="id"), e.ExpectColumnValuesToBeUnique(column="key"), e.ExpectColumnPairValuesAToBeGreaterThanB(column_A="end", column_B="start"),
        e.ExpectColumnPairValuesAToBeGreaterThanB(column_A="x1p", column_B="x0", ignore_row_if="either_value_is_missing"), e.ExpectColumnValueLengthsToEqual(column="dest", value=4),
        e.ExpectColumnMaxToBeBetween(column="start", min_value=datetime(2013, 12, 29)), e.ExpectTableRowCountToBeBetween(min_value=ROWS//2, max_value=ROWS*2)])
    return lambda: batch.validate(suite, result_format="BOOLEAN_ONLY").statistics["unsuccessful_expectations"]

CANDIDATES = {"polars, by hand": polars, "DuckDB, by hand": duckdb, "quality, pandas frame": lambda p: ours(p, "pandas"), "quality, Arrow table": lambda p: ours(p, "arrow"),
              "quality, Parquet file": lambda p: ours(p, "parquet"), "pandera, polars": pandera, "Great Expectations": gx}

def one(name, path):
    run = CANDIDATES[name](path)
    began = time.perf_counter()
    failed = run()
    seconds = time.perf_counter() - began
    print("\n" + json.dumps([seconds, failed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6]))

def peers(home=HOME, wanted=PEERS):
    python = home/"venv/bin/python"
    if not (home/"done").exists() or (home/"done").read_text() != " ".join(wanted):
        subprocess.run(["uv", "venv", "-q", "--clear", "-p", sys.executable, home/"venv"], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--compile-bytecode", "-p", python, *wanted], check=True)
        (home/"done").write_text(" ".join(wanted))
    return python

def main():
    python, figures = peers(), {}
    asked = os.environ.get("ONLY", "").split(",")
    chosen = [n for n in CANDIDATES if any(a.lower() in n.lower() for a in asked)]
    with tempfile.TemporaryDirectory() as tmp:
        data(ROWS, f"{tmp}/rows.parquet")
        for _ in range(ROUNDS):
            for name in chosen:
                env = {**os.environ, **QUIET, "MLOPS_NB_ROOT": tmp, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
                done = subprocess.run([sys.executable if name.startswith("quality") else python, __file__, name, f"{tmp}/rows.parquet"], env=env, capture_output=True, text=True)
                if done.returncode: sys.exit(f"{name}: {done.stderr[-2000:]}")
                figures.setdefault(name, []).append(json.loads(done.stdout.strip().splitlines()[-1]))
    print(f"24 checks on {ROWS:,} x 20; {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {ROUNDS} rounds\n{'':26}{'s':>8}{'x':>8}{'peak GB':>9}{'failed':>8}")
    middle = {n: [statistics.median(f[i] for f in fs) for i in range(3)] for n, fs in figures.items()}
    base = next(iter(middle.values()))[0]
    for name, (seconds, failed, memory) in middle.items(): print(f"{name:26}{seconds:8.2f}{seconds/base:8.1f}{memory:9.1f}{failed:8.0f}")

if __name__ == "__main__": one(*sys.argv[1:]) if len(sys.argv) == 3 else main()
