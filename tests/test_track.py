"What is kept of a model predicts the very same, in the safest format that can hold it."
import logging, os, sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np, pytest, yaml
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (AdaBoostClassifier, ExtraTreesRegressor, GradientBoostingClassifier, HistGradientBoostingClassifier, HistGradientBoostingRegressor,
                              RandomForestClassifier, StackingClassifier, VotingClassifier)
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, SplineTransformer, StandardScaler
from sklearn.svm import SVC

from mlops_nb.cli.cli import main
from mlops_nb.core import ledger
from mlops_nb.core.finding import BadInput, Busy
from mlops_nb.registry import models
from mlops_nb.train import persistence, track

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X, y = X.iloc[:300, :8], y[:300]
few = dict(n_estimators=5, random_state=0)
ORDINARY = [HistGradientBoostingClassifier(max_iter=5), HistGradientBoostingRegressor(max_iter=5), RandomForestClassifier(**few), ExtraTreesRegressor(**few), GradientBoostingClassifier(**few),
            AdaBoostClassifier(**few), KNeighborsClassifier(), MLPClassifier(max_iter=5), GaussianNB(), RidgeCV(), make_pipeline(StandardScaler(), SVC()), CalibratedClassifierCV(LogisticRegression()),
            VotingClassifier([("a", GaussianNB()), ("b", KNeighborsClassifier())], voting="soft"), StackingClassifier([("a", GaussianNB())], LogisticRegression()),
            make_pipeline(SelectKBest(k=3), SplineTransformer(), LogisticRegression()),
            make_pipeline(make_column_transformer((KBinsDiscretizer(), ["mean radius"]), (FunctionTransformer(np.log1p), ["mean area"])), LogisticRegression())]

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ORDINARY, ids=lambda m: "-".join(type(s).__name__ for s in getattr(m, "named_steps", {"": m}).values()))
def test_ordinary_models_are_kept_as_data(tmp_path, model):
    "MLflow's own default refuses more than half of these."
    model.fit(X, y)
    kept = persistence.save(model, tmp_path/"m", X.head(50))
    assert kept.format == "skops" and not kept.note
    assert (persistence.load(kept.folder, kept.sha256).predict(X) == model.predict(X)).all()

OWN = dict(skops=make_pipeline(StandardScaler(), LogisticRegression()), cloudpickle=make_pipeline(FunctionTransformer(lambda x: x*2), LogisticRegression(max_iter=5)), number=HistGradientBoostingRegressor(max_iter=3))

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OWN)
def test_a_folder_is_what_mlflow_writes(tmp_path, name, caplog):
    "Of the same model: the same files, and in them the same but for ids and times. A new MLflow that writes something else fails here."
    import mlflow
    caplog.set_level(logging.ERROR, "mlflow")
    model, needs = OWN[name].fit(X, y), ["numpy==1.0", "pandas"]
    rows = X.head(7).assign(when=np.datetime64("2013-01-05"), word="é", flag=True, gap=np.nan).iloc[:, :8] if name == "number" else X.head(7)
    kept = persistence.save(model, tmp_path/"ours", rows, needs)
    how = "predict" if name == "number" else "predict_proba"
    mlflow.sklearn.save_model(model, tmp_path/"theirs", signature=mlflow.models.infer_signature(rows, getattr(model, how)(rows)), input_example=rows.head(5), pip_requirements=needs, pyfunc_predict_fn=how,
        serialization_format=kept.format, skops_trusted_types=list(persistence.trusted()) if kept.format == "skops" else None)
    ours, theirs = ({f.name: f.read_bytes() for f in (tmp_path/d).iterdir()} for d in ("ours", "theirs"))
    assert kept.format == ("cloudpickle" if name == "cloudpickle" else "skops") and ours.keys() == theirs.keys() and len(ours) == 7
    assert {k: v for k, v in ours.items() if not k.startswith(("MLmodel", "model."))} == {k: v for k, v in theirs.items() if not k.startswith(("MLmodel", "model."))}
    a, b = (yaml.safe_load(d["MLmodel"]) for d in (ours, theirs))
    assert {k for k in a if a[k] != b.get(k)} | {k for k in b if b[k] != a.get(k)} <= {"model_uuid", "utc_time_created", "model_size_bytes"} and a.keys() == b.keys()
    assert abs(a["model_size_bytes"] - b["model_size_bytes"]) < 500 and len(a["model_uuid"]) == 32

def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path/"mine").write_text("x")
    with pytest.raises(BadInput, match="exists"): persistence.save(DummyRegressor().fit(X, y), tmp_path, X.head())
    assert (tmp_path/"mine").read_text() == "x"
    with pytest.raises(BadInput, match="it has no file MLmodel"): persistence.load(tmp_path)

@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "One for all: MLflow takes seconds to make its tables."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_NB_ROOT", str(tmp_path_factory.mktemp("project")))
        yield Path(os.environ["MLOPS_NB_ROOT"])
        ledger.close()

@pytest.fixture
def fitted(): return LogisticRegression().fit(X[["mean radius"]], y)

@pytest.mark.parametrize("change", ["edit", "add", "rename", "delete"])
def test_a_changed_model_is_not_loaded(project, fitted, change):
    models.register(fitted, change, X[["mean radius"]].head(), {}, {})
    folder = Path(models.files(change, 1))
    file = folder/"model.skops"
    if change == "edit": file.write_bytes(file.read_bytes()[:-1] + b"!")
    if change == "add": (folder/"extra.py").write_text("")
    if change == "rename": file.rename(folder/"other.skops")
    if change == "delete": file.unlink()
    with pytest.raises(BadInput, match="were changed after it was registered"): models.load(change, 1)

def test_a_model_the_ledger_does_not_know_is_not_loaded(project, fitted):
    models.register(fitted, "foreign", X[["mean radius"]].head(), {}, {})
    client = models.tracking()
    client.create_model_version("foreign", client.get_model_version("foreign", "1").source)
    with pytest.raises(BadInput, match="the ledger has no version 2"): models.load("foreign", 2)

def test_a_copy_that_predicts_something_else_is_refused(tmp_path):
    with pytest.raises(BadInput, match="a loaded copy predicts something else"): persistence.save(Forgetful(max_iter=1000).fit(X, y), tmp_path/"m", X.head())
    assert not (tmp_path/"m").exists()

class Forgetful(LogisticRegression):
    def __getstate__(self): return {**super().__getstate__(), "coef_": self.coef_*2}

def test_many_runs_at_once(project, fitted):
    "Threads of one process write at the same time; nothing is lost."
    with ThreadPoolExecutor(4) as pool: made = list(pool.map(lambda i: track.track("many", {"i": i}, {"auc": i/10}, model=fitted, example=X[["mean radius"]].head()), range(8)))
    runs = track.tracking().search_runs([track.experiment("many")])
    assert {r.info.run_id for r in runs} == {m.run for m in made} and all(r.info.status == "FINISHED" for r in runs)
    assert len(ledger.touched(kind="mlflow_run", name="many")) == 8 and len({m.sha256 for m in made}) == 8

def test_mlflow_reads_all_of_a_run(project):
    "By its own functions: the run, what it made, the version, and a model with its signature and example."
    import mlflow
    model = OWN["skops"].fit(X, y)
    v = models.register(model, "whole", X.head(20), {f"p{i}": i for i in range(120)}, {"auc": .9, "loss": .1}, {"purpose": "test", "odd name/1": 1}, {"a.txt": "hello"})
    client = track.tracking()
    run, entry = client.get_run(v.run), client.get_model_version("whole", "1")
    logged = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert (run.info.status, len(run.data.params), run.data.metrics, run.data.tags["purpose"], run.data.tags["odd name/1"]) == ("FINISHED", 120, {"auc": .9, "loss": .1}, "test", "1") and run.info.end_time >= run.info.start_time
    assert run.info.run_name == run.data.tags["mlops_run"] == run.data.tags["mlflow.runName"] and [f.path for f in client.list_artifacts(v.run)] == ["a.txt"]
    assert (logged.status, logged.source_run_id, {m.key: m.value for m in logged.metrics}) == ("READY", v.run, {"auc": .9, "loss": .1})
    assert entry.run_id == v.run and entry.tags["purpose"] == "test" and entry.source == f"models:/{logged.model_id}"
    assert (mlflow.sklearn.load_model("models:/whole/1").predict_proba(X) == model.predict_proba(X)).all()
    loaded, about = mlflow.pyfunc.load_model("models:/whole/1"), mlflow.models.get_model_info("models:/whole/1")
    assert (loaded.predict(X) == model.predict_proba(X)).all() and loaded.input_example.equals(X.head(5)) and loaded.metadata.run_id == v.run
    assert about.signature == mlflow.models.infer_signature(X.head(20), model.predict_proba(X.head(20))) and about.model_uri == f"models:/{logged.model_id}"

@contextmanager
def statements(client):
    "What MLflow's SQLite file is told meanwhile."
    import sqlalchemy as sa
    told, engine = [], track._engine(client)
    listen = lambda connection, *_: connection.set_trace_callback(told.append)
    sa.event.listen(engine, "checkout", listen)
    try: yield told
    finally:
        sa.event.remove(engine, "checkout", listen)
        with engine.connect() as c: c.connection.dbapi_connection.set_trace_callback(None)

def test_a_run_is_one_transaction(project, fitted):
    "With a model two: its files are copied between them, while nobody has to wait. An MLflow that makes its sessions in another way fails here."
    client = track.tracking()
    track.experiment("one")
    with statements(client) as told: track.track("one", {"a": 1}, {"auc": .9}, {"odd name": 1})
    assert told.count("COMMIT") == told.count("BEGIN IMMEDIATE") == 1 and sum("INSERT INTO" in t for t in told) >= 4 and not any("ROLLBACK" in t for t in told)
    with statements(client) as told: made = track.track("one", {"a": 1}, {"auc": .9}, model=fitted, example=X[["mean radius"]].head())
    assert told.count("COMMIT") == told.count("BEGIN IMMEDIATE") == 2 and client.get_logged_model(made.model.split("/")[-1]).status == "READY"

def test_a_locked_file_is_busy(project, monkeypatch):
    "Somebody else writes for too long: nothing is written, and the next run is whole again."
    monkeypatch.setenv("MLOPS_NB_LOCK_TIMEOUT", "0.2")
    where = track.experiment("locked")
    with sqlite3.connect(project/".mlops/mlflow.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="MLflow's database is locked"): track.track("locked", {}, {"auc": .9})
        other.execute("ROLLBACK")
    made = track.track("locked", {}, {"auc": .9})
    assert [r.info.run_id for r in track.tracking().search_runs([where])] == [made.run]

def test_a_run_whose_files_cannot_be_kept_is_closed_as_failed(project, fitted):
    "What was written of it stays to be seen, and the next run is whole again."
    client, where = track.tracking(), track.experiment("no_room")
    home = Path(client.get_experiment(where).artifact_location.removeprefix("file://"))
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("a file where the folder should be")
    given = "no_room", {"a": 1}, {"auc": .9}, {"b": 2}, fitted, X[["mean radius"]].head()
    with pytest.raises(OSError): track.track(*given)
    run, = client.search_runs([where])
    assert (run.info.status, run.data.params, run.data.metrics, run.data.tags["b"]) == ("FAILED", {"a": "1"}, {"auc": .9}, "2") and ledger.touched(kind="mlflow_run", name="no_room").empty
    home.unlink()
    assert client.get_run(track.track(*given).run).info.status == "FINISHED"

def test_secrets_do_not_reach_mlflow(project, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "hunter2hunter2")
    made = track.track("tumours", {"url": "hunter2hunter2"}, {}, {"note": "hunter2hunter2"}, files={"a.txt": "hunter2hunter2", "b.json": {"c": ["hunter2hunter2"]}})
    client = track.tracking()
    folder = Path(client.download_artifacts(made.run, ""))
    assert "hunter2" not in str(client.get_run(made.run).data) + "".join(p.read_text() for p in folder.iterdir()) and len([*folder.iterdir()]) == 2

def test_what_mlflow_refuses_leaves_nothing_half_made(project, fitted):
    "The run is closed as failed, nothing is registered."
    with pytest.raises(Exception, match="may only contain"): models.register(fitted, "refused", X[["mean radius"]].head(), {"a\nb:": 1}, {})
    with sqlite3.connect(project/".mlops/mlflow.db") as c: assert c.execute("select status from runs join experiments using (experiment_id) where experiments.name = 'refused'").fetchall() == [("FAILED",)]
    assert models.versions("refused") == {}

def test_of_promotions_decided_at_the_same_time_one_wins(project, fitted):
    "The others are told with whom to compare; the command line gives the champion back."
    for _ in range(5): models.register(fitted, "contested", X[["mean radius"]].head(), {}, {})
    models.promote("contested", 1, "first")
    def promote(version):
        try: return models.promote("contested", version, "better than 1", over=1)
        except Busy as e: return str(e)
    with ThreadPoolExecutor(4) as pool: told = [*pool.map(promote, range(2, 6))]
    winner = told.index(None) + 2
    assert told.count(None) == 1 and all(f"version {winner} of 'contested' took charge" in t for t in told if t)
    assert models.in_charge("contested") == models.champion("contested").version == winner and models.in_charge("contested", "previous") == 1
    assert main(["rollback", "contested", "--reason", "alarms"]) == 0 and models.in_charge("contested") == 1 == models.champion("contested").version
    assert main(["rollback", "contested", "--to", "9", "--reason", "x"]) == 2 and main(["models", "contested", "--json"]) == 0
