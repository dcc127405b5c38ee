"""Versions of a data set: ours, delta-rs as it comes, plain Parquet, and DVC (add and push to a folder). Alternating in one run, medians; DVC lives in an environment of its own that is
made once, and is timed inside its own process, so its start is not counted, and as the two commands that people type. SIZE=big adds 5 million rows of 20 columns (4 GB of memory, about 3 minutes)."""
import os, platform, shutil, statistics, subprocess, sys, tempfile, time, zipfile
from pathlib import Path

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)   # bytecode is kept between starts, as on a person's machine

SIZE = os.environ.get("SIZE", "")
ROUNDS = int(os.environ.get("ROUNDS", 5))
HOME = Path("~/.cache/mlops-nb/bench/dvc").expanduser()
DVC = """
import os, sys, time
os.environ.update(DVC_NO_ANALYTICS="1", DO_NOT_TRACK="1")
from dvc.repo import Repo
for line in sys.stdin:
    began = time.perf_counter()
    Repo(".").add("data.parquet"); Repo(".").push()
    print("took", time.perf_counter() - began, flush=True)
"""

def dvc(folder):
    "A process that adds and pushes `data.parquet` for every line it gets."
    if not (HOME/"bin/dvc").exists():
        subprocess.run(["uv", "venv", "-q", str(HOME)], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--compile-bytecode", "--python", str(HOME/"bin/python"), "dvc==3.67.1", "setuptools<81"], check=True)
    env = {**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": f"{HOME/'bin'}:{os.environ['PATH']}"}
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"]): subprocess.run(words, cwd=folder, env=env, check=True)
    (folder/".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {folder/'remote'}\n")
    (folder/".dvc/tmp").mkdir(exist_ok=True)
    return subprocess.Popen([HOME/"bin/python", "-c", DVC], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def flights():
    import pyarrow.csv as pc
    from mlops_nb.data import samples
    with zipfile.ZipFile(samples._file("flights.csv.zip")) as z: return pc.read_csv(z.open("flights.csv"), convert_options=pc.ConvertOptions(strings_can_be_null=True)).to_pandas()

def big(n=5_000_000):
    import numpy as np, pandas as pd
    rng = np.random.default_rng(0)
    words = np.array([f"word {i}" for i in range(500)], dtype=object)
    return pd.DataFrame({**{f"f{i}": rng.normal(size=n).round(3) for i in range(8)}, **{f"i{i}": rng.integers(0, 10**(i + 1), n) for i in range(6)}, **{f"t{i}": words[rng.integers(0, 500, n)] for i in range(4)},
        "when": pd.Timestamp("2013-01-01") + pd.to_timedelta(rng.integers(0, 10**7, n), unit="s"), "flag": rng.random(n) < .3})

def timed(f):
    began = time.perf_counter()
    f()
    return time.perf_counter() - began

def rounds(ways, n):
    figures = {name: [] for name in ways}
    for r in range(n):
        for name, f in ways.items(): figures[name].append(f(r))
    return {name: statistics.median(f) for name, f in figures.items()}

def show(title, base, medians):
    print(f"\n{title}\n{'':44}{'s':>9}{'x ' + base[:12]:>16}")
    for name, s in medians.items(): print(f"{name:44}{s:9.3f}{s/medians[base]:16.2f}")

def compare(folder, df, n, with_dvc):
    import pandas as pd, pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    from mlops_nb.data import dataset
    step, three = len(df)//100, list(df.columns[:3])
    commit = lambda r: timed(lambda: (dataset.commit(df.assign(round=r), "ours"), dataset.read("ours")))
    parquet = lambda r: timed(lambda: (df.assign(round=r).to_parquet(folder/"x.parquet"), pd.read_parquet(folder/"x.parquet")))
    delta = lambda r: timed(lambda: (write_deltalake(folder/"delta", pa.Table.from_pandas(df.assign(round=r), preserve_index=False), mode="overwrite", schema_mode="overwrite"), DeltaTable(folder/"delta").to_pandas()))
    ways = {"plain Parquet: write + read": parquet, "delta-rs: write + read": delta, "ours: commit + read": commit}
    if with_dvc:
        peer = dvc(folder)
        def add(r):
            df.assign(round=r + 1000).to_parquet(folder/"data.parquet")
            peer.stdin.write("\n"); peer.stdin.flush()
            return float(next(line for line in peer.stdout if line.startswith("took")).split()[1])
        def commands(r):
            df.assign(round=r + 2000).to_parquet(folder/"data.parquet")
            env = {**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": f"{HOME/'bin'}:{os.environ['PATH']}"}
            return timed(lambda: [subprocess.run(["dvc", *w], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL) for w in (["add", "-q", "data.parquet"], ["push", "-q"])])
        ways.update({"DVC: add + push, without writing the file": add, "the same as its two commands": commands})
    for f in ways.values(): f(-1)
    show(f"{len(df):,} x {df.shape[1]}: a new version, and back", "plain Parquet: write + read", rounds(ways, n))
    if with_dvc: peer.stdin.close(); peer.wait()
    one = df.assign(round=0).sample(step, random_state=0)
    ours = lambda r: timed(lambda: dataset.append(one, "ours"))
    theirs = lambda r: timed(lambda: write_deltalake(folder/"delta", pa.Table.from_pandas(one, preserve_index=False), mode="append"))
    show(f"an append of {step:,} rows", "delta-rs", rounds({"delta-rs": theirs, "ours (fsync, exactly once, merged)": ours}, 4*n))
    show("three columns of an old version", "delta-rs", rounds({"delta-rs": lambda r: timed(lambda: DeltaTable(folder/"delta", version=1).to_pandas(columns=three)),
        "ours": lambda r: timed(lambda: dataset.read("ours", version=1, columns=three))}, n))
    last = df.assign(round=-2)
    dataset.commit(last, "ours")
    show("the same again", "ours: nothing to write", rounds({"ours: nothing to write": lambda r: timed(lambda: dataset.commit(last, "ours"))}, n))

def many(folder, n=1000):
    "Small appends: the last hundred, and a read after them."
    import pandas as pd
    from deltalake import DeltaTable, write_deltalake
    import pyarrow as pa
    from mlops_nb.data import dataset
    df = pd.DataFrame({"a": range(10), "t": "text"})
    figures = {"delta-rs": [], "ours": []}
    for i in range(n):
        figures["delta-rs"].append(timed(lambda: write_deltalake(folder/"small", pa.Table.from_pandas(df, preserve_index=False), mode="append")))
        figures["ours"].append(timed(lambda: dataset.append(df, "small")))
    show(f"the last 100 of {n} small appends, each", "delta-rs", {k: statistics.median(v[-100:]) for k, v in figures.items()})
    show("reading all of it", "delta-rs", rounds({"delta-rs": lambda r: timed(lambda: DeltaTable(folder/"small").to_pandas()), "ours": lambda r: timed(lambda: dataset.read("small"))}, 7))

def main():
    from mlops_nb.core.config import settings_for
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}; medians of {ROUNDS} rounds")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as tmp, settings_for(tmp):
        if SIZE != "only big":
            compare(Path(tmp), flights(), ROUNDS, "dvc" not in os.environ.get("WITHOUT", ""))
            many(Path(tmp))
        if SIZE in ("big", "only big"):
            (Path(tmp)/"big").mkdir()
            with settings_for(Path(tmp)/"big"): compare(Path(tmp)/"big", big(), min(ROUNDS, 3), False)
    print(f"load {os.getloadavg()[0]:.1f}")

if __name__ == "__main__": main()
