"Tuning: the same for a seed, several processes at once, given up early, any problem, wrong input before the first trial."
import os

import numpy as np, pandas as pd, pytest

from mlops_nb.core import database, ledger
from mlops_nb.core.finding import BadInput, MlopsError
from mlops_nb.data import samples
from mlops_nb.train import trials, tune
from mlops_nb.train.splits import folds

pytest.importorskip("optuna", reason="the extra tune is not installed")
from servers import pg   # noqa: F401, a real server

ESTIMATOR = "sklearn.linear_model.LogisticRegression"
SPACE = {"C": "0.0001..10.0 log", "class_weight": [None, "balanced"], "features.winsorize": [True, False]}

@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    yield tmp_path
    ledger.close()

@pytest.fixture(scope="module")
def wine(): return samples.load("wine")

def search(frame, name="wine", n=12, **how):
    return tune.tune(frame, "target", name, folds(frame, "target", 3, "stratified"), **{**dict(estimator=ESTIMATOR, space=SPACE, metric="log_loss", n=n, max_iter=300), **how})

def drawn(tuned): return tuned.trials.sort_values("number").drop(columns=["seconds", "number"]).reset_index(drop=True)

def test_the_same_seed_finds_the_same(project, wine):
    first, again, other = search(wine, "a"), search(wine, "b"), search(wine, "c", seed=1)
    pd.testing.assert_frame_equal(drawn(first), drawn(again))
    assert not drawn(first).equals(drawn(other))

def test_what_is_there_now_is_tried_first(project, wine):
    found = search(wine, C=.001, n=8)
    zero = found.trials.set_index("number").loc[0]
    assert zero["C"] == .001 and found.value <= zero["value"] and set(found.trials["state"]) <= {"done", "pruned"}
    assert found.best.keys() >= {"C", "class_weight", "max_iter", "features"} and isinstance(found.best["features"]["winsorize"], bool)

def test_hopeless_ones_are_given_up(project, wine):
    "A pruned trial was judged on fewer folds; without pruning all are."
    pruned = search(wine, n=20).trials
    assert (pruned[pruned["state"] == "pruned"]["folds"] < 3).all() and (pruned["state"] == "pruned").any()
    assert set(search(wine, "whole", n=10, prune=False).trials["folds"]) == {3}

def test_several_processes(project, wine):
    "Every trial once, by more than one process; progress tells how far it is."
    seen = []
    found = search(wine, n=8, workers=2, progress=lambda t: seen.append(len(t.trials)))
    study = trials.optuna().load_study(study_name="wine", storage=tune.storage())
    assert len(found.trials) == 8 and seen[-1] == 8 and len({t.user_attrs["owner"][1] for t in study.trials}) == 2
    assert os.getpid() not in {t.user_attrs["owner"][1] for t in study.trials}

def test_more_trials_go_on(project, wine):
    search(wine, n=5)
    more = search(wine, n=9)
    assert len(more.trials) == 9 and len(search(wine, n=9).trials) == 9
    assert drawn(more).equals(drawn(search(wine, "at_once", n=9)))

def test_ctrl_c_gives_the_trial_back(project, wine):
    def stop(tuned):
        if len(tuned.trials) == 3: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): search(wine, n=6, progress=stop)
    assert drawn(search(wine, n=6)).equals(drawn(search(wine, "whole", n=6)))

# --- kinds of problems ---

@pytest.mark.parametrize("metric, target, estimator, values", [
    ("mae", lambda d: d, "sklearn.linear_model.Ridge", {"alpha": "0.01..100.0 log"}), ("f1_macro", lambda d: pd.cut(d, 3, labels=["low", "mid", "high"]).astype(str), ESTIMATOR, {"C": "0.01..10.0 log"}),
    ("roc_auc", lambda d: np.where(d > 150, "yes", "no"), "sklearn.ensemble.HistGradientBoostingClassifier", {"learning_rate": "0.05..0.3 log", "training.class_weight": [None, "balanced"]})])
def test_any_problem(project, metric, target, estimator, values):
    df = samples.load("diabetes")
    df["target"] = target(df["target"])
    found = tune.tune(df, "target", "t", folds(df, "target", 2, "random"), estimator, values, metric, n=4)
    whole = found.trials[found.trials["state"] == "done"]["value"]
    assert found.value == (whole.min() if metric == "mae" else whole.max()) and len(found.trials) == 4

def test_best_goes_on_to_fit(project, wine):
    from mlops_nb.train.fit import fit
    found = search(wine, n=6)
    chosen = tune.best("wine", ESTIMATOR, {"features": {"many": True}, "tol": .01})
    assert chosen["features"] == {"many": True, **found.best["features"]} and chosen["tol"] == .01
    assert fit(wine, "target", ESTIMATOR, **chosen)[-1].C == found.best["C"] and tune.best("", ESTIMATOR, {"tol": 1}) == {"tol": 1}
    assert {"study"} == set(ledger.touched(run=ledger.run_id()).kind) & {"study"}

def test_one_run_for_mlflow(project, wine):
    from mlops_nb.train.track import tracking
    run = tracking().get_run(tune.keep(search(wine, n=4)).run)
    assert run.data.metrics["log_loss"] > 0 and run.data.metrics["trials_done"] + run.data.metrics.get("trials_pruned", 0) == 4 and "C" in run.data.params

# --- what goes wrong ---

def test_nothing_ever_works(project, wine):
    "Three trials, not thirty, and the reason."
    with pytest.raises(BadInput, match="max_iter|InvalidParameterError"): search(wine, n=30, max_iter=-3)
    assert len(trials.rows(trials.optuna().load_study(study_name="wine", storage=tune.storage()))) == 3

def test_some_that_fail_are_rows(project, wine):
    found = search(wine, n=8, space={"solver": ["lbfgs", "newton-chlesky"], "C": "0.01..1.0"})
    assert {"done", "failed"} <= set(found.trials["state"]) and found.trials["error"].str.contains("newton-chlesky").any() and found.best["solver"] == "lbfgs"

def test_another_question_under_the_same_name(project, wine):
    search(wine, n=2)
    for how in (dict(metric="accuracy"), dict(space={"C": "0.1..1"}), dict(max_iter=200), dict(seed=3)):
        with pytest.raises(BadInput, match="another"): search(wine, n=2, **how)
    with pytest.raises(BadInput, match="another rows"): search(wine.assign(alcohol=1.), n=2)
    tune.forget("wine")
    assert tune.names() == [] and len(search(wine, n=2, metric="accuracy").trials) == 2

@pytest.mark.parametrize("how, said", [(dict(n=0), "whole number"), (dict(workers=True), "whole number"), (dict(name="../x"), "not allowed"), (dict(metric="log_los"), "log_loss"), (dict(space={"c": "0..1"}), "no parameter 'c'"),
                                       (dict(space={"C": "1..0"}), "ends before"), (dict(estimator="sklearn.svm.LinearSVC", space={"C": "0.1..1"}), "predict_proba"), (dict(training={"patiense": 3}), "patience")])
def test_wrong_input_before_the_first_trial(project, wine, how, said):
    with pytest.raises(BadInput, match=said): search(wine, **how)
    assert not (project/".mlops").exists() or tune.names() == []

def test_seconds_end_it(project, wine):
    with pytest.raises(BadInput, match="seconds"): search(wine, n=5, seconds=0)

def test_on_postgres(project, wine, pg, monkeypatch):
    "In a schema of its own; two processes share it."
    from mlops_nb.pages import tuning
    monkeypatch.setenv("MLOPS_NB_DATABASE", pg.url())
    assert tuning.stored() == []
    assert len(search(wine, n=6, workers=2).trials) == 6
    (again, _), = tuning.stored()
    assert (again.name, again.metric, again.wanted) == ("wine", "log_loss", 6)
    assert [r["table_schema"] for r in database.query("SELECT table_schema FROM information_schema.tables WHERE table_name = 'trials'")] == ["optuna"]
    database.close()

def test_a_page_tells_no_search_from_no_database(project, wine):
    "Without a search the models page has no such part; one that cannot be read is told in its place."
    from mlops_nb.pages import models
    assert "Searches" not in models.page() and "could not be shown" not in models.page()
    search(wine, n=4)
    assert "Searches" in models.page() and "could not be shown" not in models.page()
    database.write("ALTER TABLE studies RENAME COLUMN study_name TO called", {})
    assert "could not be shown" in models.page() and "no such column" in models.page()

def test_on_a_dask_cluster(project, wine):
    "Every trial once, by the workers of a cluster that was there before."
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        workers = {*client.run(os.getpid).values()}
        found = search(wine, n=8, cluster=cluster.scheduler_address)
    owners = {t.user_attrs["owner"][1] for t in trials.optuna().load_study(study_name="wine", storage=tune.storage()).trials}
    assert sorted(found.trials["number"]) == [*range(8)] and len(workers) == 2 and owners and owners <= workers

@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "http://127.0.0.1:1"])
def test_a_cluster_that_is_not_there(project, wine, address):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    with pytest.raises(MlopsError, match="no Dask scheduler|is not known"): search(wine, n=2, cluster=address)
