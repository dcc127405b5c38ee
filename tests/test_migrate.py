"From embedded stores to servers: everything arrives, a move that is killed goes on, nothing is mixed with another project's."
import os, re, signal, sqlite3

import pandas as pd
import pytest

from conftest import cli, one_line
from mlops_nb.core import ledger
from mlops_nb.core.config import settings, settings_for
from mlops_nb.core.finding import BadInput, Busy
from mlops_nb.data import dataset, versions
from mlops_nb.label import log, queue
from mlops_nb.run import migrate
from servers import pg, s3

def live(folder, labels=40):
    "A little of everything a project keeps."
    frame = pd.DataFrame({"id": [f"i{i}" for i in range(labels)], "text": [f"flight {i} ü 'x'" for i in range(labels)]})
    dataset.commit(frame, "birds", note="first")
    dataset.append(frame.assign(id=frame.id + "b"), "birds", note="more")
    versions.tag("birds", "gold", 0)
    queue.create("t", frame, key="id", classes=["late", "fine"], kind="text")
    queue.answer(*(log.Event("t", f"i{i}", "late" if i % 3 else "fine", annotator=f"p{i % 2}", confidence=.1*(i % 7)) for i in range(labels - 5)))
    ledger.event("hello", "world", n=1)
    (folder/"reports").mkdir(exist_ok=True)
    (folder/"reports/a.html").write_text("<p>one</p>")

def seen():
    return log.events("t").astype(str).values.tolist(), dataset.read("birds").values.tolist(), dataset.read("birds", version=0).shape, sorted(versions.tags("birds")), ledger.events("hello").detail.tolist(), str(queue.progress("t"))

@pytest.fixture
def team(pg, s3, monkeypatch, tmp_path):
    for k, v in s3.settings.items(): monkeypatch.setenv(k, v)
    name = re.sub(r"\W", "", tmp_path.name.lower())[-40:] + str(os.getpid())
    return dict(database=pg.make(name), warehouse=f"{s3.bucket(name.replace('_', '-'))}/warehouse")

def test_everything_arrives(local, team):
    live(local)
    before = seen()
    ledger.close()
    (local/"settings.ini").write_text("# ours\n[mlops_nb]\nseed = 3   \ndatabase = sqlite:///.mlops/mlops.db\n\n[goal]\nmetric = auc\n")
    told = migrate.migrate(team["database"], team["warehouse"], dry_run=True)
    assert {r["state"] for r in told} == {"would move"} and "database = sqlite" in (local/"settings.ini").read_text()
    moved = {(r["store"], r["name"]): r for r in migrate.migrate(team["database"], team["warehouse"])}
    assert moved["ledger", "label_event"]["rows"] == 35 and settings().database == team["database"] and settings().warehouse == team["warehouse"]
    text = (local/"settings.ini").read_text()
    assert text.startswith("# ours\n[mlops_nb]\n") and "seed = 3" in text and "[goal]" in text and text.count("database =") == 1
    assert seen() == before
    ledger.event("after", "world")                       # the next numbers follow
    queue.answer(log.Event("t", "i36", "late", annotator="p9"))
    dataset.append(pd.DataFrame({"id": ["new"], "text": ["x"]}), "birds")
    assert ledger.events().no.is_unique and len(log.events("t")) == 36 and len(dataset.read("birds")) == 81
    with settings_for(local, database="sqlite:///.mlops/mlops.db"), pytest.raises(BadInput, match="was moved to postgresql"): ledger.events()
    with pytest.raises(BadInput, match="no store of this machine"): migrate.migrate(team["database"])

def test_not_into_another_projects_database(local, team, tmp_path_factory):
    live(local)
    with settings_for(tmp_path_factory.mktemp("other"), database=team["database"]):
        ledger.end_run(ledger.start_run("x.ipynb"), "done")
        ledger.close()
    with pytest.raises(BadInput, match="already holds 1 runs"): migrate.migrate(team["database"])
    assert settings().database.startswith("sqlite") and len(ledger.events("hello")) == 1

def test_killed_and_gone_on(local, team, started):
    live(local, 2000)
    before = seen()
    ledger.close()
    words = ["migrate", "--to", team["database"], "--warehouse", team["warehouse"]]
    for n in (1, 3, 6):                                 # after so many lines it is killed
        p = started(*words, MLOPS_NB_WARM="0")
        for _ in range(n): p.stderr.readline()
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        assert settings().database.startswith("sqlite")
    queue.answer(log.Event("t", "i1999", "fine", annotator="late"))   # somebody labels in between
    before = seen()
    ledger.close()
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert seen() == before

def test_somebody_is_at_work(local, team):
    live(local)
    ledger.close()
    with sqlite3.connect(local/".mlops/mlops.db", isolation_level=None) as c:
        c.execute("BEGIN IMMEDIATE")
        os.environ["MLOPS_NB_LOCK_TIMEOUT"] = "0.5"
        try:
            with pytest.raises(Busy): migrate.migrate(team["database"])
        finally: del os.environ["MLOPS_NB_LOCK_TIMEOUT"]
    c.close()

def test_words_that_cannot_be(local):
    one_line(cli("migrate"), 2, "nothing to move")
    one_line(cli("migrate", "--to", "mysql://h/d"), 2, "Postgres")
    one_line(cli("migrate", "--warehouse", "folder"), 2, "no URL")
    one_line(cli("migrate", "--tracking", "http://h:1"), 2, "mlflow server")
    one_line(cli("migrate", "--undo"), 2)

def test_mlflow_and_searches_go_along(local, team, pg, s3):
    "Runs, a registered model and a search are found under the same ids, the model's files in the bucket."
    pytest.importorskip("optuna")
    from sklearn.linear_model import LogisticRegression
    from mlops_nb.registry import models
    from mlops_nb.train import tune
    frame = pd.DataFrame({"x": [0., 1, 2, 3]*10})
    v = models.register(LogisticRegression().fit(frame, [0, 0, 1, 1]*10), "m", frame[:3], {"a": 1}, {"auc": .7})
    models.promote("m", 1, "first")
    tune.trials.optuna().create_study(storage=tune.storage(), study_name="s").optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=3)
    ledger.close()
    bucket = team["warehouse"].removesuffix("/warehouse")
    migrate.migrate(team["database"], team["warehouse"], pg.make(os.path.basename(team["database"]) + "m"), f"{bucket}/artifacts")
    tune._OPEN.clear()
    assert models.in_charge("m") == 1 and models.registered("m", 1)["mlflow_run"] == v.run
    assert models.load("m")[0].predict(frame[:4]).tolist() == [0, 0, 1, 1]
    assert tune.names() == ["s"] and len(tune.trials.optuna().load_study(storage=tune.storage(), study_name="s").trials) == 3
    models.register(LogisticRegression().fit(frame, [0, 0, 1, 1]*10), "m", frame[:3], {"a": 2}, {"auc": .8})
    assert models.versions("m").keys() == {1, 2}
    assert models.tracking().get_run(v.run).info.artifact_uri.startswith(bucket)
