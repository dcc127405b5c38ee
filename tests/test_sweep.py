"Sweeps: ranked by what was measured, resumed after Ctrl-C or a kill, wrong input before anything starts."
import json, os, signal, subprocess
from collections import Counter

import pytest

from conftest import cli, files, states, wait_until, write_notebook, write_settings
from mlops_nb.core import ledger
from mlops_nb.core.finding import BadInput
from mlops_nb.run import notebook, sweep

SCORE = "import os\nfrom mlops_nb.core import config, ledger\nfrom mlops_nb.core.finding import Finding", "assert depth != 9, 'too deep'\nledger.record([Finding('score', 'fit', share - (depth - 3)**2), Finding('loss', 'fit', (depth - 3)**2)])"

@pytest.fixture
def fit(tmp_path, monkeypatch):
    "A project of one stage with parameters, that measures `score` and `loss`."
    write_notebook(tmp_path/"nbs/workflows/fit.ipynb", *SCORE, parameters="depth = 1\nshare = 0.5\nkind = 'tree'\nrun = 0")
    write_settings(tmp_path, mlops_nb=dict(executor="local:2"), pipeline=dict(fit=""))
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    yield tmp_path
    ledger.close()

def test_the_best_is_on_top(fit):
    "Failed ones last; values as the notebook gets them, not as they were written."
    rows = sweep.run_many("fit", sweep.grid({"depth": ["1", "9", "3"], "share": [.1, "0.2"]}), "score")
    assert [(r["depth"], r["share"]) for r in rows[:2]] == [(3, .2), (3, .1)] and rows[0]["score"] == .2
    assert [r["state"] for r in rows] == ["done"]*4 + ["failed"]*2 and all("too deep" in r["error"] for r in rows[4:])
    less = sweep.run_many("fit", sweep.grid({"depth": [1, 3], "share": [.1]}), "-loss")
    assert [(r["depth"], r["loss"], r["state"]) for r in less] == [(3, 0, "skipped"), (1, 4, "skipped")]
    assert Counter(ledger.runs().state) == {"done": 4, "failed": 2}

def test_the_same_values_twice_are_one_run(fit):
    assert len(sweep.run_many("fit", [{"depth": 2}, {"depth": "2"}, {"share": .5, "depth": 2}])) == 1
    assert len(ledger.runs()) == 1

def test_a_parameter_named_like_a_column(fit):
    row, = sweep.run_many("fit", [{"run": 4}])
    assert row["parameter run"] == 4 and row["run"] == ledger.runs().id[0]

def test_mlflow_metrics(fit):
    "What the run's own MLflow run holds."
    write_notebook(fit/"nbs/workflows/fit.ipynb", "import mlflow\nfrom mlops_nb.core import ledger\nfrom mlops_nb.registry import models\nmodels.tracking()",
                   "with mlflow.start_run() as r: mlflow.log_metric('f1', depth/10)\nledger.wrote('mlflow_run', 'fit', r.info.run_id)", parameters="depth = 1")
    rows = sweep.run_many("fit", sweep.grid({"depth": [1, 4]}), "f1")
    assert [(r["depth"], r["f1"]) for r in rows] == [(4, .4), (1, .1)]

@pytest.mark.parametrize("how, said", [
    (dict(parameters=[{"dept": 1}]), "did you mean 'depth'"), (dict(parameters=[{"depth": 1}, {"depth": "deep"}]), "depth = 'deep' is not int"),
    (dict(parameters=[]), "nothing to try"), (dict(parameters=[{}], name="fitt"), "did you mean 'fit'")])
def test_wrong_input_before_anything_starts(fit, how, said):
    with pytest.raises(BadInput, match=said): sweep.run_many(**{"name": "fit", **how})
    assert not [f for f in files(fit) if f.startswith((".mlops", "reports"))]

def test_a_metric_nobody_recorded(fit):
    "One that is nearly known is refused before the first run; another is told at the end, and no work is lost."
    with pytest.raises(BadInput, match="no run of fit records 'scoer'; did you mean 'score'"): sweep.run_many("fit", [{"depth": 1}, {"depth": 2}], "-scoer")
    with pytest.raises(BadInput, match="did you mean 'roc_auc'"): sweep.run_many("fit", [{"depth": 1}], "roc_acu")
    assert ledger.runs().empty
    with pytest.raises(BadInput, match="no run recorded 'elegance'; known"): sweep.run_many("fit", [{"depth": 1}, {"depth": 2}], "elegance")
    assert {r["state"] for r in sweep.run_many("fit", [{"depth": 1}, {"depth": 2}], "score")} == {"skipped"}

def test_events_name_the_combination(fit):
    heard = []
    sweep.run_many("fit", sweep.grid({"depth": [1, 2]}), "score", on_event=lambda kind, **facts: heard.append((kind, facts)))
    assert heard[0] == ("pipeline", dict(stages=["fit depth=1", "fit depth=2"]))
    assert {f["stage"] for kind, f in heard if kind == "stage"} == {"fit depth=1", "fit depth=2"}
    shown = [f["rows"] for kind, f in heard if kind == "sweep"]
    assert [len(rows) for rows in shown] == [1, 2] and shown[-1][0]["score"] >= shown[-1][1]["score"]

WAITS = "import time\nfrom mlops_nb.core import config, ledger\nplace = config.root()", "if depth > 2:\n    (place/f'at{depth}').touch()\n    while not (place/'go').exists(): time.sleep(.05)"
RUN = "from mlops_nb.run import sweep\nsweep.run_many('fit', sweep.grid({'depth': [1, 2, 3, 4, 5]}))"

@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_stopped_is_resumed(fit, how):
    import sys
    write_notebook(fit/"nbs/workflows/fit.ipynb", *WAITS, parameters="depth = 1")
    process = subprocess.Popen([sys.executable, "-c", RUN], cwd=fit, stderr=subprocess.PIPE, start_new_session=True)
    try:
        wait_until("two at work", lambda: (fit/"at3").exists() and (fit/"at4").exists(), process)
        os.kill(process.pid, how)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
    (fit/"go").touch()
    rows = sweep.run_many("fit", sweep.grid({"depth": [1, 2, 3, 4, 5]}))
    assert {r["depth"]: r["state"] for r in rows} == {1: "skipped", 2: "skipped", 3: "done", 4: "done", 5: "done"}
    assert Counter(ledger.runs().state) == {"done": 5, "interrupted": 2}

def test_a_sweep_and_a_pipeline_share_what_is_the_same(fit):
    "The run with the default values counts for both."
    from mlops_nb.run import pipeline
    assert [r.state for r in pipeline.run()] == ["done"]
    assert {r["depth"]: r["state"] for r in sweep.run_many("fit", sweep.grid({"depth": [1, 2]}))} == {1: "skipped", 2: "done"}
    assert [r.state for r in pipeline.run()] == ["skipped"]

def test_a_sweep_compares_and_puts_nothing_in_charge(fit):
    "Unless the person says that it may compete."
    write_notebook(fit/"nbs/workflows/fit.ipynb", *SCORE, "open('asked', 'a').write(f'{compete} ')", parameters="depth = 1\nshare = 0.5\ncompete = True")
    sweep.run_many("fit", sweep.grid({"depth": [1, 2]}))
    sweep.run_many("fit", sweep.grid({"depth": [3], "compete": [True]}))
    notebook.run("fit")
    assert (fit/"asked").read_text().split() == ["False", "False", "True", "True"]

def test_values_inside_a_dictionary(fit):
    "By their name alone or with the dictionary's; read as the type that is there; `-p` beside them."
    write_notebook(fit/"nbs/workflows/fit.ipynb", *[c.replace("depth", "parameters['depth']") for c in SCORE], parameters="parameters = {'depth': 1, 'rate': 0.5}\nshare = 0.5")
    done = cli("run", "fit", "--json", "-p", "share=0.7", "--sweep", "depth=1,3", "parameters.rate=1", "--metric", "score")
    assert [(r["depth"], r["parameters.rate"], r["score"]) for r in json.loads(done.stdout)] == [(3, 1., .7), (1, 1., -3.3)], done.stderr
    assert {json.dumps(p["parameters"]) for p in ledger.runs().parameters} == {'{"depth": 1, "rate": 1.0}', '{"depth": 3, "rate": 1.0}'}
    assert [r["state"] for r in sweep.run_many("fit", sweep.grid({"parameters": [{"depth": 3, "rate": 1.}], "share": [.7]}))] == ["skipped"]
    row, = sweep.run_many("fit", [{"parameters.kind": "tree", "depth": 2}])
    assert row["parameters.kind"] == "tree" and row["state"] == "done"

@pytest.mark.parametrize("given, said", [({"depth": "deep"}, "parameters.depth = 'deep' is not int"), ({"dept": 1}, "no parameter 'dept'"), ({"share.depth": 1}, "no parameter 'share.depth'")])
def test_wrong_values_inside_a_dictionary(fit, given, said):
    write_notebook(fit/"nbs/workflows/fit.ipynb", *SCORE, parameters="parameters = {'depth': 1, 'rate': 0.5}\nshare = 0.5")
    with pytest.raises(BadInput, match=said): sweep.run_many("fit", [given])

def test_from_the_command_line(fit):
    "A table, best first; exit code 1 when a combination failed; again, nothing is run."
    done = cli("run", "fit", "--json", "--sweep", "depth=1,3,9", "--metric", "score")
    rows = json.loads(done.stdout)
    assert done.returncode == 1 and [r["depth"] for r in rows] == [3, 1, 9] and "too deep" in rows[-1]["error"], done.stderr
    assert [r["state"] for r in json.loads(cli("run", "fit", "--json", "--sweep", "depth=1,3", "--metric=-loss").stdout)] == ["skipped", "skipped"]
