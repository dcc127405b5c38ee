"Verify a million rows of the audit trail; what a chained event costs beside a plain row; lineage of a thousand ancestors. ROWS are the events, a million."
import json, os, statistics, sys, tempfile, time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]/p) for p in ("", "tests")]

from mlops_nb.core import chain, database, ledger
from mlops_nb.core.config import settings_for
from mlops_nb.govern import audit

def filled(n):
    "n events as a project writes them, mostly versions and labels."
    last, rows = chain.START, []
    for no in range(1, n + 1):
        row = (no, "2026-01-01T00:00:00.000+00:00", "20260101-000000-abcdef", "ana", "write", f"dataset table{no % 50}", json.dumps(dict(version=str(no))))
        last = chain.mark(last, row)
        rows.append((*row, last))
    with database.alone("audit"): database._OPEN and database._sqlite.cache_info()
    import sqlite3
    c = sqlite3.connect(database._file(ledger.settings().database))
    c.executemany(f"INSERT INTO event VALUES ({','.join('?'*8)})", rows)
    c.commit(), c.close()

def timed(act, times=3):
    took = []
    for _ in range(times):
        t = time.perf_counter()
        act()
        took.append(time.perf_counter() - t)
    return statistics.median(took), min(took)

def ancestors(n=1000):
    "Lineage of one model that a chain of n versions, or n tables beside each other, stand behind; then as the command prints it, and as a picture."
    from mlops_nb.govern import lineage
    from mlops_nb.pages import graph
    from test_lineage import filled
    for deep in (True, False):
        with tempfile.TemporaryDirectory() as tmp, settings_for(tmp):
            filled(n, deep)
            rows = lineage.trace("late")
            assert len(rows) == n + 1
            acts = dict(walked=lambda: ledger.lineage("model", "late"), traced=lambda: lineage.trace("late"), drawn=lambda: graph.lineage(rows))
            print(f"{n:,} ancestors {'in a chain' if deep else 'beside each other'}: " + ", ".join("%s in %.0f ms" % (k, timed(act, 9)[0]*1e3) for k, act in acts.items()))
            ledger.close()

def main(n=int(os.environ.get("ROWS", 1_000_000))):
    ancestors()
    with tempfile.TemporaryDirectory() as tmp, settings_for(tmp):
        database.rows("event", no=0)
        filled(n)
        found = audit.verify()
        assert audit.ok(found), found
        print("verify %d events: median %.2f s, best %.2f s" % (n, *timed(audit.verify)))
        print("newest 30: %.1f ms" % (timed(lambda: audit.entries(last=30))[0]*1e3))
        for name, act in (("plain row", lambda: database.insert("io", dict(run="r", direction="read", kind="dataset", name="x", version="1", asked="1", at="t"))), ("chained event", lambda: ledger.event("note", "x"))):
            print("%s: median %.2f ms" % (name, timed(act, 300)[0]*1e3))
        ledger.close()

if __name__ == "__main__": main()
