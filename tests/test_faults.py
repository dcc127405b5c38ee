"Full disks, locks, Ctrl-C, kills, races and secrets: a clear line, the right exit code, nothing half written, and the next run resumes."
import json, os, shutil, signal, sqlite3, subprocess, sys
from contextlib import contextmanager

import pytest

from conftest import USE, cli, files, gone, one_line, states, wait_until, write_notebook, write_settings
from mlops_nb.cli.cli import main
from mlops_nb.core import database, ledger, store
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import Busy, MlopsError
from mlops_nb.run import changes, notebook, pipeline

pytestmark = pytest.mark.usefixtures("warm_kernels")

def resumes(**want):
    "The next run ends well, with these states."
    ended = pipeline.run()
    assert {r.stage: r.state for r in ended} == want, ended

def whole(folder):
    "Every executed notebook is a notebook, every page is whole, no temporary file is left."
    for f in files(folder/"reports") if (folder/"reports").exists() else []:
        assert not f.split("/")[-1].startswith("."), f
        text = (folder/"reports"/f).read_text(encoding="utf-8")
        if f.endswith(".ipynb"): json.loads(text)
        if f.endswith(".html"): assert text.rstrip().endswith("</html>"), f

# `use` says where it is and waits there, until a file lets it go on
WAITS = ["import os, time\nfrom pathlib import Path\nfrom mlops_nb.core import config, ledger", "place = config.root()\n(place/'at.tmp').write_text(str(os.getpid()))\nos.replace(place/'at.tmp', place/'at')",
         "while not (place/'go').exists(): time.sleep(.05)", "ledger.wrote('thing', 'whole', 1)"]

@pytest.fixture
def waiting(ready):
    write_notebook(ready/"nbs/workflows/use.ipynb", *WAITS)
    return ready

def in_the_middle(folder, process):
    "Pid of the kernel, once the second stage is at work."
    wait_until("second stage at work", (folder/"at").exists, process)
    return int((folder/"at").read_text())

# --- ends that are not the good one ---

ENDS = {
    "gate":        ("from mlops_nb.core.finding import at_least, gate\ngate([at_least('auc', 'm', .5, .6, action='keep the champion')])", 3, "auc of m: 0.5 (limit 0.6)"),
    "data check":  ("from mlops_nb.core.finding import DataCheckFailed, at_most, gate\ngate([at_most('missing', 'tailnum', .5, .1)], DataCheckFailed)", 4, "missing of tailnum"),
    "bad input":   ("from mlops_nb.core.finding import BadInput\nraise BadInput('first line\\nsecond line')", 2, "BadInput: first line"),
    "busy":        ("from mlops_nb.core.finding import Busy\nraise Busy('held')", 75, "held"),
    "failure":     ("1/0", 1, "ZeroDivisionError: division by zero"),
    "not python":  ("1 +", 1, "SyntaxError"),
    "dead kernel": ("import os\nos._exit(9)", 1, "kernel died"),
    "too long":    ("import time\ntime.sleep(60)", 1, "cell_timeout"),
    "exit":        ("import sys\nsys.exit(3)", 1, "SystemExit"),
}

@pytest.mark.parametrize("name", ENDS)
def test_a_stage_that_ends_badly(ready, name, monkeypatch):
    "Its exit code is the command's, its line is in the ledger, and it runs again next time."
    source, code, said = ENDS[name]
    if name == "too long": monkeypatch.setenv("MLOPS_NB_CELL_TIMEOUT", "2")
    path = write_notebook(ready/"nbs/workflows/use.ipynb", source)
    ended = notebook.run("use")
    notebook.wait_for_pages()
    assert (ended.state, ended.exit_code) == ("failed", code) and said in ended.error and "\n" not in ended.error, ended
    run = ledger.runs(stage="use").iloc[-1]
    assert run.state == "failed" and run.error == ended.error and run.ended
    if name != "dead kernel": assert ended.output and run.output == ended.output
    whole(ready)
    assert changes.stale(path, {}) == ["it has not run with these parameters"]

def test_the_pipeline_stops_at_a_failure_or_goes_round_it(small):
    "The exit code is the failed stage's own; what does not come after it runs with --keep-going."
    write_notebook(small/"nbs/workflows/make.ipynb", ENDS["gate"][0])
    write_notebook(small/"nbs/workflows/aside.ipynb", "1 + 1")
    write_settings(small, mlops_nb={}, pipeline=dict(make="", use="make", aside=""))
    stops, on = {r.stage: r.state for r in pipeline.run()}, cli("run", "--keep-going", "--json")
    assert stops["make"] == "failed" and "use" not in stops
    assert on.returncode == 3 and {**states(on), "aside": "done"} == dict(make="failed", use="blocked", aside="done")
    rows = {r["stage"]: r for r in pipeline.status()}
    assert "auc of m: 0.5 (limit 0.6)" in rows["make"]["stale"] and rows["use"]["state"] == "never ran"

# --- Ctrl-C and kill ---

@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c(waiting, started, sent):
    "SIGINT goes to the whole process group, as a terminal sends it; SIGTERM to the process, as a scheduler does."
    temporary = waiting/"tmp"
    temporary.mkdir()
    process = started("run", TMPDIR=str(temporary))
    kernel = in_the_middle(waiting, process)
    (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
    out, err = process.communicate(timeout=60)
    one_line(subprocess.CompletedProcess([], process.returncode, out, err), 130, "stopped; the same command goes on from there")
    wait_until("end of the kernel", lambda: gone(kernel))
    assert list(ledger.runs().state) == ["done", "interrupted"] and ledger.runs().ended.notna().all()
    assert files(temporary) == []
    whole(waiting)
    (waiting/"go").touch()
    resumes(make="skipped", use="done")

def test_a_killed_runner(waiting, started):
    "The kernel ends by itself, the lock is free at once, and a run that never ended blocks nobody."
    process = started("run")
    kernel = in_the_middle(waiting, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    wait_until("end of the kernel", lambda: gone(kernel))
    whole(waiting)
    assert ledger.touched(kind="thing", name="whole").empty
    (waiting/"go").touch()
    assert pipeline.status()[1]["stale"]
    resumes(make="skipped", use="done")

def test_a_killed_kernel(waiting, started):
    "Out of memory looks like this: one line, exit code 1, resumed next time."
    process = started("run", "--json")
    os.kill(in_the_middle(waiting, process), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in err, err
    row = json.loads(out)[-1]
    assert row["state"] == "failed" and "memory" in row["note"]
    (waiting/"go").touch()
    resumes(make="skipped", use="done")

# --- locks ---

def test_two_at_once(waiting, started):
    "The second waits and finds the work done; told not to wait, it says so with 75 and touches nothing."
    first = started("run", "--json")
    in_the_middle(waiting, first)
    second = started("run", "--json")
    for words in (["run", "--no-wait"], ["run", "use", "--force", "--no-wait"]): assert "use" in one_line(cli(*words), 75, "run again")
    assert len(ledger.runs()) == 2 and second.poll() is None
    assert cli("status").returncode == 0, "looking is always possible"
    (waiting/"go").touch()
    for process, want in ((first, "done"), (second, "skipped")):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and [r["state"] for r in json.loads(out)] == ["skipped", want], (out, err)
    assert len(ledger.runs()) == 2

HOLD = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\nc.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\nsys.stdin.read()"

@contextmanager
def held(database):
    "Another process holds the database for writing."
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "held"
        yield
    finally: process.communicate()

def test_a_locked_database(ready):
    with held(ready/".mlops/mlops.db"): one_line(cli("run"), 75, "mlops.db", "locked", "run again")
    resumes(make="skipped", use="done")

def test_a_database_locked_in_the_middle_of_a_stage(waiting, started):
    "The stage fails with 75, and so does the command even if it cannot write that down."
    process = started("run")
    in_the_middle(waiting, process)
    with held(waiting/".mlops/mlops.db"):
        (waiting/"go").touch()
        out, err = process.communicate(timeout=90)
    assert process.returncode == 75 and "Traceback" not in err and "locked" in out + err, (process.returncode, out, err)
    resumes(make="skipped", use="done")

# --- fresh stores, several at once ---

RACE = "import sys, time\n{ready}\nprint('ready', flush=True); sys.stdin.readline()\n{act}"

def race(act, n=6, ready=""):
    "The same act in n processes at the same moment; every one must end well."
    processes = [subprocess.Popen([sys.executable, "-c", RACE.format(ready=ready, act=act), str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(n)]
    for p in processes: assert p.stdout.readline().strip() == "ready", p.communicate()[1]
    for p in processes: p.stdin.write("\n"), p.stdin.flush()
    ended = [p.communicate(timeout=120) for p in processes]
    assert [p.returncode for p in processes] == [0]*n, "\n".join(err for _, err in ended)

@pytest.mark.parametrize("round", range(2))
def test_ledger_tables_made_by_many_at_once(small, round, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_LOCK_TIMEOUT", "30")
    race("ledger.wrote('thing', 'x', sys.argv[1])", ready="from mlops_nb.core import ledger\nimport sqlalchemy.dialects.sqlite")
    assert sorted(ledger.touched(name="x").version) == list("012345")
    assert len(ledger.runs()) == 6

def test_who_may_not_switch_a_fresh_file_to_wal_goes_on(tmp_path):
    "Of two at once one is refused, without waiting."
    with held(tmp_path/"new.db"): database._pragmas(one := sqlite3.connect(tmp_path/"new.db", isolation_level=None), .1)
    one.execute("CREATE TABLE a (b)")
    database._pragmas(one, 5)
    assert one.execute("PRAGMA journal_mode").fetchone() == ("wal",) and one.execute("PRAGMA busy_timeout").fetchone() == (5000,)

def test_label_tables_made_by_many_at_once(small, monkeypatch):
    from mlops_nb.label import log
    monkeypatch.setenv("MLOPS_NB_LOCK_TIMEOUT", "30")
    race("log.append(log.Event('late', sys.argv[1], '1'))", ready="from mlops_nb.label import log\nimport sqlalchemy.dialects.sqlite")
    assert sorted(log.events("late").item) == list("012345")

def test_rows_appended_by_many_at_once(small, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_LOCK_TIMEOUT", "30")
    from mlops_nb.data import dataset
    race("dataset.append(pd.DataFrame({'a': [int(sys.argv[1])]}), 'things')", n=4, ready="import pandas as pd\nfrom mlops_nb.data import dataset")
    assert sorted(dataset.read("things").a) == [0, 1, 2, 3] and dataset.latest("things") == 3

def test_mlflow_tables_made_by_two_at_once(small, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_LOCK_TIMEOUT", "90")
    race("track.tracking(); track.experiment('late')", n=2, ready="from mlops_nb.train import track")
    with sqlite3.connect(small/".mlops/mlflow.db") as c: assert c.execute("select count(*) from experiments where name = 'late'").fetchone() == (1,)
    one_line(cli("promote", "late", "3", "--reason", "x"), 2, "model 'late'")

# --- full disks ---

@pytest.fixture
def disk(tmp_path):
    "A real file system of 6 MB."
    folder = tmp_path/"disk"
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here; run as root to see this test")
    yield folder
    ledger.close()
    subprocess.run(["umount", "-l", str(folder)], check=True)

@contextmanager
def full(folder, leave=0):
    "Nothing more fits on it."
    ballast = folder/"ballast"
    with open(ballast, "wb", buffering=0) as f:
        try:
            while True: f.write(b"x"*4096)
        except OSError: pass
        if leave: f.truncate(f.tell() - leave)
    try: yield
    finally: ballast.unlink()

def test_a_disk_that_may_only_be_read(disk):
    with settings_for(disk):
        ledger.event("note", "a")
        ledger.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(MlopsError, match="cannot be written; let this user write the file and its folder"): ledger.event("note", "b")

def test_a_file_on_a_full_disk(disk):
    "The old content stays, and no temporary file."
    store.write_text(disk/"a.txt", "old")
    with full(disk), pytest.raises(MlopsError, match="the disk is full.*a.txt.*free some space"): store.write_text(disk/"a.txt", "new"*10_000)
    assert (disk/"a.txt").read_text() == "old" and files(disk) == ["a.txt"]

def test_a_data_set_on_a_full_disk(small, disk, monkeypatch):
    import numpy as np, pandas as pd
    from mlops_nb.data import dataset
    monkeypatch.setenv("MLOPS_NB_WAREHOUSE", str(disk/"warehouse"))
    big = pd.DataFrame({"a": np.random.default_rng(0).random(500_000)})
    dataset.commit(big.head(10), "things")
    with full(disk, leave=100_000), pytest.raises(MlopsError, match="the disk is full.*free some space"): dataset.commit(big, "things")
    assert dataset.latest("things") == 0 and len(dataset.read("things")) == 10
    assert dataset.commit(big.head(20), "things") == 1

PLACES = {"database": ("MLOPS_NB_DATABASE", 0), "executed notebook": ("MLOPS_NB_REPORTS", 0), "page": ("MLOPS_NB_REPORTS", 40_960), "temporary files": ("TMPDIR", 4096)}
DISPENSABLE = ("page", "temporary files")   # a page can be made again, and a run needs no temporary file

def here(capfd, *words):
    "`mlops-nb` inside this process: exit code and all it said. An exception that escapes it fails the test."
    code = main(list(words))
    return code, "".join(capfd.readouterr())

@pytest.mark.parametrize("place", PLACES)
def test_a_run_on_a_full_disk(ready, disk, place, monkeypatch, capfd):
    "Whatever it is that does not fit, the command says so in one line, no run is left open, and the next one resumes."
    key, leave = PLACES[place]
    if place == "database": shutil.copy(ready/".mlops/mlops.db", disk)
    write_notebook(ready/"nbs/workflows/use.ipynb", *USE, "#" + "<"*10_000)   # four times as long in a page
    monkeypatch.setenv(key, f"sqlite:///{disk}/mlops.db" if place == "database" else str(disk))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("MLOPS_NB_HTML", "true" if place == "page" else "false")
    with full(disk, leave): code, said = here(capfd, "run", "--json") if place != "page" else ((done := cli("run", "--json")).returncode, done.stdout + done.stderr)
    assert "Traceback" not in said and ("the disk is full" in said or place == "temporary files"), said
    assert code == (0 if place in DISPENSABLE else 1), said
    assert "running" not in set(ledger.runs().state)
    assert not [f for f in files(disk) if f.split("/")[-1].startswith(".")]
    resumes(make="skipped", use="skipped" if place in DISPENSABLE else "done")
    ledger.close()
    whole(disk)

def test_a_stage_that_fills_the_disk(ready, disk, monkeypatch, capfd):
    "The data set does not fit, nothing of it stays, and the next run with less data ends well."
    monkeypatch.setenv("MLOPS_NB_WAREHOUSE", str(disk))
    source = "import numpy as np, pandas as pd\nfrom mlops_nb.data import dataset", "dataset.commit(pd.DataFrame({'a': np.random.default_rng(0).random(rows)}), 'things')"
    write_notebook(ready/"nbs/workflows/use.ipynb", *source, parameters="rows = 2_000_000")
    code, said = here(capfd, "run")
    assert code == 1 and "the disk is full" in said and "Traceback" not in said, said
    assert notebook.run("use", {"rows": 100}).state == "done"
    notebook.wait_for_pages()

# --- secrets ---

SECRETS = {"MY_API_TOKEN": "tok-6b1f0e<&>99", "DB_PASSWORD": "pa\"ss\\word'1", "DEPLOY_PRIVATE_KEY": "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----"}
TELLS = ["import os\nfrom mlops_nb.core import ledger\nfrom mlops_nb.core.finding import Finding\nkeys = ['MY_API_TOKEN', 'DB_PASSWORD', 'DEPLOY_PRIVATE_KEY']",
         "for k in keys: print(os.environ[k]); print(repr(os.environ[k]), [os.environ[k]], {k: os.environ[k].encode()})", "dict((k, os.environ[k]) for k in keys)", "from IPython.display import HTML\nHTML(f\"<b>{os.environ['MY_API_TOKEN']}</b>\")",
         "ledger.record([Finding('call', 'api', os.environ['MY_API_TOKEN'], ok=False, level='warn', note=f\"sent {os.environ['MY_API_TOKEN']}\", action=f\"curl -H {os.environ['MY_API_TOKEN']}\")], topic='api')",
         "ledger.event('call', 'api', token=os.environ['MY_API_TOKEN'], password=os.environ['DB_PASSWORD'])", "ledger.read('source', f\"https://me:{os.environ['MY_API_TOKEN']}@host\", os.environ['MY_API_TOKEN'])",
         "raise ValueError(' '.join(os.environ[k] for k in keys))"]
PARTS = ["tok-6b1f0e", "6b1f0e", "ss\\word", "word'1", "MIIEvQ", "kqhkiG9w0"]

def leaks(folder):
    "Where any part of a secret stands: file -> lines of it, and rows of the ledger."
    found = {f: [l.strip()[:200] for l in (folder/f).read_text(encoding="utf-8", errors="replace").splitlines() if any(p in l for p in PARTS)] for f in files(folder) if f.startswith("reports")}
    with sqlite3.connect(folder/".mlops/mlops.db") as c: found["ledger"] = [l for l in c.iterdump() if any(p in l for p in PARTS)]
    return {k: v for k, v in found.items() if v}

def test_secrets_stay_out_of_everything_that_is_kept(small):
    "Printed, shown, recorded, passed as a parameter, raised: not in the executed notebook, the page, the ledger, nor on the terminal."
    write_notebook(small/"nbs/workflows/make.ipynb", *TELLS, parameters="token = ''\nother = ''")
    done = cli("run", "make", "-p", f"token={SECRETS['MY_API_TOKEN']}", "-p", f"other=user:{SECRETS['DB_PASSWORD']}", MLOPS_NB_HTML="true", **SECRETS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert [f for f in files(small/"reports") if f.endswith(".html")], "the page was not written"
    assert "***" in next((small/"reports/runs/make").glob("*.ipynb")).read_text()
    assert leaks(small) == {}, json.dumps(leaks(small), indent=1)
    assert not [p for p in PARTS if p in done.stdout + done.stderr], done.stdout + done.stderr

def test_a_secret_in_a_message_of_the_command(small):
    for words in (["run", "make", "-p", f"rows={SECRETS['MY_API_TOKEN']}"], ["run", SECRETS["MY_API_TOKEN"]]):
        done = cli(*words, **SECRETS)
        assert done.returncode == 2 and "6b1f0e" not in done.stdout + done.stderr, done.stderr

def test_a_secret_in_the_url_of_the_database(small):
    done = cli("run", MLOPS_NB_DATABASE="postgresql+psycopg://me:hunter22@127.0.0.1:1/mlops", MLOPS_NB_LOCK_TIMEOUT="1")
    assert done.returncode == 75 and "hunter22" not in done.stdout + done.stderr and "Traceback" not in done.stderr, done.stderr
