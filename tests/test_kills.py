"kill -9 of runner, kernels and the process that forks them, at random, during a pipeline of 50 stages: the ledger never lies. KILL_ROUNDS=100 for the long version."
import hashlib, json, os, random, signal, subprocess, time
from collections import Counter

import psutil, pytest

from conftest import MAIN, wait_until, write_notebook, write_settings
from mlops_nb.core import ledger
from mlops_nb.run import pipeline, warm

ROUNDS, SECONDS = int(os.environ.get("KILL_ROUNDS", 8)), 30 if "KILL_ROUNDS" not in os.environ else float("inf")
STAGES = [f"s{i:02}" for i in range(50)]
NEEDS = {s: [STAGES[j] for j in (i - 4, i - 7) if j >= 0] for i, s in enumerate(STAGES)}

# A stage reads what its needs wrote, and writes a file that only the right inputs give; then, as the library does, it says so.
SOURCE = ["import hashlib, os\nfrom mlops_nb.core import config, ledger, store\nplace = config.root()\nstore.write_text(place/'pids'/me, str(os.getpid()))",
          "got = [(place/'made'/n).read_text() for n in needs]\nfor n, v in zip(needs, got): ledger.read('thing', n, v)",
          "value = hashlib.sha256(' '.join([str(generation), me, *got]).encode()).hexdigest()[:12]\nstore.write_text(place/'made'/me, value)\nledger.wrote('thing', me, value)"]

def right(generation):
    "What a clean run writes."
    made = {}
    for s in STAGES: made[s] = hashlib.sha256(" ".join([str(generation), s, *(made[n] for n in NEEDS[s])]).encode()).hexdigest()[:12]
    return made

def write_all(folder, generation):
    for s in STAGES: write_notebook(folder/f"nbs/workflows/{s}.ipynb", f"me, needs, generation = {s!r}, {NEEDS[s]!r}, {generation}", *SOURCE)

@pytest.fixture
def folder(tmp_path, monkeypatch):
    "The project, with a zygote of its own."
    short = tmp_path/"r"
    short.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    write_settings(tmp_path, mlops_nb=dict(executor="local:3", lock_timeout="30"), pipeline={s: " ".join(n) for s, n in NEEDS.items()})
    write_all(tmp_path, 1)
    warm.start()
    warm.wait()
    yield tmp_path
    warm.stop()
    ledger.close()

def runner(folder):
    with open(folder/"said", "a") as said: return subprocess.Popen([*MAIN, "run", "--keep-going"], stdout=said, stderr=said, start_new_session=True)

def kernels(folder):
    "Those that live, by what the stages wrote down; a process that was born after its file is another one."
    for file in (folder/"pids").glob("s*"):
        try:
            pid, born = int(file.read_text()), psutil.Process(int(file.read_text())).create_time()
            if born <= file.stat().st_mtime + 1 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE: yield pid
        except (psutil.NoSuchProcess, FileNotFoundError, ValueError): pass

def kill(living, process, rng):
    "One of them, as soon as there is one and while the runner is at work."
    end = time.monotonic() + 5
    while not (pids := list(living())) and process.poll() is None and time.monotonic() < end: time.sleep(.01)
    if not pids or process.poll() is not None: return False
    try: os.kill(rng.choice(pids), signal.SIGKILL)
    except ProcessLookupError: return False
    return True

def strike(who, process, folder, rng):
    "Did it hit somebody?"
    if who == "runner":
        wait_until("work", lambda: process.poll() is not None or rng.random() < .1 or list(kernels(folder)))   # now and then already while it starts
        time.sleep(rng.uniform(0, .3))
        process.kill()
        process.wait()
        wait_until("end of its kernels", lambda: not list(kernels(folder)))
        return True
    return kill((lambda: kernels(folder)) if who == "kernel" else lambda: [z["pid"] for z in warm.status() if z["pid"]], process, rng)

def honest(folder, generation, known, alive):
    "What the ledger says is so. `known` are runs that were done at the last look."
    runs, io, want = ledger.runs(), ledger.touched(), right(generation)
    done = runs[runs.state == "done"]
    assert known <= set(done.id), "a run that was done is not any more"
    for r in done.itertuples():
        nb = json.loads(open(r.output, encoding="utf-8").read())
        assert not [o for c in nb["cells"] for o in c.get("outputs", []) if o["output_type"] == "error"], r
        wrote = io[(io.run == r.id) & (io.direction == "write")]
        assert list(wrote.name) == [r.stage] and set(io[(io.run == r.id) & (io.direction == "read")].name) == set(NEEDS[r.stage]), f"{r.stage} {r.id} is done, but wrote {list(wrote.name)}"
    full = done[done.modules.fillna("") != ""]   # a kernel killed after its last cell cannot say any more what it had loaded; such a run stands for no other
    twice = {s for (s, code), n in Counter(zip(full.stage, full.code)).items() if n > 1}
    assert not twice, "done again:\n" + runs[runs.stage.isin(twice)].drop(columns="environment").to_string()
    for row in [] if alive else pipeline.status():
        assert row["state"] != "running", row
        if row["state"] == "done" and not row["stale"]: assert (folder/"made"/row["stage"]).read_text() == want[row["stage"]], row
    return set(done.id)

def test_the_ledger_never_lies(folder):
    seed = int(os.environ.get("KILL_SEED", time.time_ns()%10**6))
    rng, process, generation, known, hits, end = random.Random(seed), None, 1, set(), Counter(), time.monotonic() + SECONDS
    print(f"KILL_SEED={seed}")
    while hits.total() < ROUNDS and time.monotonic() < end:
        if process is None or process.poll() is not None:
            if process and process.returncode == 0:
                generation += 1
                write_all(folder, generation)
            process = runner(folder)
        time.sleep(rng.uniform(.05, 1.5))
        who = rng.choice(["runner", "kernel", "kernel", "zygote"])
        if process.poll() is None and strike(who, process, folder, rng): hits[who] += 1
        if not (alive := process.poll() is None): wait_until("end of its kernels", lambda: not list(kernels(folder)))   # a runner that gave up leaves them a moment
        known = honest(folder, generation, known, alive)
    if process.poll() is None:
        process.kill()
        process.wait()
    wait_until("end of the kernels", lambda: not list(kernels(folder)))
    assert runner(folder).wait(120) == 0, (folder/"said").read_text()[-3000:]
    honest(folder, generation, known, False)
    assert {r["stage"]: (r["state"], r["stale"]) for r in pipeline.status()} == dict.fromkeys(STAGES, ("done", ""))
    assert {s: (folder/"made"/s).read_text() for s in STAGES} == right(generation)
    assert not set(ledger.runs().state) - {"done", "failed", "interrupted"} and ledger.runs().ended.notna().all()
    assert hits.total() >= min(ROUNDS, 3), hits
    print(generation, dict(hits), dict(Counter(ledger.runs().state)))
