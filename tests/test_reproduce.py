"A run made again from its id: equal for every framework that is here, and what differs is said with its reason."
import importlib.util, json, os, subprocess
from pathlib import Path

import pytest
from sklearn.datasets import load_breast_cancer

from conftest import cli, one_line, write_notebook
from mlops_nb.core import ledger
from mlops_nb.data import dataset
from mlops_nb.registry import models, restore
from mlops_nb.registry.reproduce import reproduce

FIT = ["from mlops_nb.data import dataset", "from mlops_nb.registry import contest, models", "from mlops_nb.train.fit import fit, predict",
       "df = dataset.read('tumours')\nmodel = fit(df, 'target', estimator, **parameters)",
       "v = models.register(model, 'tumours', df.drop(columns='target').head(), parameters, {'mean': float(predict(model, df).mean())})\ndataset.commit(df.assign(p=predict(model, df))[['p']], 'scores')"]
DEFAULTS = "estimator = 'sklearn.ensemble.HistGradientBoostingClassifier'\nparameters = {'max_iter': 8}"

@pytest.fixture
def project(local, warm_kernels):
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    dataset.commit(X.iloc[:, :5].assign(target=y), "tumours")
    write_notebook(local/"fit.ipynb", *FIT, parameters=DEFAULTS)
    return local

def run(*words):
    done = cli("run", "fit.ipynb", *words)
    assert done.returncode == 0, done.stderr
    return ledger.last_runs()["fit"]["id"]

FRAMEWORKS = {"sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 8}, "sklearn.neural_network.MLPClassifier": {"max_iter": 20}, "lightgbm.LGBMClassifier": {"n_estimators": 8, "verbose": -1, "subsample": .5, "subsample_freq": 1},
              "xgboost.XGBClassifier": {"n_estimators": 8, "subsample": .5}}

@pytest.mark.parametrize("estimator", [e for e in FRAMEWORKS if "Hist" in e or "sklearn" not in e])
def test_a_run_comes_out_the_same(project, estimator):
    "After its data grew, its notebook changed and another version took its place."
    if not importlib.util.find_spec(estimator.partition(".")[0]): pytest.skip(f"{estimator.partition('.')[0]} is not installed")
    first = run("-p", f"estimator={estimator}", "-p", f"parameters={FRAMEWORKS[estimator]}")
    dataset.append(dataset.read("tumours").head(40), "tumours")
    write_notebook(project/"fit.ipynb", "1/0", parameters=DEFAULTS)
    done = cli("reproduce", first, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {f["check"] for f in found} == {"answers", "metric", "parameter", "data"} and all(f["value"] == 0 for f in found)
    assert "569 rows" in next(f["note"] for f in found if f["check"] == "answers")
    assert sorted(models.versions("tumours")) == [1] and dataset.latest("scores") == 0        # nothing was written here
    assert ledger.events("reproduce", first).detail[0]["verdict"] == "equal"

def test_what_is_left_to_chance_is_said(project):
    first = run("-p", "estimator=sklearn.ensemble.RandomForestClassifier", "-p", "parameters={'n_estimators': 3, 'random_state': None}")
    done = cli("reproduce", first)
    told, = ledger.events("reproduce", first).detail
    assert done.returncode == 3 and told["verdict"] == "differs" and "left to chance" in told["why"][0] and told["why"][0] in done.stderr
    assert (project/f"reports/reproduce/{first}.ipynb").exists()

def test_what_changed_and_cannot_be_found_is_the_reason(project):
    "A module that git does not remember."
    (project/"rules.py").write_text("limit = 3\n")
    write_notebook(project/"fit.ipynb", "import rules", *FIT[:3], FIT[3].replace("**parameters)", "max_iter=rules.limit)"), FIT[4], parameters=DEFAULTS)
    first = run()
    (project/"rules.py").write_text("limit = 9\n")
    made = reproduce(first)
    assert made.verdict == "differs" and made.why == ["rules.py has changed since, and its text of then is not to be found"]
    assert {f.check for f in made.findings if not f.ok} >= {"answers", "metric", "data"}

def test_git_remembers_what_the_project_forgot(project):
    (project/"rules.py").write_text("limit = 3\n")
    write_notebook(project/"fit.ipynb", "import rules", *FIT[:3], FIT[3].replace("**parameters)", "max_iter=rules.limit)"), FIT[4], parameters=DEFAULTS)
    git = "git -c user.name=a -c user.email=a@b"
    subprocess.run("git init -q && git add fit.ipynb rules.py && " + git + " commit -qm first", shell=True, cwd=project, check=True)
    first = run()
    assert models.registered("tumours", 1)["tags"]["git"] == subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True).stdout.strip()
    (project/"rules.py").write_text("limit = 9\n")
    write_notebook(project/"fit.ipynb", "1/0")
    Path(ledger.rows("run", id=first)[0]["output"]).unlink()
    made = reproduce("tumours@1")
    assert made.verdict == "equal" and made.run == first and made.why == []

def test_within_a_tolerance(project):
    "Numbers that differ in the ninth place."
    write_notebook(project/"fit.ipynb", "import time", *FIT[:3], FIT[3], FIT[4].replace("{'mean': float(predict(model, df).mean())}", "{'mean': .5 + (time.time_ns() % 1000)*1e-12}").partition("\n")[0], parameters=DEFAULTS)
    first = run()
    assert reproduce(first, tolerance=1e-8).verdict == "within tolerance"

def test_a_decision_is_made_against_the_champion_of_then(project):
    "The run read the champion; by now another version is in charge."
    decide = "from mlops_nb.train.goal import Goal\nc = contest.Candidate(v, model, df.rename(columns={'target': 'label'}), [])\nold, n = models.load('tumours')\ndataset.commit(df.assign(p=predict(old, df))[['p']], 'old')"
    run()
    models.promote("tumours", 1, "first")
    write_notebook(project/"fit.ipynb", *FIT, decide, parameters=DEFAULTS)
    second = run("-p", "parameters={'max_iter': 20}")
    models.promote("tumours", 2, "better")
    made = reproduce(second)
    assert made.verdict == "equal" and any(f.subject.startswith("old") for f in made.findings if f.check == "data"), made

def test_other_packages_are_brought_back_or_named(project, monkeypatch):
    first = run()
    real = restore.source.packages
    monkeypatch.setattr(restore.source, "packages", lambda: {**real(), "six": "0.0.1"})
    monkeypatch.setattr(restore, "_built", lambda home, packages: f"six=={packages['six']} is not on the index")
    made = reproduce(first)
    assert made.verdict == "equal" and "packages have changed since (six" in made.why[0] and "not on the index" in made.why[0]

def test_what_cannot_be_reproduced_is_refused(project):
    one_line(cli("reproduce", "20990101-000000-aaaaaa"), 2, "there is no run and no model")
    write_notebook(project/"fit.ipynb", "1/0")
    cli("run", "fit.ipynb")
    one_line(cli("reproduce", ledger.last_runs()["fit"]["id"]), 2, "only a run that ended well")
    write_notebook(project/"fit.ipynb", *FIT, parameters=DEFAULTS)
    first = run()
    Path(ledger.rows("run", id=first)[0]["output"]).unlink()
    write_notebook(project/"fit.ipynb", "2/0")
    one_line(cli("reproduce", "tumours"), 2, "is not to be found")
    one_line(cli("reproduce", "tumours@4"), 2, "has no version 4")
    one_line(cli("reproduce", "tumours", "--tolerance", "-1"), 2, "a tolerance of -1.0 cannot be")
