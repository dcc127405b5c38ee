"""Labels on Postgres as a team writes them, and what a lock costs. WRITERS processes (20) append ROWS labels each (100), RATE a second each (1; 0: as fast as they can), each in an item of its own of one task (TASKS=1) or of several.
OUTAGES=n also restarts the server n times while four processes write, and says how long each pause was. Starts a server of its own; POSTGRES=url uses another."""
import json, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent/"tests")]
WRITERS, ROWS, RATE, TASKS = (float(os.environ.get(k, v)) for k, v in dict(WRITERS=20, ROWS=100, RATE=1, TASKS=1).items())

WRITER = """
import json, random, sys, time
from mlops_nb.label import log, queue
me, rows, rate, task = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
log.append(log.Event(task, f"i{me}-w", "late", annotator=f"p{me}"))
sys.stdin.readline()
took = []
for n in range(rows):
    if rate: time.sleep(random.expovariate(rate))
    began = time.perf_counter()
    log.append(log.Event(task, f"i{me}-{n}", "late", annotator=f"p{me}"))
    took.append(time.perf_counter() - began)
print(json.dumps(took))
"""
OUTAGE = """
import sys, time
from mlops_nb.core import ledger
from mlops_nb.core.finding import Busy
worst, again = 0, 0
for n in range(int(sys.argv[2])):
    began = time.perf_counter()
    while True:
        try: ledger.event("w", f"{sys.argv[1]}-{n}")
        except Busy: again += 1   # "what was not finished was taken back: run again"
        else: break
    worst = max(worst, time.perf_counter() - began)
print(worst, again)
"""

def start(code, *words, **env): return subprocess.Popen([sys.executable, "-P", "-c", code, *map(str, words)], env={**os.environ, **env, "PYTHONPATH": str(HERE.parent)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def labels():
    import pandas as pd
    from mlops_nb.label import log, queue
    for t in range(int(TASKS)):
        queue.create(f"t{t}", pd.DataFrame({"id": [f"i{w}-{n}" for w in range(int(WRITERS)) if w % TASKS == t for n in [*range(int(ROWS)), "w"]], "text": "x"}), key="id", classes=["late", "fine"], kind="text")
    people = [start(WRITER, w, int(ROWS), RATE, f"t{int(w % TASKS)}") for w in range(int(WRITERS))]
    time.sleep(float(os.environ.get("WARM", 20)))
    began = time.perf_counter()
    for p in people: p.stdin.write("\n"), p.stdin.flush()
    took = sorted(x*1000 for p in people for x in json.loads(p.communicate()[0]))
    assert len(took) == sum(len(log.events(f"t{t}")) for t in range(int(TASKS))) - int(WRITERS), "labels were lost"
    print(f"{int(WRITERS)} writers, {int(TASKS)} task(s), {RATE or 'no'} pause a second: {len(took)} labels in {time.perf_counter() - began:.1f} s; p50 {statistics.median(took):.1f} ms, p90 {took[int(.9*len(took))]:.1f}, p99 {took[int(.99*len(took))]:.1f}, worst {took[-1]:.1f}; load {os.getloadavg()[0]:.1f}")

def restarts(server, n):
    from mlops_nb.core import ledger
    ledger.event("begin", "x")
    people = [start(OUTAGE, w, 1500, MLOPS_NB_LOCK_TIMEOUT="60") for w in range(4)]
    for _ in range(n):
        time.sleep(.5)
        server.stop()
        server.start()
    worst, again = zip(*(map(float, p.communicate()[0].split()) for p in people))
    kept = ledger.events("w").subject
    print(f"{n} restarts, {len(kept)} rows of {4*1500}, {len(kept) - kept.nunique()} twice, {sum(again):.0f} written again after Busy; longest wait of one row {max(worst):.1f} s")

if __name__ == "__main__":
    import servers
    own = None if os.environ.get("POSTGRES") else servers.Postgres()
    try:
        with tempfile.TemporaryDirectory() as tmp:
            os.environ.update(MLOPS_NB_ROOT=tmp, MLOPS_NB_DATABASE=os.environ.get("POSTGRES") or own.make("team"))
            labels()
            if own and os.environ.get("OUTAGES"): restarts(own, int(os.environ["OUTAGES"]))
            from mlops_nb.core import ledger
            ledger.close()
    finally: own and own.end()
