"A team on three URLs: the same pipeline, twenty people at once, servers that go away in the middle."
import json, os, random, shutil, subprocess, sys, threading, time
from collections import Counter

import pandas as pd
import pytest

from conftest import ROOT, cli, write_notebook, write_settings
from mlops_nb.core import database, ledger
from mlops_nb.data import dataset
from mlops_nb.label import log, queue
from servers import MLflow, Outage, pg, s3

@pytest.fixture(scope="module")
def servers_(pg, s3):
    place = s3.bucket(f"team{os.getpid()}")
    server = MLflow(pg.make("mlflow"), f"{place}/mlflow", s3.settings)
    yield pg, s3, server, place
    server.end()

@pytest.fixture
def team(servers_, project, monkeypatch):
    "A project of the repository's own workflows, with the URLs of a team."
    pg, s3, server, place = servers_
    urls = dict(MLOPS_NB_DATABASE=pg.make("team"), MLOPS_NB_WAREHOUSE=f"{place}/{project.parent.name}/warehouse", MLOPS_NB_REPORTS=f"{place}/{project.parent.name}/reports", MLOPS_NB_TRACKING_URI=server.url)
    for k, v in {**s3.settings, **urls, "MLOPS_NB_LOCK_TIMEOUT": "60"}.items(): monkeypatch.setenv(k, v)
    yield project
    ledger.close()

STAGES = dict(ingest="", label="ingest", train="label", score="train", monitor="score", retrain="monitor")

def test_the_pipeline_runs_with_three_urls_changed_and_nothing_else(team):
    "Ingest, label, train, score, monitor and retrain on flights of January and a bit; a second time nothing is done."
    from configparser import ConfigParser
    ini = ConfigParser(interpolation=None)
    ini.read(team/"settings.ini")
    ini["pipeline"] = STAGES
    with open(team/"settings.ini", "w") as f: ini.write(f)
    known = ["-p", "as_of=2013-02-01", "-p", "history_until=2013-01-25"]
    for path in (team/"nbs/workflows").glob("ingest.ipynb"): path.write_text(path.read_text().replace("2013-05-01", "2013-02-01").replace("2013-04-01", "2013-01-25"))
    for stage in ("ingest", "label", "train"):
        done = cli("run", stage)
        assert done.returncode == 0, done.stdout + done.stderr
    assert cli("promote", "late_flights", "1", "--reason", "first", "--force").returncode == 0
    for _ in range(2):
        done = cli("run", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
    assert {r["state"] for r in json.loads(done.stdout)} == {"skipped"}
    assert {"flights", "flight_labels"} <= set(dataset.names())
    assert not any((team/".mlops"/n).exists() for n in ("mlops.db", "mlflow.db", "warehouse")) and not (team/"reports").exists()
    assert ledger.lineage("model", "late_flights") and cli("models", "late_flights").returncode == 0

WORK = """
import json, os, random, sys, traceback
import mlflow.sklearn, pandas as pd
from sklearn.linear_model import LogisticRegression
from mlops_nb.core import ledger, store
from mlops_nb.data import dataset
from mlops_nb.label import log, queue
from mlops_nb.registry import models
def work(me, what):
    random.seed(me)
    if what == "label":
        while got := queue.take("t", me, 2):
            for i in got: queue.answer(log.Event("t", i.item, "late", annotator=me))
    elif what == "score":
        for n in range(5): dataset.append(pd.DataFrame({"id": [f"{me}-{n}"]}), "scores", batch=f"{me}-{n}")
    elif what == "promote":
        for n in range(3): models.promote("m", random.choice([1, 2, 3]), f"{me} {n}")
    elif what == "train":
        frame = pd.DataFrame({"x": [0., 1, 2, 3]*5})
        models.register(LogisticRegression().fit(frame, [0, 0, 1, 1]*5), "m", frame[:3], {"by": me}, {"auc": .5})
people = []
for me, what, root in json.loads(sys.argv[1]):   # a process each, from one that has imported what twenty would import
    people.append(os.fork())
    if people[-1]: continue
    os.environ["MLOPS_NB_ROOT"] = root
    try: work(me, what)
    except BaseException: traceback.print_exc()
    else: os._exit(0)
    finally: os._exit(1)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in people]))
"""

def test_twenty_at_once_lose_nothing_and_wait_for_nobody_for_ever(team, tmp_path_factory):
    "Ten label, five score, three promote, two train; every one on a machine of its own."
    from sklearn.linear_model import LogisticRegression
    from mlops_nb.registry import models
    frame = pd.DataFrame({"x": [0., 1, 2, 3]*5})
    for n in range(3): models.register(LogisticRegression().fit(frame, [0, 0, 1, 1]*5), "m", frame[:3], {"n": n}, {"auc": .5})
    queue.create("t", pd.DataFrame({"id": [f"i{i}" for i in range(60)], "text": "x"}), key="id", classes=["late", "fine"], kind="text", overlap=2)
    people = [(f"p{i}", role, str(tmp_path_factory.mktemp("machine"))) for i, role in enumerate(["label"]*10 + ["score"]*5 + ["promote"]*3 + ["train"]*2)]
    done = subprocess.run([sys.executable, "-P", "-c", WORK, json.dumps(people)], capture_output=True, text=True, timeout=540)
    assert json.loads(done.stdout.splitlines()[-1]) == [0]*20, done.stderr[-3000:]
    answers = log.events("t")
    assert len(answers) == 120 and set(Counter(answers["item"]).values()) == {2} and not answers.duplicated(["item", "annotator"]).any()
    assert sorted(dataset.read("scores").id) == sorted(f"p{i}-{n}" for i in range(10, 15) for n in range(5))
    moved = [d for d in ledger.events("promote", "m").detail]
    assert len(moved) == 9 and all(a["version"] == b["before"] for a, b in zip(moved, moved[1:])), "a promotion did not see the one before"
    assert models.in_charge("m") == moved[-1]["version"] == int(models.tracking().get_model_version_by_alias("m", "champion").version)
    assert sorted(models.versions("m")) == [1, 2, 3, 4, 5] == sorted(ledger.events("register", "m").detail.map(lambda d: d["version"]))

OUTAGES = int(os.environ.get("TEAM_OUTAGES", 3))   # of the store; with every other one the database is restarted
STEP = ["import pandas as pd, time\nfrom mlops_nb.core import ledger\nfrom mlops_nb.data import dataset", "for n in range(%d):\n    dataset.append(pd.DataFrame({'id': [f'{name}-{n}']}), name, batch=str(n))\n    ledger.event('step', name, n=n)\n    time.sleep(.05)" % (5*OUTAGES)]

def test_a_pipeline_goes_through_restarts_and_outages(team, servers_, monkeypatch):
    "Two stages while the line to the store is cut and the database is restarted; what did not end right is resumed by the same command."
    pg, s3, *_ = servers_
    line, over = Outage(s3.port), threading.Event()
    shutil.rmtree(team/"nbs/workflows")
    for name in ("one", "two"): write_notebook(team/f"nbs/workflows/{name}.ipynb", *STEP, parameters=f"name = '{name}'")
    write_settings(team, pipeline=dict(one="", two="one"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
    def trouble():
        for n in range(OUTAGES):
            if over.wait(1.5): return
            line.cut()
            if n % 2: pg.stop()
            over.wait(.7)
            if n % 2: pg.start()
            line.mend()
    cuts = threading.Thread(target=trouble)
    cuts.start()
    try:
        codes = []
        while not codes or codes[-1]:
            codes.append((done := cli("run", "--retries", "2")).returncode)
            assert len(codes) < 3 + OUTAGES, done.stdout + done.stderr
    finally:
        over.set()
        cuts.join()
    for name in ("one", "two"): assert sorted(dataset.read(name).id, key=lambda i: int(i.split("-")[1])) == [f"{name}-{n}" for n in range(5*OUTAGES)]
    assert [cli("run", "--json").returncode, {r["state"] for r in json.loads(cli("run", "--json").stdout)}] == [0, {"skipped"}]
    left = ledger.runs(state="running")
    assert left[left.pid != os.getpid()].empty   # this process reads, and is a run itself
    line.end()

def test_a_person_is_erased_from_what_the_servers_keep(team, servers_):
    "A report in the bucket; text, zip, gzip and table of a run behind the tracking server; its pickle and the model's own files are listed."
    import gzip, io, pickle, tempfile, zipfile
    from pathlib import Path
    from mlflow.artifacts import load_text
    from sklearn.linear_model import LogisticRegression
    from mlops_nb.core import store
    from mlops_nb.core.distant import file_system
    from mlops_nb.govern import erase
    from mlops_nb.registry import models
    who, frame = "cust-0007", pd.DataFrame({"x": [0., 1, 2, 3]})
    dataset.commit(pd.DataFrame(dict(customer=[who, "cust-0008"], x=1.)), "people")
    models.register(LogisticRegression().fit(frame, [0, 1, 0, 1]), "late", frame, {}, {"auc": .7})
    detail = json.loads(database.rows("event", action="register")[-1]["detail"])
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as z: z.writestr("notes/a.txt", f"{who} and cust-0008")
    with tempfile.TemporaryDirectory() as tmp:
        seen = {"page.html": f"<p>{who}</p>".encode(), "all.zip": packed.getvalue(), "rows.csv.gz": gzip.compress(f"id\n{who}\n".encode()), "rows.parquet": pd.DataFrame(dict(customer=[who, "cust-0008"])).to_parquet(), "rows.pkl": pickle.dumps([who])}
        for name, data in seen.items(): Path(tmp, name).write_bytes(data)
        models.tracking().log_artifacts(detail["mlflow_run"], tmp, "seen")
        Path(tmp, "example.json").write_text(who)
        models.tracking().log_model_artifact(detail["model"].rpartition("/")[2], f"{tmp}/example.json")
    report = store.write_text(store.report_path("cards", "late.html"), f"<p>{who} complained</p>")
    places, _ = erase.erase(who, "customer", dry_run=False)
    assert sorted((p.kind, p.name.rpartition("/")[2]) for p in places) == [("artifact", n) for n in sorted([*seen, "example.json"])] + [("dataset", "people"), ("report", "late.html")]
    left = {p.name.rpartition("/")[2]: p for p in erase.find(who, "customer")}
    assert {*left} == {"example.json", "rows.pkl"} and not any(p.erased for p in left.values()) and "part of late version 1" in left["example.json"].note
    fs, below = file_system(f"{servers_[3]}/mlflow")
    got = {n: fs.cat_file(next(p for p in fs.find(below) if p.endswith(f"seen/{n}"))) for n in ("rows.csv.gz", "rows.parquet", "rows.pkl")}
    assert gzip.decompress(got["rows.csv.gz"]) == b"id\n[erased]\n" and pd.read_parquet(io.BytesIO(got["rows.parquet"])).customer.tolist() == ["cust-0008"] and got["rows.pkl"] == seen["rows.pkl"]
    subprocess.run(left["rows.pkl"].note.partition("delete it: ")[2].replace("python", sys.executable, 1), shell=True, check=True, cwd=team)
    assert [p.name.rpartition("/")[2] for p in erase.find(who, "customer")] == ["example.json"]
    assert load_text(f"runs:/{detail['mlflow_run']}/seen/page.html") == "<p>[erased]</p>" and "[erased] complained" in store.read_text(report) and dataset.read("people").customer.tolist() == ["cust-0008"]
