"What is kept of a model predicts the very same, in the safest format that can hold it."
import os, sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np, pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
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
