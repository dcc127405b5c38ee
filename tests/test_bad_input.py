"Whatever a person gets wrong ends with one clear line, exit code 2 and nothing half written."
import json, os, shlex, shutil, subprocess, sys

import pandas as pd, pytest

from conftest import MAIN, cli, files, one_line, states, write_notebook, write_settings
from mlops_nb.core import config, ledger, store
from mlops_nb.core.finding import BadInput
from mlops_nb.run import changes, notebook, pipeline

pytestmark = pytest.mark.usefixtures("warm_kernels")

def untouched(folder): return [f for f in files(folder) if f.startswith((".mlops", "reports")) and not f.endswith(".lock")] == []

# --- settings ---

WRONG_SETTINGS = {
    "misspelt":         ("[mlops_nb]\ntraking_uri = x\n", "unknown setting 'traking_uri'", "did you mean 'tracking_uri'?"),
    "not a number":     ("[mlops_nb]\nlock_timeout = soon\n", "lock_timeout = 'soon'", "float", "20.0"),
    "empty":            ("[mlops_nb]\nwarehouse =\n", "'warehouse' is empty", "delete the line"),
    "broken file":      ("[mlops_nb\nseed = 0\n", "settings.ini cannot be read", "mend"),
    "twice":            ("[mlops_nb]\nseed = 0\nseed = 1\n", "settings.ini cannot be read", "'seed'"),
    "no such database": ("[mlops_nb]\ndatabase = mlops.db and more\n", "database", "sqlite:///"),
    "no driver":        ("[mlops_nb]\ndatabase = postgresql+nodriver://u:hunter22@h/d\n", "database", "driver"),
    "circle":           ("[pipeline]\nmake = use\nuse = make\n", "circle", "make -> use"),
    "unknown before":   ("[pipeline]\nmake =\nuse = maek\n", "comes after 'maek'", "did you mean 'make'?"),
    "unknown stage":    ("[pipeline]\nmaek =\n", "no notebook 'maek'", "did you mean 'make'?"),
}

@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_wrong_settings(small, name):
    text, *said = WRONG_SETTINGS[name]
    (small/"settings.ini").write_text(text if "[pipeline]" in text else text + "[pipeline]\nmake =\n")
    line = one_line(cli("run"), 2, *said)
    assert "hunter22" not in line
    assert untouched(small)

@pytest.mark.parametrize("key, value, said", [("TRAKING_URI", "x", "did you mean 'tracking_uri'?"), ("SEED", "1.5", "seed = '1.5'"), ("REPORTS", "", "'reports' is empty")])
def test_wrong_environment(small, key, value, said):
    one_line(cli("run", **{f"MLOPS_NB_{key}": value}), 2, said)
    assert untouched(small)

def test_no_settings_file_is_fine(small):
    (small/"settings.ini").unlink()
    assert config.settings().seed == 0 and config.section("pipeline") == {}
    assert cli("run", "make", "--dry-run").returncode == 0

WRONG_GOALS = {
    "minimun = 0.7":                   ("unknown key 'minimun'", "did you mean 'minimum'?"),
    "minimum = high":                  ("minimum = high", "number"),
    "minimum = 0.4":                   ("minimum 0.4 is below the baseline 0.5", "raise minimum"),
    "metric = auc":                    ("metric 'auc'", "roc_auc"),
    "positive_if = late":              ("rule 'late'", "dep_delay > 15"),
}

@pytest.mark.parametrize("line", WRONG_GOALS)
def test_wrong_goal(small, line):
    from mlops_nb.train.goal import goal
    (small/"settings.ini").write_text(f"[mlops_nb]\n[goal]\n{line}\n")
    with pytest.raises(BadInput) as e: goal()
    assert all(w in str(e.value) for w in WRONG_GOALS[line]) and "\n" not in str(e.value), e.value

# --- words of the command ---

WRONG_WORDS = {
    "unknown parameter": (["run", "make", "-p", "rosw=6"], "make.ipynb has no parameter 'rosw'", "did you mean 'rows'?"),
    "wrong type":        (["run", "make", "-p", "rows=many"], "rows = 'many' is not int", "5"),
    "not name=value":    (["run", "make", "-p", "rows"], "name=value", "-p rows=1000"),
    "parameter of none": (["run", "-p", "rows=6"], "rows=6", "mlops-nb run train"),
    "unknown stage":     (["run", "mkae"], "no notebook 'mkae'", "did you mean 'make'?"),
    "unknown file":      (["run", "gone/away.ipynb"], "no notebook 'gone/away.ipynb'"),
    "unknown lineage":   (["lineage", "../../x"], "'../../x'", "mlops-nb status"),
}

@pytest.mark.parametrize("name", WRONG_WORDS)
def test_wrong_words(small, name):
    words, *said = WRONG_WORDS[name]
    one_line(cli(*words), 2, *said)
    if words[0] == "run": assert untouched(small), "a wrong word must be seen before anything starts"

def test_usage_errors_are_exit_code_2(small):
    for words in ([], ["runn"], ["run", "--jason"], ["promote", "late", "three", "--reason", "x"]): assert cli(*words).returncode == 2, words

@pytest.mark.parametrize("given, want", [
    ({"rows": "7"}, 7), ({"scale": "2"}, 2.0), ({"scale": -1}, -1.0), ({"tidy": "false"}, False), ({"name": "3"}, "3"), ({"name": 3}, "3"),
    ({"rows": "7.5"}, None), ({"rows": "True"}, None), ({"rows": True}, None), ({"rows": [7]}, None), ({"scale": "nan?"}, None), ({"tidy": "maybe"}, None), ({"tidy": 1}, None), ({"name": ["a"]}, None),
    ({"rows": "__import__('os')"}, None)])
def test_parameter_types(small, given, want):
    (key, value), = given.items()
    path = notebook.find("make")
    if want is not None: assert (got := notebook.check_parameters(path, given)[key]) == want and type(got) is type(want)
    else:
        with pytest.raises(BadInput, match=f"parameter {key} = .* is not"): notebook.check_parameters(path, given)

def test_a_wrong_parameter_of_a_later_stage_stops_before_the_first(small):
    with pytest.raises(BadInput, match="did you mean 'k'"): pipeline.run({"use": {"kk": 2.0}})
    assert untouched(small)

# --- notebooks ---

WRONG_NOTEBOOKS = {
    "truncated":       lambda p: p.write_bytes(p.read_bytes()[:100]),
    "empty":           lambda p: p.write_text(""),
    "binary":          lambda p: p.write_bytes(bytes(range(256))),
    "a list":          lambda p: p.write_text("[]"),
    "no cells":        lambda p: p.write_text("{}"),
    "cells a word":    lambda p: p.write_text('{"cells": "none"}'),
    "old format":      lambda p: p.write_text('{"worksheets": [], "nbformat": 3, "nbformat_minor": 0, "metadata": {}}'),
    "bare cell":       lambda p: p.write_text('{"cells": [{"cell_type": "code"}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}'),
    "unknown format":  lambda p: p.write_text(p.read_text().replace('"nbformat": 4', '"nbformat": 99')),
    "conflict":        lambda p: p.write_text("<<<<<<< HEAD\n" + p.read_text()),
}

@pytest.mark.parametrize("name", WRONG_NOTEBOOKS)
def test_corrupt_notebook(small, name):
    WRONG_NOTEBOOKS[name](small/"nbs/workflows/make.ipynb")
    one_line(cli("run", "make"), 2, "make.ipynb", "restore")
    assert untouched(small)

def test_a_corrupt_notebook_in_the_middle_of_the_pipeline_is_resumed(ready):
    use = ready/"nbs/workflows/use.ipynb"
    whole = use.read_bytes()
    use.write_bytes(whole[:50])
    one_line(cli("run", "--json"), 2, "use.ipynb", "restore")
    use.write_bytes(whole)
    assert [r.state for r in pipeline.run()] == ["skipped", "done"]

WRONG_PARAMETER_CELLS = {"computed": "import os\nrows = len(os.sep)", "not python": "rows = = 5", "magic": "%matplotlib inline\nrows = 5", "unpacked": "rows, k = 5, 6", "attribute": "rows = 5\nrows.x = 6"}

@pytest.mark.parametrize("name", WRONG_PARAMETER_CELLS)
def test_wrong_parameters_cell(small, name):
    "Bad input, or read as far as it can be; never a traceback."
    path = write_notebook(small/"wrong.ipynb", parameters=WRONG_PARAMETER_CELLS[name])
    try: assert notebook.defaults(path)["rows"] == 5
    except BadInput as e: assert "wrong.ipynb" in str(e) and "\n" not in str(e)

@pytest.mark.parametrize("kernel", ["nosuchkernel", None])
def test_a_kernel_that_is_not_installed(small, kernel):
    "No kernel name at all means Python's; an unknown one is bad input."
    write_notebook(small/"other.ipynb", "1 + 1", kernel=kernel)
    done = cli("run", "other.ipynb")
    assert done.returncode == (2 if kernel else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert not kernel or kernel in done.stderr + done.stdout

# --- data ---

NAMES = ["../../x", "/etc/passwd", "", ".", "..", "a/b", "a\\b", ".hidden", "a..b", "x"*101, "a b", "flights\n", "s3://b/x", "fl%2e%2e", "-rf"]

@pytest.mark.parametrize("name", NAMES)
def test_names_of_data_sets(small, name):
    from mlops_nb.data import dataset
    before = files(small)
    for call in (lambda: dataset.commit(pd.DataFrame({"a": [1]}), name), lambda: dataset.append(pd.DataFrame({"a": [1]}), name), lambda: dataset.read(name), lambda: dataset.history(name)):
        with pytest.raises(BadInput, match="letters, digits") as e: call()
        assert repr(name) in str(e.value)
    assert files(small) == before

def test_empty_frames(small):
    from mlops_nb.data import dataset
    for df in (pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame(index=[1, 2])):
        for write in (dataset.commit, dataset.append):
            with pytest.raises(BadInput, match="at least one row"): write(df, "things")
    assert dataset.latest("things") is None and not (small/".mlops/warehouse").exists()
    dataset.commit(pd.DataFrame({"a": [1]}), "things")
    with pytest.raises(BadInput): dataset.commit(pd.DataFrame({"a": []}), "things")
    assert dataset.latest("things") == 0 and len(dataset.read("things")) == 1

def test_other_frames_that_cannot_be_kept(small):
    from mlops_nb.data import dataset
    twice, mixed = pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame({"a": [1, "x", [2]]})
    for df, said in ((twice, "'a' is there twice"), (mixed, "mixes types")):
        with pytest.raises(BadInput, match=said): dataset.commit(df, "things")
    assert dataset.latest("things") is None
    dataset.commit(pd.DataFrame({"a": [1]}), "things")
    for ask, said in ((dict(version=7), "no version 7"), (dict(version=-1), "no version -1"), (dict(columns=["b"]), "b"), (dict(where=[("b", "==", 1)]), "b"), (dict(where=[("a", "~", 1)]), "operator")):
        with pytest.raises(BadInput, match=said): dataset.read("things", **ask)
    with pytest.raises(BadInput): dataset.append(pd.DataFrame({"a": ["text"]}), "things")
    assert dataset.latest("things") == 0

# --- the train stage on data that cannot be learnt from ---

def commit_flights(labels):
    from mlops_nb.data import dataset
    when = pd.date_range("2013-01-01", periods=len(labels), freq="6h")
    ids = [f"f{i}" for i in range(len(when))]
    dataset.commit(pd.DataFrame({"flight_id": ids, "scheduled": when, "distance": range(len(when)), "origin": ["JFK", "EWR"]*(len(when)//2)}), "flights")
    dataset.commit(pd.DataFrame({"id": ids, "time": when, "label": pd.array(labels, "Int8"), "source": "rule"}), "flight_labels")

CLASSES = {"one class": ([0]*120, "one class"), "one class in the holdout": ([0, 1]*30 + [0]*60, "answers are the same"), "no label at all": ([None]*120, "label")}

def test_targets_that_cannot_be_learnt(project):
    "One kernel after the other on the real stage; no model is registered, and the stage runs again when the data is mended."
    (project/"nbs/workflows/flights.toml").unlink()   # these flights have few columns, and a contract of their own
    for labels, said in CLASSES.values():
        commit_flights(labels)
        ended = notebook.run("train", {"dataset_name": "flights", "slices": ["origin"]})
        assert ended.exit_code == 2 and said in ended.error and "\n" not in ended.error, ended
    notebook.wait_for_pages()
    assert ledger.touched(kind="model").empty
    assert list(ledger.runs(stage="train").state) == ["failed"]*len(CLASSES)
    assert changes.stale(notebook.find("train"), notebook.check_parameters(notebook.find("train"), {}))

def test_a_data_set_name_that_climbs_out_of_the_warehouse(project):
    ended = notebook.run("label", {"outcomes_name": "../../x"})
    notebook.wait_for_pages()
    assert ended.exit_code == 2 and "'../../x' is not allowed" in ended.error
    assert not (project.parent/"x").exists()

@pytest.mark.parametrize("words, said", [
    (["run", "--workers", "0"], ["0 workers", "1 or more"]), (["run", "make", "--retries", "-1"], ["-1 retries", "0 or more"]),
    (["run", "make", "--timeout", "-5"], ["-5 s", "above 0"]), (["run", "make", "-p", "rows=1", "-p", "rows=2"], ["rows", "twice"]),
    (["run", "make", "--sweep", "rows=1", "rows=2"], ["rows", "twice", "rows=1,2,3"]), (["run", "make", "--metric", "auc"], ["--metric", "--sweep"]),
    (["run", "make", "--sweep", "rows=1,2", "--html"], ["--html", "--sweep"]), (["rnu"], ["'rnu'", "did you mean 'run'"])])
def test_options_that_cannot_be(small, words, said):
    one_line(cli(*words), 2, *said)
    assert json.loads(cli(*words, "--json").stdout)["exit_code"] == 2
    assert ledger.runs().empty

def test_a_folder_that_is_gone(small, tmp_path):
    (tmp_path/"gone").mkdir()
    code = "import os; os.rmdir(os.getcwd()); from mlops_nb.cli.cli import main; import sys; sys.exit(main())"
    done = subprocess.run([sys.executable, "-P", "-c", code, "status"], cwd=tmp_path/"gone", env={k: v for k, v in os.environ.items() if k != "MLOPS_NB_ROOT"}, capture_output=True, text=True, timeout=60)
    one_line(done, 2, "working directory is gone")

def test_notebooks_that_are_none(small):
    "A name that is not text, a link to nowhere, a folder."
    workflows = small/"nbs/workflows"
    strange = os.fsencode(workflows/"b") + b"\xff.ipynb"
    shutil.copy(workflows/"make.ipynb", strange)
    one_line(cli("run", os.fsdecode(strange)), 2, "not UTF-8", "rename it")
    (workflows/"away.ipynb").symlink_to("nowhere.ipynb")
    (workflows/"folder.ipynb").mkdir()
    for name in ("away", "folder"): one_line(cli("run", name), 2, f"no notebook {name!r}")
    assert untouched(small)

def test_no_standard_streams(small):
    "As some schedulers start a process."
    assert subprocess.run(["sh", "-c", '"$@" run make --force <&- >&- 2>&-', "sh", *MAIN]).returncode == 0
    assert list(ledger.runs().state) == ["done"]

def test_results_that_nobody_can_read(ready):
    with open("/dev/full", "w") as full: done = subprocess.run([*MAIN, "status"], cwd=ready, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("mlops-nb: ") == 1 and "no space left" in done.stderr
    done = subprocess.run(f"{shlex.join(MAIN)} status | head -c 1", shell=True, cwd=ready, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("s", "")
