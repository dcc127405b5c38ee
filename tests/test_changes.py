"What makes a notebook run again, and what does not: observed modules, packages, versions, settings, files, clocks, other runners, old ledgers."
import json, os, shutil, signal, sqlite3, subprocess, sys, time
from functools import partial
from pathlib import Path

import pytest

from conftest import ROOT, wait_until, write_notebook, write_settings
from mlops_nb.core import database, ledger, source
from mlops_nb.run import changes, notebook

def why(path, **given): return changes.stale(path, notebook.check_parameters(path, given))

def done(path, **given):
    ended = notebook.run(path, given)
    assert ended.state == "done", ended
    return ended

@pytest.fixture
def home(tmp_path, monkeypatch):
    "An empty project."
    folder = tmp_path/"home"
    folder.mkdir()
    write_settings(folder, mlops_nb=dict(lock_timeout="5"), goal=dict(minimum="0.66", metric="roc_auc"))
    monkeypatch.setenv("MLOPS_NB_ROOT", str(folder))
    yield folder
    ledger.close()

def edit(path, old, new):
    text = Path(path).read_text(encoding="utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new), encoding="utf-8")

# --- code ---

def test_prose_outputs_and_blank_cells_are_no_code(home):
    path = write_notebook(home/"a.ipynb", "x = 1", parameters="n = 1")
    done(path)
    nb = json.loads(path.read_text())
    for c in nb["cells"]: c["outputs"], c["execution_count"] = [dict(output_type="stream", name="stdout", text="7")], 7
    nb["cells"] = [dict(cell_type="markdown", id="m", metadata={}, source="# A"), *nb["cells"], dict(cell_type="code", id="e", metadata={}, source="\n", outputs=[], execution_count=None)]
    nb["metadata"]["kernelspec"]["display_name"] = "Python, by another name"
    path.write_text(json.dumps(nb))
    assert why(path) == []
    edit(path, "x = 1", "x = 2")
    assert why(path) == ["its code changed"]

LOADS = {
    "import":        "import helper",
    "by name":       "import importlib\nimportlib.import_module('hel' + 'per')",
    "in a function": "def f():\n    from helper import g\n    return g()\nf()",
    "by its file":   "import importlib.util as u\ns = u.spec_from_file_location('other_name', 'helper.py')\nm = u.module_from_spec(s)\ns.loader.exec_module(m)",
    "%run":          "%run helper.py",
    "by another":    "import near",
}

@pytest.mark.parametrize("way", LOADS)
def test_a_module_counts_however_it_was_loaded(home, way):
    for name, text in dict(helper="def g(): return 1\n", near="import helper\n", other="def g(): return 1\n").items(): (home/f"{name}.py").write_text(text)
    path = write_notebook(home/"a.ipynb", LOADS[way])
    done(path)
    (home/"other.py").write_text("def g(): return 2\n")
    assert why(path) == []
    (home/"helper.py").write_text("def g(): return 2\n")
    assert why(path) == ["helper.py changed"]
    (home/"helper.py").unlink()
    assert why(path) == ["helper.py is gone"]
    (home/"helper.py").write_text("def g(): return 1\n")
    assert why(path) == []

def test_a_module_of_the_toolkit_is_named_as_such(home):
    path = write_notebook(home/"a.ipynb", "from mlops_nb.core import ledger\nfrom mlops_nb.train import goal")
    id = done(path).run
    run, = ledger.rows("run", id=id)
    assert {"mlops_nb/core/ledger.py", "mlops_nb/train/goal.py"} <= set(json.loads(ledger.snapshots([run["modules"]])[run["modules"]]))
    assert ledger.rows("io", run=id) == [], "modules stand with the run, not among what it read"

def test_a_module_edited_while_it_ran_matches_nothing(home):
    "Whether it was loaded before or after the edit, nobody knows."
    (home/"helper.py").write_text("x = 1\n")
    path = write_notebook(home/"a.ipynb", "import helper", "from pathlib import Path\nPath('helper.py').write_text('x = 2\\n')")
    done(path)
    assert why(path) == ["helper.py was edited while it ran"]

def test_a_module_that_went_while_it_ran_matches_nothing(home):
    (home/"helper.py").write_text("x = 1\n")
    path = write_notebook(home/"a.ipynb", "import helper, os\nos.remove('helper.py')")
    done(path)
    assert why(path) == ["helper.py is gone"]
    (home/"helper.py").write_text("x = 1\n")
    assert why(path) == ["helper.py was edited while it ran"]

def test_a_module_that_another_one_hides(home, tmp_path, monkeypatch):
    "An import would find other code now: a package beside the module, or a module of the project before one of another folder."
    (tmp_path/"elsewhere/kit").mkdir(parents=True)
    for name in ("elsewhere/far.py", "elsewhere/kit/__init__.py", "elsewhere/kit/deep.py"): (tmp_path/name).write_text("x = 1\n")
    (home/"helper.py").write_text("x = 1\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path/'elsewhere'}{os.pathsep}{os.environ['PYTHONPATH']}")
    path = write_notebook(home/"a.ipynb", "import helper, far, kit.deep")
    done(path)
    assert why(path) == []
    (home/"helper").mkdir()
    (home/"helper/__init__.py").write_text("x = 2\n")
    assert why(path) == ["helper.py is hidden by helper/__init__.py"]
    shutil.rmtree(home/"helper")
    (home/"far.py").write_text("x = 2\n")
    assert [w.split("/")[-1] for w in why(path)] == ["far.py is hidden by far.py"]
    (home/"far.py").unlink()
    (home/"kit.py").write_text("x = 2\n")
    assert len(why(path)) == 2 and all(w.endswith("is hidden by kit.py") for w in why(path))

def test_a_cell_that_is_not_run_is_no_code(home):
    path = write_notebook(home/"a.ipynb", "x = 1", "1/0")
    tag(path, 1, "skip-execution")
    done(path)
    edit(path, "1/0", "2/0")
    assert why(path) == []
    tag(path, 1)
    assert why(path) == ["its code changed"]

def tag(path, n, *tags):
    nb = json.loads(path.read_text())
    nb["cells"][n]["metadata"]["tags"] = list(tags)
    path.write_text(json.dumps(nb))

def test_what_changed_between_two_reads(home):
    (home/"f.txt").write_text("A")
    path = write_notebook(home/"a.ipynb", "from pathlib import Path\nfrom mlops_nb.core import store\nfile = str(Path('f.txt').resolve())\na = store.read_text(file)", "Path(file).write_text('B')\nb = store.read_text(file)")
    done(path)
    assert [w.rpartition(" ")[0].split()[-3:] for w in why(path)] == [["changed", "while", "it"]]

def test_a_notebook_that_takes_builtins_names(home):
    path = write_notebook(home/"a.ipynb", "exec = sorted = type = 5")
    done(path)
    assert why(path) == []

def test_a_file_from_the_future_and_a_clock_set_back(home, monkeypatch):
    "A module dated tomorrow is no edit; the newest run is the one written down last, whatever its date says."
    from datetime import datetime, timedelta, timezone
    helper = home/"helper.py"
    helper.write_text("x = 1\n")
    os.utime(helper, (time.time() + 86_400,)*2)
    time.sleep(.02)
    path = write_notebook(home/"a.ipynb", "import helper", parameters="n = 1")
    done(path)
    assert why(path) == []
    class Yesterday(datetime):
        @classmethod
        def now(cls, tz=None): return datetime.now(timezone.utc) - timedelta(days=1)
    monkeypatch.setattr(ledger, "datetime", Yesterday)
    helper.write_text("x = 2\n")
    assert why(path) == ["helper.py changed"]
    time.sleep(.02)
    later = done(path).run
    assert later < ledger.rows("run")[0]["id"], "it is dated before the first"
    assert why(path) == [] and list(ledger.runs().id)[-1] == later and ledger.last_runs()["a"]["id"] == later

def test_packages_are_named(home, tmp_path, monkeypatch):
    site = tmp_path/"site"
    (site/"flightlib-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(site))
    path = write_notebook(home/"a.ipynb", "1")
    done(path)
    assert why(path) == []
    (site/"flightlib-1.0.dist-info").rename(site/"flightlib-1.1.dist-info")
    (site/"mlops_nb-9.dist-info").mkdir()
    assert why(path) == ["packages changed: flightlib 1.0 -> 1.1"], "of the toolkit itself each module counts, not the version"
    shutil.rmtree(site/"flightlib-1.1.dist-info")
    assert why(path) == ["packages changed: flightlib 1.0 is gone"]

# --- what it read and wrote ---

def test_settings_are_named_by_their_keys(home):
    path = write_notebook(home/"a.ipynb", "from mlops_nb.train.goal import goal\ngoal()")
    done(path)
    edit(home/"settings.ini", "minimum = 0.66", "minimum = 0.7\nmax_drop = 0.1")
    assert why(path) == ["settings goal.minimum was 0.66 and is 0.7, goal.max_drop 0.1 is new"]
    edit(home/"settings.ini", "minimum = 0.7\nmax_drop = 0.1", "minimum = 0.66")
    edit(home/"settings.ini", "lock_timeout = 5", "lock_timeout = 6")
    assert why(path) == []

def test_data_files_and_outputs(home):
    import pandas as pd
    from mlops_nb.data import dataset
    (home/"routes.csv").write_text("a,b")
    dataset.commit(pd.DataFrame({"a": [1]}), "flights")
    path = write_notebook(home/"a.ipynb", "from mlops_nb.core import store\nfrom mlops_nb.data import dataset\nstore.read_text('routes.csv')\ndataset.commit(dataset.read('flights'), 'copy')")
    ended = done(path)
    assert why(path) == []
    (home/"routes.csv").write_text("a,c")
    assert why(path)[0].startswith("file routes.csv was ")
    (home/"routes.csv").write_text("a,b")
    dataset.append(pd.DataFrame({"a": [1]}), "flights")
    assert why(path) == ["dataset flights was 0 and is 1"]
    shutil.rmtree(home/".mlops/warehouse/copy")
    Path(ended.output).unlink()
    assert why(path) == ["dataset flights was 0 and is 1", "dataset copy is gone", f"its output reports/runs/a/{ended.run}.ipynb is gone"]

def test_a_table_made_anew_is_not_the_one_it_wrote(home):
    import pandas as pd
    from mlops_nb.data import dataset
    path = write_notebook(home/"a.ipynb", "import pandas as pd\nfrom mlops_nb.data import dataset\nfor i in range(3): dataset.commit(pd.DataFrame({'a': [i]}), 'things')")
    done(path)
    shutil.rmtree(home/".mlops/warehouse/things")
    dataset.commit(pd.DataFrame({"a": [1]}), "things")
    assert why(path) == ["dataset things 2 is gone"]

def test_a_table_made_anew_is_not_the_one_it_read(home):
    "Both are version 0, and the rows differ."
    import pandas as pd
    from mlops_nb.data import dataset
    make, use = write_notebook(home/"make.ipynb", "import pandas as pd\nfrom mlops_nb.data import dataset\ndataset.commit(pd.DataFrame({'a': [rows]}), 'things')", parameters="rows = 1"), write_notebook(home/"use.ipynb", "from mlops_nb.data import dataset\ndataset.read('things')")
    done(make), done(use)
    assert why(make) == why(use) == []
    shutil.rmtree(home/".mlops/warehouse/things")
    done(make, rows=2)
    assert why(use) == ["dataset things 0 was written anew"]

GROWS = "from mlops_nb.core import ledger\nseen = ledger.rows('io', kind='thing', name='log', direction='write')\nledger.read('thing', 'log', len(seen))\nledger.wrote('thing', 'log', len(seen) + 1)"

def test_its_own_writes_never_make_it_stale(home):
    "Nor those of the same notebook with other parameters; those of another notebook do, also of one with the same name elsewhere."
    path, other = write_notebook(home/"a.ipynb", GROWS, parameters="day = 1"), write_notebook(home/"deep/a.ipynb", GROWS)
    done(path), done(path, day=2), done(path, day=3)
    assert why(path) == why(path, day=2) == []
    assert why(other) == [changes.NEVER]
    done(other)
    assert why(path) == ["thing log was 0 and is 4"] and why(path, day=3) == ["thing log was 2 and is 4"]

def test_what_was_written_between_its_read_and_its_write_counts(home):
    path = home/"a.ipynb"
    write_notebook(path, "1")
    def run(notebook): return ledger.start_run(source.place(notebook), {}, code=source.code_hash(path), environment=source.environment())
    mine, other = run(path), run(home/"other.ipynb")
    def io(run, direction, version): ledger.insert("io", dict(run=run, direction=direction, kind="thing", name="log", version=version, asked="latest" if direction == "read" else "", at=""))
    io(mine, "read", "0"), io(other, "write", "1"), io(mine, "write", "2")
    ledger.end_run(mine, "done", modules={})
    assert why(path) == ["thing log was 0 and is 2"]

def test_what_moved_back_has_not_moved(home):
    path = write_notebook(home/"a.ipynb", "from mlops_nb.core import ledger\nledger.read('alias', 'late@champion', 1)")
    done(path)
    ledger.wrote("alias", "late@champion", 2)
    assert why(path) == ["alias late@champion was 1 and is 2"]
    ledger.wrote("alias", "late@champion", 1)
    assert why(path) == []

def test_a_later_try_that_failed(home):
    path = write_notebook(home/"a.ipynb", "from pathlib import Path\nassert not Path('broken').exists(), 'it is broken'")
    done(path)
    (home/"broken").touch()
    assert notebook.run(path, force=True).state == "failed"
    assert why(path) == ["its last run failed: AssertionError: it is broken"]
    (home/"broken").unlink()
    done(path)
    assert why(path) == []

# --- other runners ---

WITHOUT = {k: None for k in ("MLOPS_NB_ROOT", "MLOPS_NB_RUN", "JPY_SESSION_NAME")}
KEEPS = "from mlops_nb.core import ledger\nledger.wrote('thing', 'parts', rows)\nimport helper"

def stock(folder, *words, **env):
    full = {k: v for k, v in {**os.environ, **WITHOUT, **env}.items() if v is not None}
    return subprocess.run([str(Path(sys.executable).with_name(words[0])), *map(str, words[1:])], cwd=folder, env=full, capture_output=True, text=True, timeout=120)

@pytest.fixture
def keeps(home):
    (home/"helper.py").write_text("x = 1\n")
    time.sleep(.02)
    return write_notebook(home/"nbs/a.ipynb", KEEPS, "1 + 1", parameters="rows = 5\nshare = .5")

def test_runs_of_stock_papermill_count(home, keeps):
    "From another folder, with parameters on the command line."
    (home/"else").mkdir()
    words = "papermill ../nbs/a.ipynb ../out.ipynb -p rows 7 -p share 1 --cwd .. --no-progress-bar --log-level ERROR"
    ended = subprocess.run(["sh", "-c", f"cd '{home}/else' && {Path(sys.executable).parent}/{words}"], env={k: v for k, v in os.environ.items() if k not in WITHOUT}, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    run, = ledger.rows("run")
    assert (run["notebook"], run["state"], json.loads(run["parameters"])) == ("nbs/a.ipynb", "done", {"rows": 7, "share": 1})
    assert why(keeps, rows=7, share=1.0) == [] and why(keeps) == [changes.NEVER]
    (home/"helper.py").write_text("x = 2\n")
    assert why(keeps, rows=7, share=1.0) == ["helper.py changed"]

def test_runs_of_nbclient_count(home, keeps):
    ended = stock(home, "jupyter", "execute", "nbs/a.ipynb", PYTHONPATH=os.pathsep.join([str(ROOT), str(home)]))
    assert ended.returncode == 0, ended.stderr
    assert why(keeps) == []

def test_a_stock_run_that_was_broken_off_does_not_count(home, keeps):
    nb = json.loads(keeps.read_text())
    nb["cells"].append(dict(cell_type="code", id="w", metadata={}, source="open('at', 'w').close()\nimport time\ntime.sleep(60)", outputs=[], execution_count=None))
    nb["cells"].append(dict(cell_type="code", id="l", metadata={}, source="'last'", outputs=[], execution_count=None))
    keeps.write_text(json.dumps(nb))
    env = {k: v for k, v in os.environ.items() if k not in WITHOUT}
    process = subprocess.Popen([Path(sys.executable).with_name("papermill"), "nbs/a.ipynb", "out.ipynb", "--no-progress-bar"], cwd=home, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))   # a shell's background jobs, such as this test may be one of, ignore it
    wait_until("it waits", (home/"at").exists, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    wait_until("its end is written down", lambda: ledger.last_runs()["a"]["state"] != "running")
    assert ledger.last_runs()["a"]["state"] in ("failed", "interrupted") and why(keeps) == [changes.NEVER]

def test_a_stock_run_that_went_on_after_an_error_does_not_count(home):
    path = write_notebook(home/"a.ipynb", "from mlops_nb.core import ledger\nledger.read('thing', 'parts', 1)", "1/0", "'last'")
    ended = stock(home, "jupyter", "execute", "--allow-errors", "a.ipynb")
    assert ended.returncode == 0, ended.stderr
    assert (ledger.last_runs()["a"]["state"], why(path)) == ("failed", [changes.NEVER])

def test_sessions_of_jupyterlab_do_not_count(home, keeps):
    "A person may have run half of the cells, in any order."
    ended = stock(home, "jupyter", "execute", "nbs/a.ipynb", PYTHONPATH=os.pathsep.join([str(ROOT), str(home)]), JPY_SESSION_NAME=str(keeps))
    assert ended.returncode == 0, ended.stderr
    run, = ledger.rows("run")
    assert (run["state"], run["notebook"]) == ("done", "nbs/a.ipynb") and why(keeps) == [changes.NEVER]
    done(keeps)
    edit(keeps, "1 + 1", "1/0")
    assert stock(home, "jupyter", "execute", "nbs/a.ipynb", PYTHONPATH=os.pathsep.join([str(ROOT), str(home)]), JPY_SESSION_NAME=str(keeps)).returncode
    edit(keeps, "1/0", "1 + 1")
    assert ledger.last_runs()["a"]["state"] == "failed" and why(keeps) == [], "an error in a session is nobody's business"

NOTHING = ["from mlops_nb.core import ledger\nledger.read('thing', 'news', 0)\nledger.nothing_to_do('no news')\nprint('the rest of the cell')", "%%bash\nexit 1", "1/0", "a syntax error"]

def test_nothing_to_do(home):
    "The cells that follow are passed over, without an error; the run says why, and stands until there is news."
    path = write_notebook(home/"a.ipynb", *NOTHING)
    ended = done(path)
    assert ended.note == "nothing to do: no news" and "the rest of the cell" in Path(ended.output).read_text()
    assert why(path) == [] and notebook.run(path).note == "nothing to do: no news"
    ledger.wrote("thing", "news", 1)
    assert why(path) == ["thing news was 0 and is 1"]

def test_nothing_to_do_under_stock_papermill(home):
    path = write_notebook(home/"a.ipynb", *NOTHING)
    ended = stock(home, "papermill", "a.ipynb", "out.ipynb", "--no-progress-bar")
    assert ended.returncode == 0, ended.stderr
    run, = ledger.rows("run")
    assert (run["state"], run["note"]) == ("done", "nothing to do: no news") and why(path) == []

# --- the ledger ---

def test_a_run_whose_process_is_gone(home):
    "Everybody sees that it was interrupted; the next runner writes it down. One that lives is left alone."
    dead = subprocess.run([sys.executable, "-c", "from mlops_nb.core import ledger\nprint(ledger.start_run('a.ipynb'))"], capture_output=True, text=True, check=True).stdout.strip()
    alive = ledger.start_run("b.ipynb")
    assert {r.id: r.state for r in ledger.runs().itertuples()} == {dead: "interrupted", alive: "running"}
    assert list(ledger.runs(state="interrupted").id) == [dead] and ledger.rows("run")[0]["state"] == "running"
    assert (ledger.close_dead(), ledger.close_dead()) == (1, 0)
    assert [r["state"] for r in ledger.rows("run")] == ["interrupted", "running"]

def test_a_number_given_again_is_another_process(home):
    id = ledger.start_run("a.ipynb")
    ledger.write("UPDATE run SET process = 'of another time' WHERE id = :id", dict(id=id))
    assert ledger.last_runs()["a"]["state"] == "interrupted"

OLD = ["CREATE TABLE run (id TEXT NOT NULL, notebook TEXT, code TEXT, library TEXT, parameters TEXT, state TEXT, started TEXT, ended TEXT, error TEXT, output TEXT, user TEXT, host TEXT, pid INTEGER, stage TEXT, PRIMARY KEY (id))",
       "CREATE INDEX ix_run_state ON run (state)", "CREATE INDEX ix_run_stage ON run (stage)",
       "CREATE TABLE io (no INTEGER NOT NULL, run TEXT, direction TEXT, kind TEXT, name TEXT, version TEXT, asked TEXT, at TEXT, PRIMARY KEY (no))",
       "INSERT INTO run (id, notebook, code, library, parameters, state, started, stage) VALUES ('20260101-000000-aaaaaa', 'a.ipynb', 'c', 'l', '{}', 'done', '2026-01-01', 'a')",
       "INSERT INTO io (run, direction, kind, name, version, asked) VALUES ('20260101-000000-aaaaaa', 'write', 'dataset', 'flights', '0', '')"]

def test_a_ledger_of_an_older_version(home):
    "Its rows are kept, its runs stand for nothing, and it goes on; two processes may open it at once."
    (home/".mlops").mkdir()
    with sqlite3.connect(home/".mlops/mlops.db") as c:
        for statement in OLD: c.execute(statement)
    c.close()
    path = write_notebook(home/"a.ipynb", "1")
    openers = [subprocess.Popen([sys.executable, "-c", "from mlops_nb.core import ledger\nledger.rows('run')"], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(p.communicate()[1], p.returncode) for p in openers] == [("", 0)]*4
    assert why(path) == [changes.NEVER]
    done(path)
    assert why(path) == [] and list(ledger.runs().state) == ["done", "done"]
    assert ledger.lineage("dataset", "flights")[0]["stage"] == "a"
    with sqlite3.connect(home/".mlops/mlops.db") as c: assert c.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'ix_run%' OR name LIKE '%before%'").fetchone() == (3,)
    c.close()

def test_another_database_goes_through_sqlalchemy(home, monkeypatch):
    "The same statements; the whole story once more."
    monkeypatch.setenv("MLOPS_NB_DATABASE", f"sqlite+pysqlite:///{home}/other.db")
    path = write_notebook(home/"a.ipynb", GROWS + "\nfrom mlops_nb.train.goal import goal\ngoal()\nfrom mlops_nb.core.finding import Finding\nledger.record([Finding('a', 'b', 1.0)])")
    done(path)
    assert why(path) == [] and ledger.findings().ok.tolist() == [True]
    edit(home/"settings.ini", "minimum = 0.66", "minimum = 0.7")
    ledger.wrote("thing", "log", 9)
    assert sorted(why(path)) == ["settings goal.minimum was 0.66 and is 0.7", "thing log was 0 and is 9"]
    assert not (home/".mlops/mlops.db").exists() and ledger.lineage("thing", "log", 1)[0]["stage"] == "a"

def test_secrets_are_not_in_snapshots(home, monkeypatch):
    monkeypatch.setenv("MY_API_TOKEN", "tok-6b1f0e-99")
    assert "tok-6b1f0e" not in json.dumps(ledger.snapshots([ledger.snapshot("minimum = tok-6b1f0e-99")]))

# --- many ---

def many(home, n):
    "n stages that have run, written down by hand."
    env, paths = source.environment(), [write_notebook(home/f"s{i}.ipynb", f"{i}", parameters="rows = 5") for i in range(n)]
    ids = [ledger.start_run(source.place(p), {"rows": 5}, code=source.code_hash(p), environment=env) for p in paths]
    ledger.insert("io", *[dict(run=id, direction=d, kind="thing", name=f"t{(i + j) % n}", version="1", asked=a, at="") for i, id in enumerate(ids) for j, d, a in ((0, "write", ""), (1, "read", "latest"), (2, "read", "latest"))])
    for id in ids: ledger.end_run(id, "done", modules={"settings.ini": source.mark((home/"settings.ini").read_bytes())})
    return paths

def test_many_at_once_take_a_handful_of_questions(home, monkeypatch):
    "As many for 200 stages as for 20, each file read once, and the answers are those of one by one."
    paths, asked, read = many(home, 200), [], []
    query, marked = database._sent, changes._module
    monkeypatch.setattr(database, "_sent", lambda sql, rows, **more: asked.append(sql) or query(sql, rows, **more))
    monkeypatch.setattr(changes, "_module", lambda place: read.append(place) or marked(place))
    assert changes.stale_all([(p, {"rows": 5}) for p in paths[:20]]) == [[]]*20
    few, asked[:], read[:] = len(asked), [], []
    assert changes.stale_all([(p, {"rows": 5}) for p in paths]) == [[]]*200
    assert len(asked) == few < 12 and read == ["settings.ini"]
    ledger.wrote("thing", "t7", 2)
    wanted = [(p, {"rows": rows}) for p in paths[:10] for rows in (5, 6)]
    together = changes.stale_all(wanted)
    assert together == [changes.stale(*w) for w in wanted]
    assert [p.stem for (p, _), w in zip(wanted, together) if w == ["thing t7 was 1 and is 2"]] == ["s5", "s6"]

def test_looking_imports_nothing_heavy(home):
    many(home, 3)
    probe = "import sys\nfrom mlops_nb.core import config\nfrom mlops_nb.run import changes\nprint(changes.stale_all([(config.root()/f's{i}.ipynb', {'rows': 5}) for i in range(3)]))\n" \
            "print([m for m in ('pandas', 'numpy', 'sqlalchemy', 'deltalake', 'pyarrow', 'mlflow', 'papermill', 'nbformat', 'psutil', 'asyncio', 'importlib.metadata') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.splitlines() == ["[[], [], []]", "[]"]
