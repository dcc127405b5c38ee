"The pipeline: order, several at once, two runners, options, force, blocked stages, the quick look when nothing has changed."
import json, os, signal, sqlite3, subprocess, sys
from collections import Counter

import pytest

from conftest import MAIN, cli, files, gone, one_line, states, wait_until, write_notebook, write_settings
from mlops_nb.core import config, executors, ledger, store
from mlops_nb.core.finding import BadInput, Busy
from mlops_nb.run import notebook, pipeline

HEAD = "import os, time\nfrom pathlib import Path\nfrom mlops_nb.core import config, ledger\nplace = config.root()\ndef until(name):\n    end = time.monotonic() + 60\n    while not (place/name).exists():\n        assert time.monotonic() < end, f'{name} did not come'\n        time.sleep(.02)\n"

@pytest.fixture
def lines(tmp_path, monkeypatch):
    "A project made of lines: stage -> ('[pipeline] line', source). Called again it adds or changes stages."
    folder, known = tmp_path/"lines", {}
    def make(**stages):
        for name, (line, source) in stages.items():
            known[name] = line
            write_notebook(folder/f"nbs/workflows/{name}.ipynb", HEAD, source, parameters="n = 1")
        write_settings(folder, mlops_nb=dict(lock_timeout="5"), pipeline=known)
        return folder
    folder.mkdir()
    monkeypatch.setenv("MLOPS_NB_ROOT", str(folder))
    yield make
    ledger.close()

def says(name): return f"(place/'{name}').write_text(str(os.getpid()))"
def ran(**how): return {r.stage: r.state for r in pipeline.run(**how)}
def times(): return Counter(ledger.runs(state="done").stage)

# --- order ---

def test_a_stage_starts_as_soon_as_its_own_needs_are_done(lines):
    "`slow` ends only after `third` has begun: level by level this would never end."
    lines(slow=("", "until('third')"), first=("", says("first")), second=("first", "until('first')"), third=("second", says("third")))
    assert list(ran(workers=2).items()) == [("slow", "done"), ("first", "done"), ("second", "done"), ("third", "done")], "results stand in pipeline order"

TURNS = "with open(place/'turns', 'a') as f: f.write('in\\n')\ntime.sleep(.05)\nwith open(place/'turns', 'a') as f: f.write('out\\n')"

@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_at_once_than_the_executor_says(lines, workers, monkeypatch):
    folder = lines(**{f"s{i}": ("", TURNS) for i in range(5)})
    monkeypatch.setenv("MLOPS_NB_EXECUTOR", f"local:{workers}")
    assert set(ran().values()) == {"done"}
    depth, most = 0, 0
    for word in (folder/"turns").read_text().split():
        depth += 1 if word == "in" else -1
        most = max(most, depth)
    assert depth == 0 and most <= workers

def test_part_of_a_pipeline_keeps_the_order_of_the_whole(lines):
    "`last` comes after `first` through `middle`, which is not asked for."
    lines(last=("middle", "until('first')"), middle=("first", "1/0"), first=("", "time.sleep(.5)\n" + says("first")))
    assert list(ran(only=["last", "first"], workers=2)) == ["first", "last"]
    runs = ledger.runs().set_index("stage")
    assert runs.started["last"] >= runs.ended["first"]

def test_a_thousand_stages_in_a_row_do_not_nest(lines):
    "No recursion, and each is settled once."
    needs = {str(i): [str(i - 1)] if i else [] for i in range(3000)}
    seen = []
    with executors.pool(2, threads=True) as pool: pipeline.in_parallel(needs, lambda name, stop, on_event: None, pool, settle=lambda names: {n: seen.append(n) or "skipped" for n in names})
    assert seen == list(needs)

# --- options ---

def test_options(lines):
    folder = lines(plain=("", "1"), often=("; always", "1"), fixed=("often; pinned", "2"))
    assert ran() == dict(plain="done", often="done", fixed="done")
    lines(fixed=("often; pinned", "3"), plain=("", "2"))
    rows = {r["stage"]: r for r in pipeline.plan()}
    assert {n: r["would"] for n, r in rows.items()} == dict(plain="run", often="run", fixed="skip") and rows["fixed"]["because"] == "pinned", rows
    assert ran() == dict(plain="done", often="done", fixed="skipped")
    assert ran(force=True) == dict(plain="done", often="done", fixed="skipped"), "pinned: forced by its name alone"
    assert ran(force=["fixed"]) == dict(plain="skipped", often="done", fixed="done")
    assert times() == dict(plain=3, often=4, fixed=2)

def test_retries_of_a_stage(lines):
    "Each try is a run of its own; a gate is not tried again."
    lines(shaky=("; retries=2", "tries = place/'tries'\nn = len(tries.read_text()) if tries.exists() else 0\ntries.write_text('x'*(n + 1))\nassert n == 1, 'not yet'"))
    assert ran() == dict(shaky="done") and list(ledger.runs().state) == ["failed", "done"]
    lines(shaky=("; retries=2", "from mlops_nb.core.finding import GateClosed\nraise GateClosed('no')"))
    assert ran() == dict(shaky="failed") and list(ledger.runs().state) == ["failed", "done", "failed"]

def test_timeout_of_a_stage(lines):
    lines(slow=("; timeout=2", "time.sleep(.1)"), stuck=("; timeout=2", "time.sleep(100)"))
    ended = {r.stage: r for r in pipeline.run(keep_going=True)}
    assert ended["slow"].state == "done" and ended["stuck"].state == "failed" and ended["stuck"].exit_code == 1 and "2" in ended["stuck"].error, ended

WRONG = {"allways": "did you mean 'always'?", "always=1": "write always alone", "retries": "retries = ''", "retries=many": "'many' is not a number", "retries=-1": "'-1'", "timeout=inf": "'inf'", "pinned; always": "both always and pinned"}

@pytest.mark.parametrize("options", WRONG)
def test_wrong_options(lines, options):
    folder = lines(make=(f"; {options}", "1"))
    for words in (["run"], ["status"]): one_line(cli(*words), 2, "[pipeline] make", WRONG[options])
    assert not (folder/"reports").exists()

@pytest.mark.parametrize("executor", ["lokal", "local:", "local:0", "local:many", "dask"])
def test_a_wrong_executor(lines, executor):
    lines(make=("", "1"))
    one_line(cli("run", MLOPS_NB_EXECUTOR=executor), 2, repr(executor), "local:4")

def test_unknown_stages_in_a_call(lines):
    lines(make=("", "1"))
    for how in (dict(only=["mkae"]), dict(force=["mkae"]), dict(parameters={"mkae": {}})):
        with pytest.raises(BadInput, match="did you mean 'make'"): pipeline.run(**how)

# --- failures ---

def test_what_is_at_work_is_finished_after_a_failure(lines):
    "`other` began before `bad` failed; it is not thrown away, and nothing new begins."
    lines(bad=("", "until('other')\n1/0"), other=("", says("other") + "\ntime.sleep(1)"), late=("other", "1"))
    assert ran(workers=2) == dict(bad="failed", other="done")
    assert ran(workers=2, keep_going=True) == dict(bad="failed", other="skipped", late="done")

def test_blocked_stages_say_by_what(lines):
    lines(bad=("", "1/0"), next=("bad", "1"), last=("next", "1"), aside=("", "1"))
    ended = {r.stage: r for r in pipeline.run(keep_going=True)}
    assert {n: r.state for n, r in ended.items()} == dict(bad="failed", next="blocked", last="blocked", aside="done")
    assert (ended["next"].error, ended["last"].error) == ("comes after bad, which failed", "comes after next, which is blocked")
    assert "next" not in set(ledger.runs().stage)
    lines(bad=("", "1"))
    assert ran() == dict(bad="done", next="done", last="done", aside="skipped")

def test_an_upstream_that_runs_again_and_writes_the_same_is_no_reason(lines):
    "`use` may follow, as the plan says; it does not, for nothing that it read has moved."
    lines(make=("", "ledger.wrote('thing', 'a', 1)"), use=("make", "ledger.read('thing', 'a', 1); ledger.wrote('thing', 'b', 1)"))
    assert ran() == dict(make="done", use="done")
    lines(make=("", "ledger.wrote('thing', 'a', 2 - 1)"))
    plan = {r["stage"]: (r["would"], r["because"]) for r in pipeline.plan()}
    assert plan == dict(make=("run", "its code changed"), use=("may run", "after make, which would run"))
    assert {r["stage"]: r["stale"] for r in pipeline.status()} == dict(make="its code changed", use="after make, which would run")
    assert ran() == dict(make="done", use="skipped")
    lines(make=("", "ledger.wrote('thing', 'a', 2)"))
    assert ran() == dict(make="done", use="done")

# --- Ctrl-C ---

def pid_in(folder, name, process):
    wait_until(name, lambda: (folder/name).exists() and (folder/name).read_text(), process)
    return int((folder/name).read_text())

def test_ctrl_c_ends_all_that_is_at_work(lines, started):
    "Both kernels end, both runs are closed, nothing new begins, and the next run resumes."
    folder = lines(a=("", says("a") + "\nuntil('go')"), b=("", says("b") + "\nuntil('go')"), c=("a", "1"), z=("", "1"))
    process = started("run", MLOPS_NB_EXECUTOR="local:3")
    kernels = [pid_in(folder, name, process) for name in "ab"]
    wait_until("z", lambda: times()["z"], process)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.splitlines()[-1].startswith("mlops-nb: stopped") and "Traceback" not in err, err
    for k in kernels: wait_until("end of the kernel", lambda: gone(k))
    assert dict(zip(ledger.runs().stage, ledger.runs().state)) == dict(a="interrupted", b="interrupted", z="done")
    (folder/"go").touch()
    assert ran() == dict(a="done", b="done", c="done", z="skipped")

def test_a_runner_that_was_killed(lines, started):
    "Its open runs are told as interrupted, and closed by the next run."
    folder = lines(a=("", says("a") + "\nuntil('go')"), b=("a", "1"))
    process = started("run")
    kernel = pid_in(folder, "a", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    wait_until("end of the kernel", lambda: gone(kernel))
    assert [(r["stage"], r["state"]) for r in pipeline.status()] == [("a", "interrupted"), ("b", "never ran")]
    (folder/"go").touch()
    assert ran() == dict(a="done", b="done")
    assert list(ledger.runs().state) == ["interrupted", "done", "done"] and ledger.runs().ended.notna().all()

# --- two runners ---

def test_two_runners_share_the_work(lines, started):
    "Twelve stages, two runners from the first moment on: every stage is run once, both end well."
    lines(**{f"s{i:02}": (f"s{i - 3:02}" if i > 2 else "", f"ledger.wrote('thing', 's{i}', n)\ntime.sleep(.1)") for i in range(12)})
    both = [started("run", "--json", MLOPS_NB_EXECUTOR="local:2") for _ in range(2)]
    ended = [p.communicate(timeout=200) for p in both]
    assert [p.returncode for p in both] == [0, 0], ended
    assert set(times().values()) == {1} and len(times()) == 12 and len(ledger.runs()) == 12, ledger.runs()[["stage", "state", "started", "ended", "pid"]]
    told = [states(subprocess.CompletedProcess([], 0, out, "")) for out, _ in ended]
    assert all({a[s], b[s]} <= {"done", "skipped"} for a, b in [told] for s in a) and all([t[s] for t in told].count("done") == 1 for s in told[0]), told

def test_a_second_runner_takes_other_stages_first(lines, started):
    folder = lines(long=("", says("at") + "\nuntil('go')"), after=("long", "1"), a=("", "1"), b=("a", says("b")))
    first = started("run", "--json", MLOPS_NB_EXECUTOR="local:1")
    pid_in(folder, "at", first)
    second = started("run", "--json", MLOPS_NB_EXECUTOR="local:1")
    wait_until("b", lambda: times()["b"], second)
    with pytest.raises(Busy, match="long.*at work in another run"): pipeline.run(wait=False)
    assert second.poll() is None and list(ledger.runs(state="running").stage) == ["long"]
    (folder/"go").touch()
    outs = [p.communicate(timeout=60) for p in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    assert times() == dict(long=1, after=1, a=1, b=1)

def test_what_another_runner_made_meanwhile_is_seen(lines, started):
    "The other one ran only the first stage; what follows it is stale now, whatever the first look said."
    read = "ledger.read('thing', 'a', ledger.touched(kind='thing', name='a').version.iloc[-1])"
    folder = lines(a=("", "ledger.wrote('thing', 'a', 1)"), b=("a", read))
    pipeline.run()
    lines(a=("", says("at") + "\nuntil('go')\nledger.wrote('thing', 'a', 2)"))
    first = started("run", "a", "--json")
    pid_in(folder, "at", first)
    second = started("run", "--json")
    wait_until("the second runner is at it", lambda: list((folder/".mlops/locks").glob("working*")) and second.poll() is None)
    (folder/"go").touch()
    outs = [p.communicate(timeout=60) for p in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    assert times() == dict(a=2, b=2)

def test_a_second_runner_takes_over_from_a_killed_one(lines, started):
    folder = lines(long=("", says("at") + "\nuntil('go')"), after=("long", "1"))
    first = started("run")
    kernel = pid_in(folder, "at", first)
    second = started("run", "--json")
    os.kill(first.pid, signal.SIGKILL)
    first.wait(60)
    wait_until("end of the kernel", lambda: gone(kernel))
    (folder/"go").touch()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert set(states(subprocess.CompletedProcess([], 0, out, "")).values()) == {"done"} and "running" not in set(ledger.runs().state)

def test_the_demo_does_not_take_the_stores_from_under_a_run(lines, started):
    from mlops_nb.run import demo
    folder = lines(long=("", says("at") + "\nuntil('go')"))
    process = started("run")
    pid_in(folder, "at", process)
    with pytest.raises(Busy, match="another run is at work"): demo._set_aside()
    assert (folder/".mlops/mlops.db").exists()
    (folder/"go").touch()
    assert process.wait(60) == 0
    ledger.close()
    assert (demo._set_aside()/"mlops.db").exists()

# --- nothing to do ---

HEAVY = ("pandas", "numpy", "mlflow", "papermill", "nbformat", "nbclient", "jupyter_client", "zmq", "sqlalchemy", "sklearn", "psutil", "asyncio", "filelock", "tqdm", "IPython")
PROBE = "import sys\nfrom mlops_nb.cli.cli import main\ncode = main({words!r})\nprint(code, [m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"

@pytest.mark.parametrize("words", [["run"], ["run", "--dry-run"], ["status"]])
def test_nothing_heavy_is_imported_when_nothing_has_changed(lines, words):
    "Not even indirectly; data sets, settings and things among what was read."
    data = "import pandas as pd\nfrom mlops_nb.data import dataset\nfrom mlops_nb.train.goal import goal\n"
    folder = lines(make=("", data + "dataset.commit(pd.DataFrame({'a': [1]}), 'things')\nledger.wrote('thing', 'a', 1)"), use=("make", data + "dataset.read('things'); goal(); ledger.read('thing', 'a', 1)"))
    assert ran() == dict(make="done", use="done")
    notebook.wait_for_pages()
    before = [f for f in files(folder) if not f.startswith(".mlops/mlops.db")]
    done = subprocess.run([sys.executable, "-c", PROBE.format(words=words, heavy=HEAVY)], cwd=folder, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr
    assert [f for f in files(folder) if not f.startswith(".mlops/mlops.db")] == before, "looking leaves nothing behind"

def test_help_loads_no_stage_and_asks_no_zygote(tmp_path):
    code = "import atexit, sys\natexit.register(lambda: print([m for m in sys.modules if m.startswith(('mlops_nb.run', 'mlops_nb.data', 'mlops_nb.core.config'))], file=sys.stderr))\nsys.argv = ['mlops-nb', '--help']\nfrom mlops_nb.cli.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.splitlines() == ["[]"] and "exit codes" in done.stdout, done.stderr

def asked(look):
    "What the database is asked."
    said, real = [], sqlite3.connect
    def connect(*args, **how):
        found = real(*args, **how)
        found.set_trace_callback(said.append)
        return found
    ledger.close()
    sqlite3.connect = connect
    try: look()
    finally:
        sqlite3.connect = real
        ledger.close()
    return said

def chain(lines, n):
    "n stages in a row, done."
    lines(**{f"s{i:03}": (f"s{i - 1:03}" if i else "", f"ledger.wrote('thing', '{i}', 1)") for i in range(n)})

def test_the_look_at_an_unchanged_pipeline_asks_as_often_for_many_stages_as_for_few(lines):
    "What makes it linear: no statement for each stage."
    chain(lines, 3)
    assert set(ran().values()) == {"done"}
    few = [asked(look) for look in (pipeline.run, pipeline.status, pipeline.plan)]
    chain(lines, 12)
    assert Counter(ran().values()) == {"skipped": 3, "done": 9}
    many = [asked(look) for look in (pipeline.run, pipeline.status, pipeline.plan)]
    assert [*map(len, many)] == [*map(len, few)], [(*(Counter(m) - Counter(f)), "---", *(Counter(f) - Counter(m))) for f, m in zip(few, many)]

def test_locks_leave_no_files(lines):
    folder = lines(make=("", "assert n != 3"))
    for n in range(5): pipeline.run({"make": {"n": n}})
    assert len(ledger.runs()) == 5 and list((folder/".mlops/locks").iterdir()) == []

def test_locks_that_go_away_keep_one_another_out(tmp_path, monkeypatch):
    "Forty takings by four processes, each adding one to a number in a file: none is lost."
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    (tmp_path/"n").write_text("0")
    source = "from mlops_nb.core import store\nfrom pathlib import Path\nimport time\np = Path('n')\nfor _ in range(40):\n    with store.lock('n'):\n        n = int(p.read_text()); time.sleep(.001); p.write_text(str(n + 1))"
    processes = [subprocess.Popen([sys.executable, "-c", source], cwd=tmp_path, env={**os.environ, "MLOPS_NB_LOCK_TIMEOUT": "60"}) for _ in range(4)]
    assert [p.wait(100) for p in processes] == [0]*4
    assert (tmp_path/"n").read_text() == "160" and list((tmp_path/".mlops/locks").iterdir()) == []
