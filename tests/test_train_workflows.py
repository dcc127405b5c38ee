"The notebooks of a careful data scientist: plan, tune, train, as people run them."
import json, re

import nbformat, pytest

from conftest import write_settings
from mlops_nb.core import ledger
from mlops_nb.run import notebook

def said(run): return "\n".join("".join(o.get("text", "") or o.get("data", {}).get("text/plain", "")) for c in nbformat.read(run.output, 4).cells if c.cell_type == "code" for o in c.outputs)

def test_plan_says_go_and_why(project):
    run = notebook.run("plan", {"rows": 4000})
    page = said(run)
    assert run.exit_code == 0 and "'go'" in page and "kpi: recall" in page and "scheduled_hour" in page
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

def test_what_was_tuned_is_trained(project):
    "By the name of the search; another estimator is refused; one day fewer is another search."
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    for stage, given in (("ingest", {}), ("label", {}), ("tune", {"trials": 3, "folds": 2})):
        run = notebook.run(stage, given)
        assert run.exit_code == 0, run.error
    page = said(run)
    name = re.search(r"\('(late_flights-\d+-\d+)'", page)[1]
    trained = notebook.run("train", {"tuned": name, "compete": False})
    assert trained.exit_code == 0, trained.error
    from mlops_nb.train import tune
    from mlops_nb.train.track import tracking
    best = tune.best(name, "sklearn.ensemble.HistGradientBoostingClassifier")
    kept, = [r.version for r in ledger.touched(run=trained.run, kind="mlflow_run").itertuples() if r.direction == "write"]
    assert tracking().get_run(kept).data.params["learning_rate"] == str(best["learning_rate"])
    other = notebook.run("train", {"tuned": name, "estimator": "sklearn.linear_model.LogisticRegression", "parameters": {}}, wait=False)
    assert other.exit_code == 2 and "tuned sklearn.ensemble" in other.error
