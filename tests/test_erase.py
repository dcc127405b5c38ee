"A person's rows are gone from every file that a project leaves; killed half way it goes on; the trail stays whole and does not name them."
import json, os, signal, subprocess, sys
from pathlib import Path

import numpy as np, pandas as pd, pytest

from conftest import MAIN
from mlops_nb.core import database, ledger, store, table
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput
from mlops_nb.data import dataset, versions
from mlops_nb.govern import audit, erase
from mlops_nb.label import log, queue
from mlops_nb.serve import capture

N, WHO = 600, "cust-0007"


def customers(offset=0):
    "A made-up table of bookings: forty customers."
    rng = np.random.default_rng(offset)
    who = [f"cust-{i % 40:04}" for i in range(N)]
    df = pd.DataFrame(dict(customer=who, name=pd.Categorical([f"Person {w[-2:]}" for w in who]), mail=[f"{w}@example.org" for w in who], booking=[f"b{offset}-{i:05}" for i in range(N)], price=rng.gamma(2, 90, N).round(2)))
    df.attrs["personal"] = {"customer": "other", "name": "name", "mail": "e-mail"}
    return df


@pytest.fixture
def project(tmp_path):
    with settings_for(tmp_path):
        for i in range(4): (dataset.append if i else dataset.commit)(customers(i), "bookings")
        dataset.commit(customers(0).head(100), "bookings", note="only a few now")
        versions.tag("bookings", "audit-2013", 2)
        df = customers(0)
        run = os.environ["MLOPS_NB_RUN"] = ledger.start_run("nbs/train.ipynb")
        dataset.read("bookings", version=2), ledger.wrote("model", "churn", 1), ledger.wrote("alias", "churn@champion", 1)
        ledger.end_run(os.environ.pop("MLOPS_NB_RUN"), "done")
        queue.create("mood", df.head(80), key="booking", classes=["good", "bad"], show=["price"])
        log.append(*[log.Event("mood", b, "good", annotator="ana") for b in df.booking.head(80)])
        log.publish("mood", "moods")
        capture.log(df[["booking", "price"]].assign(when=pd.Timestamp("2013-01-01")), np.linspace(0, 1, N), "churn", 1, "booking", "when")
        store.write_text(store.report_path("cards", "churn.html"), f"<p>{WHO}@example.org complained</p>")
        folder = tmp_path/".mlops/undecided/run1"
        folder.mkdir(parents=True)
        df.to_parquet(folder/"holdout.parquet"), np.save(folder/"scores.npy", np.arange(N)), (folder/"contest.json").write_text("{}")
        yield tmp_path
        ledger.close()


def _unpacked(pq, path):
    "Rows, and what the dictionaries of Arrow remember besides."
    coded = pq.read_table(path, read_dictionary=[c for c in pq.read_schema(path).names if c == "name"])
    return json.dumps(coded.to_pylist(), default=str).encode() + str([c.dictionary.to_pylist() for k in coded.columns for c in k.chunks if hasattr(c, "dictionary")]).encode()


def leaves(root):
    "Files that still hold the person, Parquet files unpacked."
    import pyarrow.parquet as pq
    found = []
    for p in root.rglob("*"):
        if not p.is_file() or p.suffix in (".db-wal", ".db-shm"): continue
        data = p.read_bytes() if p.suffix != ".parquet" else _unpacked(pq, p)
        if WHO.encode() in data or b"Person 07" in data: found.append(str(p.relative_to(root)))
    return found


def test_every_place_is_found_and_emptied(project):
    before = leaves(project)
    assert any("bookings" in p for p in before) and any("undecided" in p for p in before) and "reports/cards/churn.html" in before
    places, models = erase.erase(WHO, "customer", through=["booking"])
    assert {p.kind for p in places} == {"dataset", "labels", "report", "undecided"} and {p.name for p in places if p.kind == "dataset"} == {"bookings", "moods", "predictions"}
    assert [(m["model"], m["version"], m["in_charge"]) for m in models] == [("churn", "1", True)] and leaves(project) == before   # so far only told
    bookings = next(p for p in places if p.name == "bookings")
    assert bookings.versions == (0, 1, 2, 3, 4)
    erase.erase(WHO, "customer", through=["booking"], reason="request 17", dry_run=False)
    ledger.close()
    assert leaves(project) == [] and erase.find(WHO, "customer") == []


def test_what_others_have_stays(project):
    was = {v: dataset.read("bookings", version=v) for v in range(5)}
    erase.erase(WHO, "customer", through=["booking"], dry_run=False)
    for v, df in was.items():
        now, rest = dataset.read("bookings", version=v), df[df.customer != WHO].reset_index(drop=True)
        assert (now.drop(columns="name") == rest.drop(columns="name")).all().all() and (now.name.astype(str) == rest.name.astype(str)).all() and "Person 07" not in now.name.cat.categories and now.attrs["personal"] == df.attrs["personal"]
    assert versions.tags("bookings").version.tolist() == [2] and versions.diff("bookings", 0, 1).removed.empty
    mine = set(customers(0).query("customer == @WHO").booking)
    assert len(queue.progress("mood").people) == 1 and queue.progress("mood").total == queue.progress("mood").done == 80 - 2 and not mine & set(log.labels("mood").item)
    from deltalake import DeltaTable
    assert DeltaTable(table.table_url("bookings"), version=3).to_pyarrow_table().num_rows == 4*N*39//40   # others read it as well
    assert dataset.append(customers(9), "bookings") == 5 and versions.rollback("bookings", 3) == 6
    assert len(np.load(project/".mlops/undecided/run1/scores.npy")) == len(pd.read_parquet(project/".mlops/undecided/run1/holdout.parquet")) == N*39//40


def test_the_trail_is_whole_and_names_nobody(project):
    erase.erase(WHO, "customer", through=["booking"], reason="request 17", dry_run=False)
    assert audit.ok(audit.verify()), [f for f in audit.verify() if not f.ok]
    begun, done = audit.entries(action="erase")
    assert begun["detail"]["dataset"]["bookings"]["versions"] == [0, 1, 2, 3, 4] and done["detail"]["left"] == {} and WHO not in json.dumps(audit.entries())
    with pytest.raises(BadInput, match="names the person"): erase.erase("cust-0008", "customer", reason="for cust-0008", dry_run=False)
    database.write("DELETE FROM label_event WHERE no = (SELECT max(no) FROM label_event)", {})
    assert not audit.ok(audit.verify())   # an answer that goes without a request is still seen


KILLED = """
import os, sys
from mlops_nb.data import rewrite
steps, plain = [0], rewrite._put
def put(fs, path, data):
    steps[0] += 1
    if steps[0] == int(sys.argv[1]): os.kill(os.getpid(), 9)
    plain(fs, path, data)
rewrite._put = put
from mlops_nb.govern import erase
erase.erase("cust-0007", "customer", through=["booking"], dry_run=False)
"""


@pytest.mark.parametrize("step", [2, 5, 6, 8, 13])
def test_killed_it_goes_on(project, step):
    was = {v: len(dataset.read("bookings", version=v)) for v in range(5)}
    ledger.close()
    assert subprocess.run([sys.executable, "-c", KILLED, str(step)], timeout=240, capture_output=True).returncode == -signal.SIGKILL
    assert leaves(project)
    erase.erase(WHO, "customer", through=["booking"], dry_run=False)
    ledger.close()
    assert leaves(project) == [] and {v: len(dataset.read("bookings", version=v)) for v in range(5)} == {v: n - sum(customers(i).head(n if v == 4 else N).customer.eq(WHO).sum() for i in range(1 if v == 4 else v + 1)) for v, n in was.items()}
    assert audit.ok(audit.verify())


def test_pseudonyms_are_found_with_the_key(project, monkeypatch):
    from mlops_nb.data import privacy
    monkeypatch.setenv("MLOPS_NB_HASH_SECRET", "k"*32)
    dataset.commit(privacy.hash(customers(0), "k"*32, ["customer"]), "coded")
    assert {p.name for p in erase.find(WHO, "customer") if p.kind == "dataset"} == {"bookings", "coded"}
    monkeypatch.delenv("MLOPS_NB_HASH_SECRET")
    assert {p.name for p in erase.find(WHO, "customer") if p.kind == "dataset"} == {"bookings"}


def test_numbers_are_found_as_written(project):
    dataset.commit(pd.DataFrame(dict(account=[17, 18, 19], x=1)), "accounts")
    dataset.commit(pd.DataFrame(dict(account=[17., 18., None], x=1)), "floats")
    places, _ = erase.erase(17, "account", dry_run=False)
    assert [p.name for p in places] == ["accounts", "floats"] and dataset.read("accounts").account.tolist() == [18, 19] and len(dataset.read("floats")) == 2


def test_command_line(project):
    def says(*words):
        done = subprocess.run([*MAIN, "erase", *words], capture_output=True, text=True, env={**os.environ, "MLOPS_NB_WARM": "0"}, timeout=240)
        return done.returncode, done.stdout, done.stderr
    ledger.close()
    code, out, err = says(WHO, "--key", "customer", "--through", "booking", "--dry-run")
    assert code == 0 and "would be erased" in out and "0 to 4" in out and "nothing was changed" in err and "churn version 1 had learned from it and is in charge" in err
    code, out, err = says(WHO, "--key", "custmer")
    assert code == 2 and "did you mean 'customer'" in err
    assert says(WHO, "--key", "customer", "--through", "booking", "--yes")[0] == 0 and leaves(project) == []


def test_what_mlflow_keeps_of_a_run_is_rewritten_and_of_a_model_is_listed_with_the_command(project):
    from sklearn.linear_model import LogisticRegression
    from mlops_nb.registry import models
    x = pd.DataFrame(dict(price=[1., 2., 3., 4.]))
    models.register(LogisticRegression().fit(x, [0, 1, 0, 1]), "late", x, {}, {"roc_auc": .7})
    detail = json.loads(database.rows("event", action="register")[-1]["detail"])
    example, book = Path(models.files("late", 1))/"input_example.json", project/".mlops/artifacts/late"/detail["mlflow_run"]/"artifacts/notebook/train.ipynb"
    book.parent.mkdir(parents=True, exist_ok=True)
    for p in (example, book): p.write_text(json.dumps(dict(name=WHO)))
    places, _ = erase.erase(WHO, "customer", through=["booking"], dry_run=False)
    assert WHO not in book.read_text() and "[erased]" in book.read_text() and WHO in example.read_text()
    left, = [p for p in places if p.kind == "file"]
    assert not left.erased and "part of late version 1" in left.note and left.note.endswith(f"rm {left.name}") and (project/left.name).samefile(example)


def _of_a_run(project, name="late"):
    "A registered model, and the folder where MLflow keeps what its run wrote beside it."
    from sklearn.linear_model import LogisticRegression
    from mlops_nb.registry import models
    x = pd.DataFrame(dict(price=[1., 2., 3., 4.]))
    models.register(LogisticRegression().fit(x, [0, 1, 0, 1]), name, x, {}, {"roc_auc": .7})
    folder = project/".mlops/artifacts"/name/json.loads(database.rows("event", action="register")[-1]["detail"])["mlflow_run"]/"artifacts/seen"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_rows_leave_the_tables_of_a_run_whatever_they_are_packed_in(project):
    import gzip, io, lzma, tarfile
    import pyarrow as pa
    folder, df = _of_a_run(project), customers(0).head(80)
    others = df[df.customer != WHO].reset_index(drop=True)
    df.to_parquet(folder/"plain.parquet"), df.to_parquet(folder/"zstd.parquet", compression="zstd", row_group_size=7), df.rename(columns={"customer": "buyer"}).to_parquet(folder/"renamed.parquet")
    df.assign(note=[f"friend of {WHO}" if i == 3 else "" for i in range(80)], tags=[[WHO] if i == 5 else ["x"] for i in range(80)]).drop(columns=["mail"]).to_parquet(folder/"told.parquet")
    with lzma.open(folder/"rows.parquet.xz", "wb") as f: f.write((folder/"plain.parquet").read_bytes())
    np.savez_compressed(folder/"arrays.npz", who=df.customer.to_numpy("U"), price=df.price)
    with tarfile.open(folder/"all.tar.gz", "w:gz") as t: t.add(folder/"plain.parquet", "rows.parquet"), t.add(folder/"arrays.npz", "arrays.npz")
    (folder/"page.html.gz").write_bytes(gzip.compress(f"<p>{WHO}</p>".encode())), (folder/"excel.csv").write_bytes(f"id;é\n{WHO};1\n".encode("utf-16"))
    for how in ("zstd", "lz4"):
        with pa.output_stream(str(folder/f"rows.csv.{how}"), compression=how) as f: f.write(df.to_csv(index=False).encode())
    erase.erase(WHO, "customer", through=["booking"], dry_run=False)
    assert not [p for p in erase.find(WHO, "customer", through=["booking"]) if p.kind != "file"] and not [p for p in erase.find(WHO, "customer") if "seen" in p.name]
    for name in ("plain.parquet", "zstd.parquet", "renamed.parquet"):
        now = pd.read_parquet(folder/name)
        assert now.drop(columns="name").set_axis(others.columns.drop("name"), axis=1).equals(others.drop(columns="name")) and "Person 07" not in now.name.cat.categories and now.index.tolist() == [*others.index]
    told = pd.read_parquet(folder/"told.parquet")
    assert len(told) == len(others) - 1 and told.note.tolist()[:4] == ["", "", "", "friend of [erased]"]   # the row that mentions them in a list goes too
    assert pd.read_parquet(io.BytesIO(lzma.open(folder/"rows.parquet.xz").read())).equals(pd.read_parquet(folder/"plain.parquet"))
    arrays = np.load(folder/"arrays.npz")
    assert set(arrays["who"]) == {*others.customer, "[erased]"} and arrays["price"].tolist() == df.price.tolist()
    with tarfile.open(folder/"all.tar.gz") as t: assert pd.read_parquet(io.BytesIO(t.extractfile("rows.parquet").read())).equals(pd.read_parquet(folder/"plain.parquet")) and len(np.load(io.BytesIO(t.extractfile("arrays.npz").read()))["who"]) == 80
    for how in ("zstd", "lz4"): assert pd.read_csv(pa.input_stream(str(folder/f"rows.csv.{how}"), compression=how)).customer.tolist() == ["[erased]" if w == WHO else w for w in df.customer]
    assert (folder/"excel.csv").read_bytes().decode("utf-16") == "id;é\n[erased];1\n" and gzip.decompress((folder/"page.html.gz").read_bytes()) == b"<p>[erased]</p>"


def test_what_cannot_be_rewritten_is_listed_with_the_command(project):
    "A pickle is searched and never loaded; so is what has a length inside or a password; the commands that are told do away with it."
    import pickle, zipfile, joblib
    folder, df = _of_a_run(project), customers(0).head(80)
    class Bomb:
        def __reduce__(self): return Path.write_text, (project/"loaded", f"by {WHO}")
    (folder/"bomb.pkl").write_bytes(pickle.dumps([Bomb(), WHO])), df.to_pickle(folder/"rows.pkl.gz")
    for how in (0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)): joblib.dump(dict(rows=df.customer.to_numpy(object), words=df.customer.to_numpy("U")), folder/f"{'-'.join(map(str, [how] if isinstance(how, int) else how))}.joblib", compress=how)
    np.save(folder/"objects.npy", df.customer.to_numpy(object))
    with zipfile.ZipFile(folder/"mixed.zip", "w") as z: z.writestr("a.txt", WHO), z.write(folder/"bomb.pkl", "bomb.pkl")
    (folder/f"letter to {WHO}.txt").write_text("Dear friend")
    (folder/"rows.db").write_bytes(b"SQLite format 3\0" + WHO.encode())
    was = {p.name: p.read_bytes() for p in folder.iterdir()}
    places, _ = erase.erase(WHO, "customer", through=["booking"], dry_run=False)
    left = [p for p in places if not p.erased]
    assert {Path(p.name).name for p in left} == {*was} and all("cannot be rewritten" in p.note for p in left) and {p.name: p.read_bytes() for p in folder.iterdir()} == was and not (project/"loaded").exists()
    for p in left: subprocess.run(p.note.partition("delete it: ")[2], shell=True, check=True, cwd=project)
    assert [*folder.iterdir()] == [] and erase.find(WHO, "customer") == []


def test_names_are_found_as_pages_and_notebooks_spell_them(project):
    import html
    who = 'Zoë "Zo" O\'Hara & Sons'
    df = pd.DataFrame(dict(customer=[who, "Ann"], id=["z1", "a1"], price=[1., 2.]))
    dataset.commit(df, "guests"), queue.create("like", df, key="id", classes=["yes", "no"], show=["customer"])
    log.append(log.Event("like", "z1", "yes", annotator="ana"))
    for name, text in (("a.html", html.escape(who)), ("b.ipynb", json.dumps({"cells": [who]})), ("c.json", json.dumps([who], ensure_ascii=False)), ("d.txt", who)): store.write_text(store.report_path("guests", name), text)
    df.to_parquet(store.report_path("guests", "e.parquet"))
    places, _ = erase.erase(who, "customer", dry_run=False)
    assert sorted((p.kind, Path(p.name).name) for p in places) == [("dataset", "guests"), ("labels", "like"), *(("report", n) for n in ("a.html", "b.ipynb", "c.json", "d.txt", "e.parquet"))] and erase.find(who, "customer") == []
    assert json.loads(Path(store.report_path("guests", "b.ipynb")).read_text()) == {"cells": ["[erased]"]} and pd.read_parquet(store.report_path("guests", "e.parquet")).customer.tolist() == ["Ann"]


def test_short_numbers_are_found_in_the_column_that_names_them(project):
    dataset.commit(pd.DataFrame(dict(account=[17, 18], x=[1, 17])), "accounts")
    pd.DataFrame(dict(account=[17, 18, None], x=[17, 17, 18])).to_parquet(_of_a_run(project)/"rows.parquet")
    erase.erase(17, "account", dry_run=False)
    left = pd.read_parquet(next(project.rglob("seen/rows.parquet")))
    assert left.x.tolist() == [17, 18] and erase.find(17, "account") == []


PLANTED = r"person\d+@planted|Silvarossi|Quistova"


def test_personal_values_stay_in_the_warehouse(tmp_path):
    "Ingest, explore, label, card, dashboard, terminal: what a run leaves is searched for values of three personal columns, one of them in running text."
    import re
    from conftest import write_settings
    from mlops_nb.govern import cards, data_card
    from mlops_nb.pages import project as page
    rng = np.random.default_rng(0)
    first = "Ana Ben Emil Finn Hugo Ida Jon Maria David Laura".split()
    df = pd.DataFrame(dict(id=np.arange(300), name=[f"{f} {'Silvarossi' if i % 2 else 'Quistova'}" for i, f in enumerate(rng.choice(first, 300))], email=[f"person{i}@planted.example" for i in range(300)], spent=rng.gamma(2, 50, 300).round(2), churned=rng.integers(0, 2, 300)))
    df["notes"] = [f"please write to {e}" for e in df.email]
    source = tmp_path/"elsewhere"/"customers.csv"
    source.parent.mkdir()
    df.to_csv(source, index=False)
    root = tmp_path/"project"
    root.mkdir()
    write_settings(root, mlops_nb={"warm": "0"}, goal={"target": "churned", "metric": "roc_auc"})
    env = {**os.environ, "MLOPS_NB_ROOT": str(root)}
    told = [subprocess.run([*MAIN, *words], env=env, cwd=root, capture_output=True, text=True, timeout=400) for words in (["run", "ingest", "-p", f"source={source}", "-p", "key=id", "--html"],
            ["run", "explore", "-p", f"source={source}", "-p", "target=churned", "-p", "long_rows=0", "--html"], ["label", "mood", "--items", "customers", "--key", "id", "--classes", "good,bad"], ["label", "mood", "--export", str(tmp_path/"labels.csv")],
            ["status"], ["audit"], ["lineage", "customers"])]
    assert [t.returncode for t in told] == [0]*7, [t.stderr for t in told if t.returncode]
    assert not re.search(PLANTED, "".join(t.stdout + t.stderr for t in told))
    with settings_for(root):
        from mlops_nb.label.widget import label
        assert {"name", "email"} <= {*dataset.read("customers").attrs["personal"]}
        screens = [page.document(page.look()), str(label("mood").get_state()), cards.document(data_card.data_card("customers"))]
        assert not re.search(PLANTED, "".join(screens))
        ledger.close()
    where = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and ".mlops/warehouse" not in str(p) and re.search(PLANTED.encode(), p.read_bytes())]
    assert where == []
