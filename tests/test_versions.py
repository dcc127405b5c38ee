"Versions that survive kills, races, full disks and damaged files; frames that come back exactly; names for versions; data sets of other projects."
import datetime as dt, decimal, json, os, random, shutil, signal, subprocess, sys, time
from pathlib import Path

import numpy as np, pandas as pd, pytest

from conftest import write_notebook
from mlops_nb.core import ledger, table, upkeep
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput, MlopsError
from mlops_nb.data import arrow, catalogue, dataset, versions

KILLS = int(os.environ.get("TEST_KILLS", "12"))   # 200 for the long form

# --- writers that are killed ---

# Each writer appends its batches in order, again from the first one it does not know to be there, and acknowledges what was accepted
WRITER = """
import os, sys, pandas as pd
from pathlib import Path
from mlops_nb.data import dataset
who, rows, batches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
told = Path(f"told-{who}")
done = told.read_text().split() if told.exists() else []
(Path(f"ready-{who}")).touch()
with open(told, "a") as f:
    for b in range(len(done), batches):
        dataset.append(pd.DataFrame({"who": who, "batch": b, "n": range(rows), "text": "x"*20}), "things", batch=f"{who}-{b}")
        print(b, file=f, flush=True)
"""

def writer(folder, who, rows=50, batches=100_000):
    return subprocess.Popen([sys.executable, "-P", "-c", WRITER, who, str(rows), str(batches)], cwd=folder, env={**os.environ, "MLOPS_NB_LOCK_TIMEOUT": "60"}, start_new_session=True, stderr=subprocess.PIPE)

def whole(folder, rows=50):
    "Every version can be read, and the newest holds each batch once, whole, up to the last one that anybody was told."
    newest = dataset.latest("things")
    if newest is None: return 0
    df = dataset.read("things")
    for who in "ab":
        mine, told = df[df.who == who], (Path(folder)/f"told-{who}").read_text().split() if (Path(folder)/f"told-{who}").exists() else []
        counts = mine.groupby("batch").n.agg(["size", "nunique"])
        assert (counts == rows).all().all(), "a batch is there twice, or in part"
        assert list(counts.index) == list(range(len(counts))) and len(told) <= len(counts) <= len(told) + 1, (len(told), len(counts))
    return newest

def test_kills_of_two_writers(small):
    "kill -9 at random moments of two writers at once: nothing acknowledged is lost, nothing is there twice."
    rng = random.Random(5)
    running = {who: writer(small, who) for who in "ab"}
    try:
        for _ in range(KILLS):
            who = rng.choice("ab")
            end = time.monotonic() + 60
            while not (small/f"ready-{who}").exists():
                assert running[who].poll() is None and time.monotonic() < end, running[who].stderr.read()
                time.sleep(.01)
            time.sleep(rng.random()*.3)
            assert running[who].poll() is None, running[who].stderr.read().decode()[-2000:]
            os.killpg(running[who].pid, signal.SIGKILL)
            running[who].wait()
            (small/f"ready-{who}").unlink(missing_ok=True)
            running[who] = writer(small, who)
    finally:
        for p in running.values():
            os.killpg(p.pid, signal.SIGKILL)
            p.communicate()
    newest = whole(small)
    assert newest > KILLS
    before = 0
    for v in range(0, newest + 1, max(1, newest // 60)):
        rows = table.scan(table.table_url("things"), table.snapshot(table.table_url("things"), v).files, arrow.stored_schema(dataset._kept(table.snapshot(table.table_url("things"), v)))).to_table().num_rows
        assert rows == 50*(v + 1) and rows > before
        before = rows

def test_kills_of_a_commit(small):
    "A whole new version that is killed anywhere leaves the version before, and what it left behind goes."
    code = "import sys, numpy as np, pandas as pd\nfrom mlops_nb.data import dataset\nprint('ready', flush=True)\ni = int(sys.argv[1])\nwhile True:\n    i += 1\n    dataset.commit(pd.DataFrame({'a': np.full(200_000, i), 'b': np.arange(200_000.)}), 'big')\n    print(i, flush=True)"
    rng, told = random.Random(7), 0
    dataset.commit(pd.DataFrame({"a": np.full(200_000, 0), "b": np.arange(200_000.)}), "big")
    for _ in range(max(4, KILLS // 4)):
        p = subprocess.Popen([sys.executable, "-P", "-c", code, str(told)], stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert p.stdout.readline() == "ready\n"
        time.sleep(.1 + rng.random()*.4)
        os.killpg(p.pid, signal.SIGKILL)
        said = p.communicate()[0].split()
        told = int(said[-1]) if said else told
        df = dataset.read("big")
        assert len(df) == 200_000 and df.a.nunique() == 1 and told <= df.a.iloc[0] <= told + 1
        told = int(df.a.iloc[0])
    url = table.table_url("big")
    newest = table.snapshot(url).version
    for p in upkeep.unneeded(url, {newest}, 0): os.unlink(f"{url}/{p}")
    assert len(dataset.read("big")) == 200_000 and not [f for f in os.listdir(url) if f.startswith(".part")]

def test_two_projects_write_at_once(small, tmp_path):
    "Locks are a project's own; the log keeps two of them apart."
    code = "import sys, pandas as pd\nfrom mlops_nb.data import dataset\nfor i in range(15): dataset.append(pd.DataFrame({'who': [sys.argv[1]], 'i': [i]}), 'shared', batch=f'{sys.argv[1]}-{i}')"
    env = lambda who: {**os.environ, "MLOPS_NB_ROOT": str(tmp_path/who), "MLOPS_NB_WAREHOUSE": str(tmp_path/"both")}
    running = [subprocess.Popen([sys.executable, "-P", "-c", code, who], env=env(who)) for who in "ab"]
    assert [p.wait(120) for p in running] == [0, 0]
    with settings_for(small, warehouse=str(tmp_path/"both")):
        df = dataset.read("shared")
        assert len(df) == 30 and not df.duplicated().any() and dataset.latest("shared") == 29

def test_equal_rows_of_two_batches(small):
    "The same rows may come twice, as two batches; the same batch may not."
    df = pd.DataFrame({"a": [1, 2]})
    for batch in ("x", "y", "x", "y"): dataset.append(df, "things", batch=batch)
    assert sorted(dataset.read("things").a) == [1, 1, 2, 2] and dataset.latest("things") == 1

# --- frames ---

def frames(n, rng):
    t0 = np.datetime64("2013-01-01", "us")
    gaps = lambda values: [None if rng.random() < .2 else v for v in values]
    yield "categories", pd.DataFrame({"c": pd.Categorical(gaps(rng.choice(list("abc"), n)), list("zcba"), ordered=True), "d": pd.Categorical(gaps(rng.integers(0, 4, n).tolist()), [3, 2, 1, 0, 9])})
    yield "integers with gaps", pd.DataFrame({t: pd.array(gaps(rng.integers(0, 100, n).tolist()), t) for t in ("Int8", "UInt16", "Int32", "UInt64", "Int64")})
    yield "instants", pd.DataFrame({"ns": t0 + rng.integers(0, 10**12, n).astype("timedelta64[us]").astype("timedelta64[ns]"), "zone": pd.Series(pd.to_datetime(rng.integers(0, 2*10**9, n), unit="s", utc=True)).dt.tz_convert("Asia/Kolkata"), "fixed": pd.Series(pd.to_datetime(rng.integers(0, 2*10**9, n), unit="s", utc=True)).dt.tz_convert("+02:00")})
    yield "days and amounts", pd.DataFrame({"day": gaps([dt.date(1900 + int(i), 1, 1) for i in rng.integers(1, 200, n)]), "amount": gaps([decimal.Decimal(int(i)).scaleb(-2) for i in rng.integers(-10**6, 10**6, n)])})
    yield "text", pd.DataFrame({"t": gaps(rng.choice(["", "ä", "\U0001f6eb", "<script>alert(1)</script>", "'; DROP TABLE x; --", "\n", "NULL"], n)), "s": pd.array(gaps(rng.choice(["a", ""], n)), "string")})
    yield "floats", pd.DataFrame({"f": rng.choice([0., -0., np.inf, -np.inf, np.nan, 1e-320, 1/3], n), "g": rng.random(n).astype("float32"), "b": rng.random(n) < .5, "empty": [None]*n})
    yield "hostile names", pd.DataFrame({name: range(n) for name in ('"; DROP TABLE x; --', "<script>alert(1)</script>", "a b,c;{}()\n\t=", "", "ä", "..", "%20", "'", "part-0")})

@pytest.mark.parametrize("seed", range(3))
def test_frames_come_back(small, seed):
    rng = np.random.default_rng(seed)
    for what, df in frames(50 if seed else 3, rng):
        name = what.replace(" ", "_")
        v = dataset.commit(df, name)
        back = dataset.read(name)
        pd.testing.assert_frame_equal(back, df, check_exact=True, obj=what)
        assert dataset.commit(back, name) == dataset.commit(df, name) == v, f"{what}: the same again is no new version"
        dataset.append(df, name)
        twice = dataset.read(name)
        assert twice.dtypes.equals(df.dtypes) and len(twice) == 2*len(df), what
        for c in df.columns: assert list(dataset.read(name, columns=[c]).columns) == [c]

def test_other_readers_understand_it(small):
    "It is a plain Delta table: delta-rs reads the same values."
    from deltalake import DeltaTable
    df = pd.DataFrame({"c": pd.Categorical(["a", None, "b"], ["b", "a"]), "i": pd.array([1, None, 3], "Int64"), "t": pd.to_datetime(["2013-01-01"]*3), "z": pd.to_datetime(["2013-01-01"]*3, utc=True), "x": [None]*3})
    dataset.commit(df, "things")
    for i in range(30): dataset.append(df, "things")
    got = DeltaTable(table.table_url("things")).to_pandas()
    assert len(got) == 93 and list(got.c.dropna().unique()) == ["a", "b"] and got.i.sum() == 4*31 and got.x.isna().all()
    assert len(DeltaTable(table.table_url("things"), version=3).to_pandas()) == 12

def test_a_table_that_others_wrote(small):
    "delta-rs wrote it; we read it, add to it, and its versions stay."
    from deltalake import write_deltalake
    df = pd.DataFrame({"a": [1, 2], "c": ["x", "y"]})
    for mode in ("overwrite", "append"): write_deltalake(table.table_url("foreign"), df, mode=mode)
    assert len(dataset.read("foreign")) == 4 and list(dataset.read("foreign", where=[("c", "==", "x")]).a) == [1, 1]
    assert dataset.append(df.assign(when=pd.Timestamp("2013-01-01")), "foreign") == 2
    assert len(dataset.read("foreign")) == 6 and len(dataset.read("foreign", version=0)) == 2 and dataset.read("foreign").when.notna().sum() == 2

def test_many_small_appends(small):
    for i in range(60): dataset.append(pd.DataFrame({"i": [i], "c": pd.Categorical([f"c{i}"])}), "many")
    found = dataset.find("many").snapshot
    assert len(found.files) < table.MANY and list(dataset.read("many").i) == list(range(60)) and list(dataset.read("many", version=7).i) == list(range(8))
    assert list(dataset.read("many").c.cat.categories) == [f"c{i}" for i in range(60)]

# --- damage ---

def test_a_damaged_file_is_an_error(small):
    dataset.commit(pd.DataFrame({"a": np.arange(100_000)}), "things")
    path = Path(dataset.find("things").snapshot.paths[0])
    data = bytearray(path.read_bytes())
    data[len(data)//3] ^= 0xff
    path.write_bytes(data)
    with pytest.raises(MlopsError, match="damaged"): dataset.read("things")
    path.unlink()
    with pytest.raises(BadInput, match="vacuumed"): dataset.read("things")

def test_a_torn_checkpoint(small):
    "A power cut may tear the summary of the log; the log itself is whole, and is read."
    for i in range(25): dataset.append(pd.DataFrame({"a": [i]}), "things")
    [torn] = Path(table.table_url("things")).glob("_delta_log/*.checkpoint*.parquet")
    torn.write_bytes(torn.read_bytes()[:100])
    assert list(dataset.read("things").a) == list(range(25)) and dataset.append(pd.DataFrame({"a": [25]}), "things") == 25

def test_what_is_acknowledged_is_on_the_disk(small, monkeypatch):
    "Each Parquet file, the log entry and the folders were synced before the call returned."
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.readlink(f"/proc/self/fd/{handle}")), real(handle))[1])
    dataset.commit(pd.DataFrame({"a": [1]}), "things")
    url = table.table_url("things")
    assert {url, f"{url}/_delta_log"} <= set(synced) and any("/.part-" in p for p in synced) and any(".tmp" in p for p in synced)

# --- versions that are needed ---

def test_vacuum_keeps_what_is_needed(small, monkeypatch):
    for i in range(6): dataset.commit(pd.DataFrame({"a": [i]}), "things")
    dataset.read("things", version=1)
    versions.tag("things", "audit", 3)
    monkeypatch.setattr(versions.upkeep, "unneeded", lambda url, keep, age=0, real=upkeep.unneeded: real(url, keep, 0))
    before = versions.vacuum("things", days=0, keep=1)
    assert {f.subject: f.value for f in before if f.check == "version"} == {f"things v{i}": "stays" if i in (1, 3, 5) else "goes" for i in range(6)}
    assert len(dataset.find("things", 0).snapshot.files) == 1 and dataset.read("things", version=0).a[0] == 0   # only told so far; and now version 0 is needed too
    versions.vacuum("things", days=0, keep=1, dry_run=False)
    assert [dataset.read("things", version=v).a[0] for v in (0, 1, 3, 5)] == [0, 1, 3, 5]
    with pytest.raises(BadInput, match="vacuumed"): dataset.read("things", version=2)
    with pytest.raises(BadInput, match="vacuumed"): versions.rollback("things", 4)

def moved(path):
    from mlops_nb.run import changes
    return [why for why in changes.stale(path, {}) if "things" in why]

def test_the_same_again_is_no_news_for_the_pipeline(small):
    from mlops_nb.run import notebook
    dataset.commit(pd.DataFrame({"a": [1]}), "things")
    versions.tag("things", "gold")
    path = write_notebook(small/"reads.ipynb", "from mlops_nb.data import dataset\ndataset.read('things'); dataset.read('things@gold')")
    assert notebook.run(path).state == "done" and moved(path) == []
    dataset.commit(pd.DataFrame({"a": [1]}), "things")
    assert moved(path) == []
    dataset.commit(pd.DataFrame({"a": [2]}), "things")
    assert moved(path) == ["dataset things was 0 and is 1"]
    assert notebook.run(path).state == "done" and moved(path) == []
    versions.tag("things", "gold", 1, move=True)
    assert moved(path) == ["tag things@gold was 0 and is 1"]
    notebook.wait_for_pages()

def test_diff_counts_and_cells(small):
    old = pd.DataFrame({"id": range(1000), "x": np.arange(1000.), "c": pd.Categorical(["a", "b"]*500), "l": [[1, 2]]*1000})
    new = old.copy()
    new.loc[5, "x"], new.loc[6, "x"], new.loc[7, "c"] = -1., np.nan, "b" if old.c[7] == "a" else "a"
    dataset.commit(old, "things")
    dataset.commit(pd.concat([new.drop(index=[0]), old.tail(2).assign(id=[2000, 2001])], ignore_index=True), "things")
    d = versions.diff("things", 0, key="id")
    assert (list(d.added.id), list(d.removed.id), sorted(d.changed.id), d.columns) == ([2000, 2001], [0], [5, 6, 7], [])
    assert {(r.id, r.column) for r in d.cells.itertuples()} == {(5, "x"), (6, "x"), (7, "c")}
    with pytest.raises(BadInput, match="key column 'idd'.*'id'"): versions.diff("things", 0, key="idd")
    with pytest.raises(BadInput, match="no version 9"): versions.diff("things", 9)

@pytest.mark.parametrize("name", ["../x", "a/b", "", "x"*300, "fl\u0456ghts", "a:b:c", "@v1", "a@", "a@v1@v2", "weather:../x", "x:y@v99999999999999999999999", "a@../b", ":", "a:"])
def test_names(small, name):
    dataset.commit(pd.DataFrame({"a": [1]}), "a")
    with pytest.raises(BadInput): dataset.read(name)
    with pytest.raises(BadInput): catalogue.entry(name)
    with pytest.raises(BadInput): versions.tag("a", name or "..")

# --- one file ---

@pytest.fixture
def packed(small, tmp_path):
    df = pd.DataFrame({"a": [1, 2], "c": pd.Categorical(["x", None], ["y", "x"])})
    df.attrs["personal"] = {"c": "name"}
    dataset.commit(df, "things")
    catalogue.export_file("things", tmp_path/"things.zip")
    return tmp_path/"things.zip"

def test_a_damaged_or_hostile_export(packed, tmp_path):
    import zipfile
    whole = packed.read_bytes()
    rng = random.Random(3)
    for i in range(60):
        data = bytearray(whole)
        if i % 3 == 0: data = data[:rng.randrange(len(data))]
        else: data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path/"bad.zip").write_bytes(data)
        try: catalogue.import_file(tmp_path/"bad.zip", "copy")
        except BadInput: continue
        pd.testing.assert_frame_equal(dataset.read("copy"), dataset.read("things"))   # the bit was of no account
    with zipfile.ZipFile(packed) as z: members = {n: z.read(n) for n in z.namelist()}
    manifest = json.loads(members["manifest.json"])
    manifest["files"][0]["path"] = "../../evil.parquet"
    with zipfile.ZipFile(tmp_path/"evil.zip", "w") as z:
        for n, data in {**members, "manifest.json": json.dumps(manifest).encode(), "../../evil.parquet": b"x"}.items(): z.writestr(n, data)
    with pytest.raises(BadInput): catalogue.import_file(tmp_path/"evil.zip", "evil")
    assert not list(tmp_path.parent.glob("evil.parquet")) and dataset.latest("evil") is None
