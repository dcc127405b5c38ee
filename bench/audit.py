"Verify a million rows of the audit trail; what a chained event costs beside a plain row; ROWS are the events, a million."
import json, os, statistics, tempfile, time

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

def main(n=int(os.environ.get("ROWS", 1_000_000))):
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
