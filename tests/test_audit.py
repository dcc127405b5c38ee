"Whatever is changed in the record behind our back is found; two writers make one chain; a clock that goes back breaks nothing."
import os, random, subprocess, sys

import pytest

from mlops_nb.core import chain, database, ledger
from mlops_nb.data import dataset, samples
from mlops_nb.core.finding import BadInput, Finding
from mlops_nb.govern import audit
from mlops_nb.label import log


def lived():
    "Thirty runs on real flights, labels of two people, promotions."
    day = samples.flights(until="2013-01-02")
    for i in range(30):
        run = ledger.start_run("nbs/workflows/train.ipynb", {"i": i})
        ledger._record_io("read", "dataset", "flights", 0, "latest", run)
        ledger._record_io("write", "dataset", f"table{i % 3}", i, "", run)
        database.insert("finding", dict(run=run, topic="late_flights", at=ledger._now(), check="auc", subject="valid", value="0.7", limit="0.66", ok=True, level="error", note="", action=""))
        ledger.end_run(run, "done")
    dataset.commit(day, "flights")
    for i in range(60): log.append(log.Event("late", day.flight_id[i % 40], str(i % 2), annotator="ana" if i % 3 else "ben"))
    for v in (1, 2, 3): ledger.event("promote", "late_flights", version=v, reason="better")


TABLES = dict(event=[*chain.FIELDS, "mark"], label_event=["no", "task", "item", "label", "kind", "annotator", "at", "uid", "ms", "suggestion", "confidence", "model"],
              run=[*ledger._SEALED["run"].split()], io=["run", *ledger._SEALED["io"].split()], finding=["run", *ledger._SEALED["finding"].split()])


def tamper(rng, say):
    "One random edit of one field, a deletion, an insertion or a swap, straight in SQL. What it was, or None when nothing changed."
    table = rng.choice([*TABLES, "event", "event"])
    sealed = "SELECT run FROM event WHERE action = 'run'"
    where = {"run": f"id IN ({sealed})", "io": f"run IN ({sealed})", "finding": f"run IN ({sealed})"}.get(table, "1 = 1")
    nos = [r[0] for r in say(f"SELECT no FROM {table} WHERE {where} ORDER BY no")]
    no, how = rng.choice(nos), rng.choice(["edit"]*6 + ["delete", "swap", "insert"])
    if how == "delete":
        if table == "event" and no == nos[-1]: return None   # the end: an anchor's matter, below
        say(f"DELETE FROM {table} WHERE no = {no}")
    elif how == "swap" and table == "event":
        other = rng.choice([n for n in nos if n != no])
        for a, b in ((no, -1), (other, no), (-1, other)): say(f"UPDATE event SET no = {b} WHERE no = {a}")
    elif how == "insert" and table == "event":
        say(f"UPDATE event SET no = -no - 1 WHERE no > {no}"), say("UPDATE event SET no = -no WHERE no < 0")
        say(f"INSERT INTO event SELECT {no + 1}, at, run, 'mallory', action, subject, detail, mark FROM event WHERE no = {no}")
    else:
        field = rng.choice(TABLES[table])
        was = say(f'SELECT "{field}" FROM {table} WHERE no = {no}')[0][0]
        new = max(nos) + 7 if field == "no" else None if was is not None and rng.random() < .2 else 1 - was if field == "ok" else (was or 0) + 1 if field in ("ms", "confidence") else f"{was}x"
        if field in ("uid", "task", "id") and new is None: new = f"{was}x"   # SQL itself refuses that one
        say(f'UPDATE {table} SET "{field}" = ? WHERE no = {no}', (new,))
        return f"{table}.{field} of {no}: {was!r} -> {new!r}"
    return f"{how} {table} {no}"


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_random_edits_are_all_found(local, seed):
    lived()
    assert audit.ok(audit.verify())
    rng, missed, done = random.Random(seed), [], 0
    c = database._sqlite(database._file(ledger.settings().database), 20.0, os.getpid(), (local/".mlops/mlops.db").stat().st_ino)
    while done < 250:
        c.execute("BEGIN")
        what = tamper(rng, lambda sql, values=(): c.execute(sql, values).fetchall())
        if what and audit.ok(audit.verify()): missed.append(what)
        done += bool(what)
        c.execute("ROLLBACK")
    assert not missed and audit.ok(audit.verify())


def test_every_field_of_every_table_is_covered(local):
    "Each field of the first, a middle and the last row is edited by itself, and found."
    lived()
    c, missed = database._sqlite(database._file(ledger.settings().database), 20.0, os.getpid(), (local/".mlops/mlops.db").stat().st_ino), []
    for table, fields in TABLES.items():
        sealed = {"run": "id", "io": "run", "finding": "run"}.get(table)
        nos = [r[0] for r in c.execute(f"SELECT no FROM {table}" + (f" WHERE {sealed} IN (SELECT run FROM event WHERE action = 'run')" if sealed else "") + " ORDER BY no")]
        for no in (nos[0], nos[len(nos)//2], nos[-1]):
            for field in fields:
                was = c.execute(f'SELECT "{field}" FROM {table} WHERE no = {no}').fetchone()[0]
                new = max(nos) + 7 if field == "no" else 1 - was if field == "ok" else (was or 0) + 1 if field in ("ms", "confidence") else f"{was}x"
                c.execute("BEGIN")
                c.execute(f'UPDATE {table} SET "{field}" = ? WHERE no = {no}', (new,))
                if audit.ok(audit.verify()): missed.append((table, no, field))
                c.execute("ROLLBACK")
    assert not missed and audit.ok(audit.verify())


def test_the_end_cut_off_is_known_to_the_anchor_only(local):
    lived()
    chain.anchor("anchors")
    for n in range(1, 20):
        database.write("DELETE FROM event WHERE no = (SELECT max(no) FROM event)", {})
        database.write("DELETE FROM label_event WHERE no > 1000", {})
        bad = [f for f in audit.verify("anchors") if not f.ok and f.check == "anchor"]
        assert len(bad) == 1 and all(f.ok for f in audit.verify() if f.check == "audit chain")


def test_a_chain_written_anew_is_known_to_the_anchor_only(local):
    lived()
    chain.anchor("anchors")
    database.write("UPDATE event SET actor = 'bob' WHERE no = 3", {})
    last = chain.START
    for r in database.tuples(f"SELECT {', '.join(chain.FIELDS)} FROM event ORDER BY no"):
        last = chain.mark(last, r)
        database.write("UPDATE event SET mark = :m WHERE no = :n", dict(m=last, n=r[0]))
    assert audit.ok(audit.verify()) and not audit.ok(audit.verify("anchors"))


WRITER = """from mlops_nb.core import ledger
from pathlib import Path
import sys, time
Path(sys.argv[1]).touch()
while not all(map(Path.exists, map(Path, "ab"))): time.sleep(.01)
for i in range(150): ledger.event('note', sys.argv[1], i=i); time.sleep(.002)   # lets the other in, also on a busy machine"""


def test_two_processes_write_one_chain(local):
    both = [subprocess.Popen([sys.executable, "-c", WRITER, who], cwd=local) for who in "ab"]
    assert [p.wait(120) for p in both] == [0, 0]
    found = audit.entries(action="note")
    assert len(found) == 300 and [e["no"] for e in found] == [*range(1, 301)] and audit.ok(audit.verify())
    assert [e["detail"]["i"] for e in found if e["subject"] == "a"] == [*range(150)]
    order = "".join(e["subject"] for e in found)
    assert "ab" in order and "ba" in order   # they did meet


def test_a_clock_that_goes_back_breaks_nothing(local, monkeypatch):
    ledger.event("promote", "m", version=1)
    monkeypatch.setattr(ledger, "_now", lambda: "1999-01-01T00:00:00.000+00:00")
    ledger.event("promote", "m", version=2)
    assert [e["detail"]["version"] for e in audit.entries()] == [1, 2] and audit.ok(audit.verify())


def test_a_failed_transaction_leaves_no_half(local):
    ledger.event("promote", "m", version=1)
    with pytest.raises(Exception): chain.add(ledger._event("write", "x", {}), also=[("INSERT INTO nowhere VALUES (1)", {})])
    assert len(audit.entries()) == 1 and audit.ok(audit.verify())


def test_settings_and_versions_leave_events(local):
    from mlops_nb.train.goal import goal
    (local/"settings.ini").write_text("[mlops_nb]\nseed = 0\n[goal]\nmetric = roc_auc\nminimum = 0.6\n")
    goal()
    goal()
    (local/"settings.ini").write_text("[mlops_nb]\nseed = 0\n[goal]\nmetric = roc_auc\nminimum = 0.5\n")
    goal()
    said = audit.entries(action="settings")
    assert [e["subject"] for e in said] == ["settings goal"]*2 and said[1]["detail"]["before"] == said[0]["detail"]["version"]


def test_who_acts_is_known_in_one_place(local, monkeypatch):
    "What an actor starts stands under their name in the trail and in every row that names somebody."
    from pathlib import Path
    import mlops_nb
    from mlops_nb.core.finding import at_least
    from mlops_nb.data import catalogue, versions
    from mlops_nb.label import queue, widget
    from mlops_nb.monitor import alerts
    home = Path(mlops_nb.__file__).parent
    assert {p.relative_to(home).as_posix() for p in home.rglob("*.py") if p.name != "_modidx.py" and any(w in p.read_text(encoding="utf-8") for w in ("account()", "getuser("))} == {"core/config.py", "core/database.py", "core/ledger.py"}
    monkeypatch.setenv("JUPYTERHUB_USER", "of the hub")
    assert ledger.who() == "of the hub"
    monkeypatch.setenv("MLOPS_NB_ACTOR", "Ana Miller")
    day = samples.flights(until="2013-01-02").head(20)
    dataset.commit(day, "flights"), versions.tag("flights", "fine"), catalogue.describe("flights", owner="the team")
    queue.create("late", day, key="flight_id", classes=("yes", "no"))
    alerts.raise_([at_least("auc", "m", .5, .7)], "m")
    alerts.acknowledge("m", "we look at it")
    rows = [versions.tags("flights").by[0], database.rows("catalogue")[0]["actor"], database.tuples('SELECT who FROM label_task')[0][0], alerts.standing("m")[0].who, widget.label("late").annotator, widget.page("late").annotator]
    assert {*rows, *(e["actor"] for e in audit.entries())} == {"Ana Miller"} and {"tag", "describe", "acknowledge", "write"} <= {e["action"] for e in audit.entries()}


def test_retention_keeps_what_is_in_force(local):
    lived()
    n = len(audit.entries())
    audit.retain(0, dry_run=False)
    assert {e["action"] for e in audit.entries()} == {"promote", "truncate"} and audit.ok(audit.verify())
    lived()
    audit.retain(0, dry_run=False)
    assert len(audit.entries(action="promote")) == 6 and len(audit.entries(action="truncate")) == 2 and audit.ok(audit.verify())
    first, second = sorted((local/".mlops/audit").glob("*.jsonl"))
    assert audit.ok(audit.verify_file(first)) and sum(1 for _ in open(first)) == n
    database.write("DELETE FROM event WHERE no = (SELECT min(no) FROM event)", {})
    assert not audit.ok(audit.verify())
    with pytest.raises(BadInput, match="broken"): audit.retain(0, dry_run=False) if audit.entries() and ledger.event("write", "x") is None else None


def test_retention_by_rows_and_a_look_at_the_newest(local):
    lived()
    n = len(audit.entries())
    with pytest.raises(BadInput, match="nothing says"): audit.retain()
    with pytest.raises(BadInput, match="below 0"): audit.retain(rows=-1)
    assert audit.retain(rows=n).value == audit.retain(days=1).value == 0
    went = audit.retain(rows=20, dry_run=False)
    left = audit.entries()
    assert went.value == n - 20 and len(left) == 21 and left[-1]["action"] == "truncate" and audit.ok(audit.verify())   # the promotions are among the newest 20
    assert audit.ok(audit.recent(10)) and audit.ok(audit.recent(20)) and audit.ok(audit.recent())
    assert audit.retain(days=1, rows=0).value == audit.retain(rows=0).value == 20 - 3   # what is beyond either; promotions and the removal stay
    no = left[-3]["no"]
    database.write(f"UPDATE event SET actor = 'eve' WHERE no = {no}", {})
    assert [f.subject for f in audit.recent(10) if not f.ok] == [f"event {no}"] and audit.ok(audit.recent(2))


def test_a_ledger_of_before_is_taken_in_once(local):
    import sqlite3
    (local/".mlops").mkdir()
    old = sqlite3.connect(local/".mlops/mlops.db")
    old.execute("CREATE TABLE event (no INTEGER PRIMARY KEY, at TEXT, run TEXT, actor TEXT, action TEXT, subject TEXT, detail TEXT)")
    old.executemany("INSERT INTO event (at, run, actor, action, subject, detail) VALUES ('2012', NULL, 'ana', 'promote', 'm', ?)", [('{"version": 1}',), ('{"version": 2}',)])
    old.commit(), old.close()
    ledger.event("promote", "m", version=3)
    assert [e["action"] for e in audit.entries()] == ["promote", "promote", "adopt", "promote"] and audit.ok(audit.verify())
    database.write("UPDATE event SET mark = NULL WHERE no > 2", {})   # no way to have it taken in again
    ledger.event("promote", "m", version=4)
    assert not audit.ok(audit.verify())
