"""The labeling queue at a million items: opening a task, taking 20 items with 100,000 answered, one durable answer beside a bare SQLite commit (alternating), all labels of a task; then four processes on
ITEMS items with overlap 2, and KILLS processes killed (-9) while they take and answer. ROWS, ITEMS, KILLS change the sizes; POSTGRES=url runs the last two on a server as well."""
import os, platform, random, signal, sqlite3, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROWS, ITEMS, KILLS = (int(os.environ.get(n, d)) for n, d in (("ROWS", 1_000_000), ("ITEMS", 10_000), ("KILLS", 200)))

WORKER = """
import sys
from mlops_nb.label import queue
from mlops_nb.label.log import Event
who = sys.argv[1]
while got := queue.take("many", who, 25):
    for i in range(0, len(got), 5): queue.answer(*[Event("many", g.item, "late", annotator=who, ms=5) for g in got[i:i+5]])
"""
MORTAL = """
import sys
from mlops_nb.label import queue
from mlops_nb.label.log import Event
who = sys.argv[1]
print("ready", flush=True)
while got := queue.take("mortal", who, 5):
    for g in got:
        queue.answer(Event("mortal", g.item, "late", annotator=who, uid=f"{who}-{g.item}"))
        print("ack", f"{who}-{g.item}", flush=True)
"""

def timed(f):
    began, cpu = time.perf_counter(), time.process_time()
    f()
    return time.perf_counter() - began, time.process_time() - cpu

def told(name, times):
    wall, cpu = (sorted(1e3*t[i] for t in times) for i in (0, 1))
    print(f"{name:52}{statistics.median(wall):10.2f}{wall[int(.95*(len(wall) - 1))]:10.2f}{statistics.median(cpu):10.2f}", flush=True)

def frame(n):
    import numpy as np, pandas as pd
    rng = np.random.default_rng(0)
    return pd.DataFrame({"id": np.arange(n), **{f"x{i}": rng.normal(size=n).round(3) for i in range(18)}, "text": [f"a few words about item {i}" for i in range(n)]})

def bare(folder):
    "A commit of one row as durable as ours, nothing else."
    c = sqlite3.connect(Path(folder)/"bare.db", isolation_level=None)
    for p in ("journal_mode=WAL", "synchronous=FULL"): c.execute(f"PRAGMA {p}")
    c.execute("CREATE TABLE t (uid TEXT UNIQUE, label TEXT)")
    def commit(n=iter(range(10**9))):
        c.execute("BEGIN IMMEDIATE")
        c.execute("INSERT INTO t VALUES (?, 'late')", (f"{next(n):032}",))
        c.execute("COMMIT")
    return commit

def at_size(folder):
    from mlops_nb.label import log, queue
    from mlops_nb.label.log import Event
    df, commit = frame(ROWS), bare(folder)
    print(f"\n{ROWS:,} items of 19 shown columns, ms{'':22}{'p50':>20}{'p95':>10}{'CPU p50':>10}")
    for overlap in (1, 2):
        name = f"big{overlap}"
        told(f"create, overlap {overlap}", [timed(lambda: queue.create(name, df, key="id", classes=["late", "fine"], overlap=overlap))])
        told("open", [timed(lambda: queue.open_task(name)) for _ in range(50)])
        for i in range(0, ROWS//10, 2000): queue.answer(*[Event(name, j, "late", annotator="ana", ms=900) for j in range(i, i + 2000)])
        queue.take(name, "ana", 20)
        takes, answers, commits = [], [], []
        for _ in range(15):
            for e in [Event(name, i.item, "fine", annotator="ana", ms=900) for i in queue.take(name, "ana", 20)]:
                answers.append(timed(lambda: queue.answer(e)))
                commits.append(timed(commit))
            takes.append(timed(lambda: queue.take(name, "ana", 20)))
        told(f"take(20), {ROWS//10:,} answered", takes)
        told("one durable answer", answers)
        told("  a bare SQLite commit, alternating", commits)
        told("progress", [timed(lambda: queue.progress(name)) for _ in range(50)])
        told("labels of the task", [timed(lambda: log.labels(name)) for _ in range(3)])

def people(code, names): return [subprocess.Popen([sys.executable, "-c", code, who], stdout=subprocess.PIPE, text=True) for who in names]

def at_once():
    from mlops_nb.label import log, queue
    queue.create("many", frame(ITEMS), key="id", classes=["late"], overlap=2, show=["text"])
    began = time.perf_counter()
    ps = people(WORKER, ["ana", "ben", "cara", "dora"])
    assert [p.wait() for p in ps] == [0]*4
    ev = log.events("many")
    twice = (ev.groupby("item").size() == 2).sum()
    print(f"four processes, overlap 2: {twice:,} of {ITEMS:,} items exactly twice, {ev.duplicated(['item', 'annotator']).sum()} answered twice by one person, {len(ev)/(time.perf_counter() - began):,.0f} labels a second")

def killed():
    from mlops_nb.label import log, queue
    queue.create("mortal", frame(KILLS*8), key="id", classes=["late"], overlap=2, show=["text"])
    rng, acked, names = random.Random(0), [], ["ana", "ben", "cara"]
    for n in range(0, KILLS, 2):
        ps = people(MORTAL, [names[n % 3], names[(n + 1) % 3]])
        for p in ps: p.stdout.readline()
        for p in ps:
            time.sleep(rng.random()*.4)
            p.send_signal(signal.SIGKILL)
        acked += [l.split()[1] for p in ps for l in p.communicate()[0].splitlines() if l.startswith("ack ")]
    at_kill = len(log.events("mortal"))
    assert [p.wait() for p in people(MORTAL.replace("print", "(lambda *a, **k: None)"), names)] == [0]*3
    ev = log.events("mortal")
    print(f"{KILLS} kills -9 ({len(acked):,} acknowledged, {at_kill:,} in the log by then): {len({*acked} - {*ev.uid})} acknowledged labels lost, {ev.duplicated(['item', 'annotator']).sum()} duplicated, {(ev.groupby('item').size() == 2).sum():,} of {KILLS*8:,} items exactly twice")

if __name__ == "__main__":
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    for url in [None, *os.environ.get("POSTGRES", "").split()]:
        with tempfile.TemporaryDirectory() as tmp:
            os.environ.update(MLOPS_NB_ROOT=tmp, MLOPS_NB_LOCK_TIMEOUT="60", **({"MLOPS_NB_DATABASE": url} if url else {}))
            if url: print("\nPostgres")
            elif ROWS: at_size(tmp)
            if ITEMS: at_once()
            if KILLS: killed()
            from mlops_nb.core import ledger
            ledger.close()
