"The notebooks of a careful data scientist: plan, tune, train, as people run them."
import json, re, subprocess, sys

import nbformat, pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from conftest import without_card, write_settings
from mlops_nb.core import ledger
from mlops_nb.registry import models
from mlops_nb.run import notebook

def said(run): return "\n".join("".join(o.get("text", "") or o.get("data", {}).get("text/plain", "")) for c in nbformat.read(run.output, 4).cells if c.cell_type == "code" for o in c.outputs)

def test_plan_says_go_and_why(project):
    run = notebook.run("plan", {"rows": 4000})
    page = said(run)
    assert run.exit_code == 0 and "Go on." in page and "kpi: recall" in page and "scheduled_hour" in page
    found = ledger.findings(run=run.run)
    assert {"roc_auc", "above_baseline", "same_key", "time_overlap", "leakage"} <= set(found.check)

def test_plan_says_no_with_its_reason(project):
    text = (project/"settings.ini").read_text()
    (project/"settings.ini").write_text(re.sub(r"minimum = 0\.66", "minimum = 0.99", text).replace("min_gain = 0.005", "min_gain = 0.001"))
    run = notebook.run("plan", {"rows": 4000}, wait=False)
    assert run.exit_code == 3 and "roc_auc" in run.error and "0.99" in run.error

def test_without_a_goal_nothing_is_planned(project):
    write_settings(project, mlops_nb={})
    run = notebook.run(project/"nbs/workflows/plan.ipynb", wait=False)
    assert run.exit_code == 2 and "no [goal]" in run.error

def papermill(project, stage, out, **parameters):
    "Stock papermill, in a process of its own, away from the project's folder."
    words = [w for k, v in parameters.items() for w in ("-y", f"{k}: {json.dumps(v)}")]
    done = subprocess.run([sys.executable, "-m", "papermill", str(project/f"nbs/workflows/{stage}.ipynb"), str(out/f"{stage}.ipynb"), *words, "--no-progress-bar"], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (bare := without_card(out/f"{stage}.ipynb")), bare
    return "\n".join("".join(o.get("text", "") or o.get("data", {}).get("text/plain", "")) for c in nbformat.read(out/f"{stage}.ipynb", 4).cells if c.cell_type == "code" for o in c.outputs)

@pytest.mark.parametrize("kind", ["words", "numbers"])
def test_a_table_of_ones_own_by_parameters_alone(project, tmp_path, kind):
    "No time, answers in a column of the same file: plan, ingest, train and tune, by stock papermill."
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    df = (load_breast_cancer if kind == "words" else load_diabetes)(as_frame=True).frame.assign(patient=lambda d: range(1000, 1000 + len(d)))
    df = df.rename(columns={"target": "finding"}).assign(finding=lambda d: d.finding.map({0: "malignant", 1: "benign"}) if kind == "words" else d.finding)
    df.to_csv(tmp_path/"clinic.csv", index=False)
    goal = dict(metric="roc_auc", baseline="0.5", minimum="0.8") if kind == "words" else dict(metric="r2", baseline="0", minimum="0.05", min_gain="0.01", max_drop="0.1")
    write_settings(project, mlops_nb={}, goal=dict(problem="Which tumours are malignant?", owner="ward", target="finding", **goal), pipeline=dict(ingest=""))
    small = {"words": "sklearn.linear_model.LogisticRegression", "numbers": "sklearn.linear_model.Ridge"}[kind]
    own = dict(key="patient", time="")
    assert "Go on." in papermill(project, "plan", tmp_path, source=str(tmp_path/"clinic.csv"), rows=5000, too_good=.98, **own)
    run = notebook.run("ingest", {"source": str(tmp_path/"clinic.csv"), "key": "patient", "time": ""}, wait=False)
    assert run.exit_code == 0, run.error
    given = dict(dataset_name="clinic", labels_name="", estimator=small, parameters={}, **own)
    told = papermill(project, "tune", tmp_path, study="clinic", trials=3, folds=2, space={}, **given)
    study = re.search(r"kept as (clinic-\d+),", told)[1]
    told = papermill(project, "train", tmp_path, model="clinic", tuned=study, slices=[], **given)
    assert "promote" in told and "first model that meets the goal" in told
    columns = models.load("clinic")[0].feature_names_in_
    assert "patient" not in columns and "finding" not in columns and len(columns) == df.shape[1] - 2

def test_what_was_tuned_is_trained(project):
    "By the name of the search; another estimator is refused; one day fewer is another search."
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    for stage, given in (("ingest", {}), ("label", {}), ("tune", {"trials": 3, "folds": 2})):
        run = notebook.run(stage, given)
        assert run.exit_code == 0 and not without_card(run.output), (run.error, without_card(run.output))
    page = said(run)
    name = re.search(r"kept as (late_flights-\d+-\d+),", page)[1]
    trained = notebook.run("train", {"tuned": name, "compete": False})
    assert trained.exit_code == 0, trained.error
    from mlops_nb.train import tune
    from mlops_nb.train.track import tracking
    best = tune.best(name, "sklearn.ensemble.HistGradientBoostingClassifier")
    kept, = [r.version for r in ledger.touched(run=trained.run, kind="mlflow_run").itertuples() if r.direction == "write"]
    assert tracking().get_run(kept).data.params["learning_rate"] == str(best["learning_rate"])
    other = notebook.run("train", {"tuned": name, "estimator": "sklearn.linear_model.LogisticRegression", "parameters": {}}, wait=False)
    assert other.exit_code == 2 and "tuned sklearn.ensemble" in other.error
