"A stage runs unchanged in JupyterLab, under stock papermill and under our runner; the pipeline skips what is unchanged and nothing else."
import json, os, shutil, subprocess, sys
from pathlib import Path

import pytest

from conftest import ROOT, cli, files, states, write_notebook, write_settings
from mlops_nb.core import ledger
from mlops_nb.run import changes, notebook, pipeline

pytestmark = pytest.mark.usefixtures("warm_kernels")
PAPERMILL = Path(sys.executable).with_name("papermill")

def edit(path, old, new):
    text = Path(path).read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    Path(path).write_text(text.replace(old, new), encoding="utf-8")

def ran(): return {r.stage: r.state for r in pipeline.run()}

# --- three ways ---

WITHOUT = {k: None for k in ("MLOPS_NB_ROOT", "MLOPS_NB_RUN")}                  # the project is found from the working directory

def stock(folder, source, *words):
    "Stock papermill in that folder, with nothing of ours in the environment."
    env = {k: v for k, v in {**os.environ, **WITHOUT}.items() if v is not None}
    out = folder/"out.ipynb"
    done = subprocess.run([PAPERMILL, source, out, *words, "--no-progress-bar"], cwd=folder, env=env, capture_output=True, text=True)
    (kept := out.exists()) and out.unlink()
    return done, kept

@pytest.mark.parametrize("where", [".", "deep/er"])
def test_stock_papermill(small, where):
    "From any working directory inside the project: the same ledger, a run made on the fly that knows its notebook and how it ended."
    folder = small/where
    folder.mkdir(parents=True, exist_ok=True)
    done, _ = stock(folder, os.path.relpath(small/"nbs/workflows/make.ipynb", folder), "-p", "rows", "7")
    assert done.returncode == 0, done.stderr
    run, = ledger.runs().itertuples()
    assert (run.stage, run.state) == ("make", "done") and run.notebook.endswith("make.ipynb") and run.ended
    assert list(ledger.touched(run=run.id).version) == ["7"]
    assert [f for f in files(small) if "/.mlops/" in f] == [], "a second store was made"

def test_stock_papermill_that_fails(small):
    "A stage that failed was not done, whoever ran it."
    write_notebook(small/"nbs/workflows/make.ipynb", *["from mlops_nb.core import ledger\nledger.wrote('thing', 'parts', 1)", "1/0"])
    done, kept = stock(small, "nbs/workflows/make.ipynb")
    assert done.returncode != 0 and kept
    assert list(ledger.runs(stage="make").state) == ["failed"]

def test_run_all_in_jupyterlab(small, monkeypatch):
    "nbclient as JupyterLab's server drives it: the notebook's folder is the working directory, the session's name in the environment."
    import nbformat
    from nbclient import NotebookClient
    path = small/"nbs/workflows/make.ipynb"
    monkeypatch.delenv("MLOPS_NB_ROOT")
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    nb = nbformat.read(path, as_version=4)
    NotebookClient(nb, resources={"metadata": {"path": str(path.parent)}}).execute()
    monkeypatch.setenv("MLOPS_NB_ROOT", str(small))
    run, = ledger.runs().itertuples()
    assert (run.stage, run.state) == ("make", "done") and list(ledger.touched(run=run.id).version) == ["5"]

def test_a_real_stage_three_ways(project, monkeypatch):
    "`label` of the repository: each way commits the same labels, and the ledger tells which notebook did."
    import pandas as pd
    from mlops_nb.data import dataset
    when = pd.date_range("2013-01-01", periods=40, freq="6h")
    dataset.commit(pd.DataFrame({"flight_id": [f"f{i}" for i in range(40)], "scheduled": when, "dep_delay": [0.0, 30.0]*20, "arr_delay": 1.0}), "flight_outcomes")
    (project/"deep").mkdir()
    done, _ = stock(project/"deep", "../nbs/workflows/label.ipynb")
    assert done.returncode == 0, done.stderr
    done = cli("run", "label", "--force", "--json")   # the run of stock papermill would do
    assert done.returncode == 0 and states(done) == {"label": "done"}, done.stderr
    import nbformat
    from nbclient import NotebookClient
    path = project/"nbs/workflows/label.ipynb"
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    NotebookClient(nbformat.read(path, as_version=4), resources={"metadata": {"path": str(path.parent)}}).execute()
    runs = ledger.runs(stage="label")
    assert list(runs.state) == ["done"]*3
    for id in runs.id:
        io = ledger.touched(run=id)
        assert set(zip(io.direction, io.name)) >= {("read", "flight_outcomes"), ("read", "goal")}, io
    assert dataset.read("flight_labels").label.mean() == .5
    assert ledger.lineage("dataset", "flight_labels")[0]["stage"] == "label"

# --- skipping ---

def test_nothing_has_changed(ready):
    assert ran() == dict(make="skipped", use="done")
    assert ran() == dict(make="skipped", use="skipped")
    assert {r["stale"] for r in pipeline.status()} == {""}

def changed(stage, **given):
    "Why the stage would run, as `mlops-nb run --dry-run` says; empty when it would not."
    path = notebook.find(stage)
    return "; ".join(changes.stale(path, notebook.check_parameters(path, given)))

def test_what_makes_a_stage_run_again(ready):
    "Code, parameters and versions do; prose, outputs and order of keys do not."
    make = ready/"nbs/workflows/make.ipynb"
    whole = make.read_text()
    assert changed("make") == ""
    nb = json.loads(whole)
    nb["cells"].insert(0, dict(cell_type="markdown", id="m", metadata={}, source="# Other words"))
    nb["cells"][1]["outputs"], nb["cells"][1]["execution_count"] = [dict(output_type="stream", name="stdout", text="7")], 7
    make.write_text(json.dumps(nb, sort_keys=True))
    assert changed("make") == "", "prose and outputs are no reason"
    edit(make, "ledger.wrote('thing', 'parts', rows)", "ledger.wrote('thing', 'parts', rows + 1)")
    assert changed("make") == "its code changed"
    make.write_text(whole)
    assert changed("make", rows=5) == "" and changed("make", rows="5") == "" and changed("make", rows=6) == "it has not run with these parameters"

def test_a_new_version_runs_what_read_it(ready):
    assert ran()["use"] == "done"
    assert [r.state for r in pipeline.run({"make": {"rows": 6}})] == ["done", "done"]
    io = ledger.touched(run=ledger.runs(stage="use").id.iloc[-1])
    assert list(io.version[io.direction == "read"]) == ["6"]

def test_two_stages_that_write_the_same_thing_settle(ready):
    "As train and retrain do with a model: that the other one wrote a newer version is no reason to write again."
    write_notebook(ready/"nbs/workflows/use.ipynb", "from mlops_nb.core import ledger\nledger.wrote('thing', 'parts', 8)")
    assert ran() == dict(make="skipped", use="done")
    assert ran() == dict(make="skipped", use="skipped")

READS = ["import json\nfrom mlops_nb.data import dataset\nfrom mlops_nb.train.goal import goal", "dataset.read('things'); dataset.read('pinned', version=0); goal().minimum"]

def test_data_and_goal(ready):
    "A newer version of what was read is a reason, of a pinned one not; [goal] is one, another section not, for who read it."
    import pandas as pd
    from mlops_nb.data import dataset
    for name in ("things", "pinned"): dataset.commit(pd.DataFrame({"a": [1]}), name)
    write_notebook(ready/"nbs/workflows/use.ipynb", *READS)
    assert ran()["use"] == "done" and changed("use") == ""
    dataset.commit(pd.DataFrame({"a": [2]}), "pinned")
    assert changed("use") == ""
    edit(ready/"settings.ini", "[pipeline]", "[other]\nx = 1\n\n[pipeline]")
    assert changed("use") == ""
    edit(ready/"settings.ini", "minimum = 0.6", "minimum = 0.7")
    assert changed("use") == "settings goal.minimum was 0.6 and is 0.7" and changed("make") == ""
    edit(ready/"settings.ini", "minimum = 0.7", "minimum = 0.6")
    assert changed("use") == ""
    dataset.append(pd.DataFrame({"a": [2]}), "things")
    assert changed("use") == "dataset things was 0 and is 1"
    shutil.rmtree(ready/".mlops/warehouse/things")
    assert changed("use") == "dataset things is gone"

def test_library_code(ready, monkeypatch):
    "The project's own package and the toolkit: a change in what the notebook imports, at any depth, is a reason; another module is none."
    code = ready/"code"
    shutil.copytree(ROOT/"mlops_nb", code/"mlops_nb", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in {"__init__": "", "near": "from .far import f", "far": "def f(): return 1", "other": ""}.items():
        (ready/"flightlib").mkdir(exist_ok=True)
        (ready/f"flightlib/{name}.py").write_text(text + "\n")
    write_notebook(ready/"nbs/workflows/use.ipynb", "from flightlib.near import f\nfrom mlops_nb.core import ledger", "f()")
    env = dict(PYTHONPATH=os.pathsep.join(map(str, (code, ready))))
    def would(): return {r["stage"]: r["because"] for r in json.loads(cli("run", "--dry-run", "--json", **env).stdout)}
    assert cli("run", **env).returncode == 0
    for paths, want in (((ready/"flightlib/other.py", code/"mlops_nb/monitor/drift.py"), ""), ((ready/"flightlib/far.py",), "flightlib/far.py changed")):
        for path in paths:
            with open(path, "a") as f: f.write("x = 1\n")
        assert would() == dict(make="", use=want), paths
    with open(code/"mlops_nb/core/secrets.py", "a") as f: f.write("x = 1\n")
    assert would() == dict(make="mlops_nb/core/secrets.py changed", use="flightlib/far.py changed; mlops_nb/core/secrets.py changed")

def test_a_package_in_the_project_s_folder(ready):
    "Kernels start in the project's folder and so import what lies there; its changes count, installed or not."
    (ready/"beside.py").write_text("def f(): return 1\n")
    (ready/"flightlib").mkdir()
    (ready/"flightlib/__init__.py").write_text("def f(): return 1\n")
    write_notebook(ready/"nbs/workflows/use.ipynb", "from flightlib import f\nfrom beside import f as g", "assert f() + g() == 2")
    assert notebook.run("use").state == "done" and changed("use") == ""
    notebook.wait_for_pages()
    for path in (ready/"flightlib/__init__.py", ready/"beside.py"):
        path.write_text("def f(): return 2\n")
        assert changed("use") == f"{path.relative_to(ready)} changed"
        path.write_text("def f(): return 1\n")
        assert changed("use") == ""

def test_our_runner_and_stock_papermill_take_turns(ready):
    "A run by stock papermill in between makes nothing stale that is not."
    done, _ = stock(ready, "nbs/workflows/make.ipynb")
    assert done.returncode == 0, done.stderr
    assert changed("make") == ""
    assert pipeline.status()[0]["state"] == "done" and pipeline.status()[0]["stale"] in ("", "it has not run with these parameters"), pipeline.status()[0]

# --- looking ---

def test_lineage_and_status(ready, capfd):
    "As a tree for people and as rows for programs."
    import pandas as pd
    from mlops_nb.cli.cli import main
    from mlops_nb.data import dataset
    def said(*words):
        code = main(list(words))
        return capfd.readouterr().out if code == 0 else code
    assert said("status").count("never ran") == 1
    assert ran()["use"] == "done"
    rows = json.loads(said("status", "--json"))
    assert [(r["stage"], r["state"], r["stale"]) for r in rows] == [("make", "done", ""), ("use", "done", "")] and rows[0]["seconds"] > 0
    dataset.commit(pd.DataFrame({"a": [1]}), "things")
    again = write_notebook(ready/"again.ipynb", "from mlops_nb.data import dataset\ndf = dataset.read(source)\nversion = dataset.commit(df, 'more')", parameters="source = 'things'")
    assert json.loads(said("run", str(again), "--json"))[0]["note"].endswith(".ipynb")
    tree = said("lineage", "more").splitlines()
    assert tree[0].startswith("dataset more 0  <- again ") and tree[1].startswith("  dataset things 0")
    rows = json.loads(said("lineage", "more", "--json"))
    assert [(r["depth"], r["name"]) for r in rows[:2]] == [(0, "more"), (1, "things")] and rows[0]["parameters"] == {"source": "things"}
    assert said("lineage", "more", "--version", "9") == 2
    assert {r["would"] for r in json.loads(said("run", "--dry-run", "--json"))} == {"skip"}

def test_data_on_stdout_progress_on_stderr(ready):
    write_notebook(ready/"nbs/workflows/use.ipynb", "print('of the kernel')")
    done = cli("run", "--json")
    lines = done.stderr.splitlines()
    assert states(done) == dict(make="skipped", use="done") and "\x1b" not in done.stdout + done.stderr
    assert lines[0] == "[2/2] use" and lines[-1].startswith("[2/2] use done, ") and "of the kernel" not in done.stdout, lines

def verbs():
    from mlops_nb.cli.cli import parser
    return next(a for a in parser()._actions if a.dest == "verb").choices

def test_every_verb_has_an_example(capsys):
    "A real one: the parser takes it. No heavy import on the way."
    import shlex
    from mlops_nb.cli.cli import parser
    for name in verbs():
        with pytest.raises(SystemExit) as e: parser().parse_args([name, "--help"])
        text = capsys.readouterr().out
        assert e.value.code == 0 and "--json" in text and f"example: mlops-nb {name}" in text, text
        words = shlex.split(text.split("example: ")[1].splitlines()[0])
        assert parser().parse_args(words[1:]).verb == name
    probe = "import sys\nfrom mlops_nb.cli.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\nprint([m for m in ('pandas', 'sqlalchemy', 'papermill', 'mlflow', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.splitlines()[-1] == "[]"

# --- and leaves nothing behind ---

def test_the_root_of_these_tests_is_not_the_repository():
    from mlops_nb.core import config
    assert ROOT not in (config.root(), *config.root().parents)
