"Several processes on one labeling task, killed at any moment, on SQLite and on a real Postgres server."
import json, os, random, sqlite3, subprocess, sys, time, warnings
from collections import Counter

import pandas as pd
import pytest

from mlops_nb.core import database, ledger
from mlops_nb.core.finding import BadInput, Busy, MlopsError
from mlops_nb.label import log, queue, tables
from mlops_nb.label.log import Event
from servers import pg   # noqa: F401, a real server

# --- databases ---

@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path, monkeypatch):
    "A project on an empty database of either kind."
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    monkeypatch.setenv("MLOPS_NB_LOCK_TIMEOUT", "60")
    if request.param == "postgres":
        import sqlalchemy as sa
        url = request.getfixturevalue("pg").url()
        made = sa.create_engine(url)
        with made.begin() as c:
            for step in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"): c.execute(sa.text(step))
        made.dispose()
        monkeypatch.setenv("MLOPS_NB_DATABASE", url)
    yield request.param
    ledger.close()

# --- what people do ---

def items(n): return pd.DataFrame({"id": [f"i{i}" for i in range(n)], "text": [f"flight {i}" for i in range(n)]})

def task(n=20, name="t", **more): return queue.create(name, items(n), **{**dict(key="id", classes=["late", "fine"], kind="text"), **more})

def say(i, label="late", who="ana", kind="label", **more): return Event("t", i, label, kind, who, **more)

def ids(got): return [i.item for i in got]

def sound(name):
    "What the queue keeps is what the log says: answers, states and sums, computed anew from the events."
    number, t = queue._found(name)
    kept = {r[:4]: r[4:] for r in tables.query("SELECT item, annotator, slot, uid, label FROM label_answer WHERE task = :t", t=name)}
    ev = log.events(name)
    anew = {}
    for item, some in ev[ev.kind != "note"].groupby("item"):
        for (who, slot), e in log._present(list(some[log._FACTS + ["no"]].itertuples(index=False, name=None))).items(): anew[item, who, slot, e["uid"]] = (e["label"],)
    assert kept == anew
    rows = tables.query("SELECT item, gold, labels, skips, open, state, review FROM label_item WHERE task = :n", n=number)
    said = {}
    for (item, who, slot, uid) in anew: said.setdefault(item, {})[who, slot] = ev[ev.uid == uid].iloc[0].to_dict()
    for item, gold, *state in rows: assert [*log._standing(t, gold, said.get(item, {}))][:5] == state or gold is not None, (item, state)
    plain = [r for r in rows if r[1] is None]
    counts, p = Counter(r[5] for r in plain), queue.progress(name)
    assert (p.total, p.done, p.left, p.skipped, p.flagged) == (len(plain), *(counts[s] for s in ("done", "left", "skipped", "flagged")))
    assert p.disagreements == sum(r[6] == "disputed" for r in plain)
    assert tables.query("SELECT needed FROM label_task WHERE no = :n", n=number)[0][0] == sum(max(t.overlap - r[2], 0) for r in plain if r[5] in ("left", "skipped"))
    return p

# --- one after another, on both databases ---

def test_take_answer_and_reload(store):
    task(12)
    first = queue.take("t", "ana", 5)
    assert ids(first) == [f"i{i}" for i in range(5)] and first[0].data == {"text": "flight 0"}
    assert ids(queue.take("t", "ana", 5)) == ids(first) and ids(queue.take("t", "ana", 7)) == [f"i{i}" for i in range(7)]
    assert ids(queue.take("t", "ben", 20)) == [f"i{i}" for i in range(7, 12)] and queue.take("t", "cara") == []
    assert queue.answer(*[say(i) for i in ids(first)]) == 5 and queue.progress("t").done == 5
    assert ids(queue.take("t", "ana", 5)) == ["i5", "i6"] and not queue.take("t", "cara")
    sound("t")

def test_an_undo_gives_the_item_back_to_the_same_person(store):
    task(6)
    one, two = queue.take("t", "ana", 2)
    click = say(one.item)
    queue.answer(click, say(two.item))
    queue.answer(click.undo())
    assert ids(queue.take("t", "ben", 20)) == [f"i{i}" for i in range(2, 6)], "it is hers until she has decided anew"
    assert ids(queue.take("t", "ana", 1)) == [one.item]
    queue.answer(say(one.item, "fine"))
    assert log.labels("t").set_index("item").label.to_dict() == {"i0": "fine", "i1": "late"}
    sound("t")

def test_holds_run_out(store):
    task(4)
    assert len(queue.take("t", "ana", 4, lease=.2)) == 4 and queue.take("t", "ben") == []
    time.sleep(.3)
    assert ids(queue.take("t", "ben", 2)) == ["i0", "i1"]
    assert queue.answer(say("i0")) == 1, "she was late, and her label counts all the same"
    assert ids(queue.take("t", "ana", 4)) == ["i2", "i3"]
    sound("t")

def test_what_is_freed_behind_a_person_comes_back(store):
    task(30, overlap=2)
    for i in ids(queue.take("t", "ana", 30)): queue.answer(say(i))
    held = queue.take("t", "ben", 3)
    assert queue.take("t", "ana") == []
    queue.take("t", "cara", 30)
    queue.answer(say("i9", None, "cara", "skip"))
    with tables.transaction("t") as sql: sql("UPDATE label_lease SET until = 0 WHERE annotator = :who", dict(who="ben"))   # as if an hour had passed
    got = ids(queue.take("t", "dora", 30))
    assert sorted(got) == sorted([*ids(held), "i9"]), "holds that ran out, and what somebody passed on"
    sound("t")

def test_skip_flag_and_the_reviewer(store):
    task(5)
    queue.take("t", "ana", 5)
    queue.answer(say("i0", None, kind="skip"), say("i1", "unreadable", kind="flag"), say("i2"), say("i2", "see the tail number", kind="note"))
    assert (p := queue.progress("t")).skipped == 1 and p.flagged == 1 and p.done == 1 and p.left == 2
    assert "i0" in ids(queue.take("t", "ben", 20)) and "i0" not in ids(queue.take("t", "ana", 20))
    queue.answer(say("i0", None, "ben", "skip"))
    assert queue.disagreements("t").set_index("item").why.to_dict() == {"i0": "skipped", "i1": "flagged"}
    waiting = queue.take_disagreements("t", "eve")
    assert ids(waiting) == ["i0", "i1"] and waiting[1].answers[0]["label"] == "unreadable" and queue.take_disagreements("t", "fred") == []
    assert queue.adjudicate("t", "i0", "fine", "eve") == queue.adjudicate("t", "i1", "late", "eve") == 1
    assert (p := sound("t")).done == 3 and p.skipped == p.flagged == 0
    assert log.labels("t").set_index("item").source.to_dict() == {"i0": "adjudicated", "i1": "adjudicated", "i2": "agreed"}

def test_disputes(store):
    task(2, overlap=2)
    queue.answer(say("i0"), say("i0", "fine", "ben"), say("i1"), say("i1", "late", "ben"))
    assert queue.progress("t").disagreements == 1 and queue.disagreements("t").labels.tolist() == [{"ana": "late", "ben": "fine"}]
    ruling = say("i0", "fine", "eve", "adjudicate")
    queue.answer(ruling)
    assert queue.progress("t").disagreements == 0
    queue.answer(ruling.undo())
    assert sound("t").disagreements == 1

def test_priority_reason_and_suggestion(store):
    task(10)
    queue.take("t", "ben", 2)
    assert queue.prioritise("t", ["i8", "i0", "i9"], [1, 3, 2], "margin") == 3
    queue.suggest("t", ["i9"], ["fine"], .75, "m 2")
    got = queue.take("t", "ana", 3)
    assert ids(got) == ["i9", "i8", "i2"] and (got[0].suggestion, got[0].confidence, got[0].model, got[0].reason) == ("fine", .75, "m 2", "margin"), "i0 is with ben"
    queue.prioritise("t", ["i5"], 1, "margin", replace=True)
    assert ids(queue.take("t", "cara", 3)) == ["i5", "i3", "i4"]
    assert queue.propose("t", pd.DataFrame({"id": ["i2", "new"], "text": ["flight 2", "diverted"]}), "drift") == 2
    assert ids(queue.take("t", "dora", 1)) == ["new"], "i2 is with ana"
    sound("t")

def test_blind_hides_suggestions(store):
    task(3, blind=True)
    queue.suggest("t", ["i0"], ["late"], .9, "m")
    assert queue.take("t", "ana", 1)[0].suggestion is None

def test_gold_is_one_in_twenty_and_no_work(store):
    task(200, gold={f"i{i}": "late" for i in range(20)})
    assert queue.progress("t").total == 180
    seen = []
    while got := queue.take("t", "ana", 20):
        seen += got
        queue.answer(*[say(i.item) for i in got])
    gold = [n for n, i in enumerate(seen) if i.gold]
    assert len(seen) == len({i.item for i in seen}) and len(gold) in (9, 10) and sum(not i.gold for i in seen) == 180
    assert len({n % 20 for n in gold}) > 3, "at places nobody can guess"
    assert sound("t").done == 180

def test_a_task_of_gold_alone(store):
    "A test for those who are new."
    task(6, gold={f"i{i}": "late" for i in range(6)})
    assert len(queue.take("t", "ana", 4)) == 4 and len(queue.take("t", "ana", 20)) == len(queue.take("t", "ben", 20)) == 6

def test_items_come_later_and_labels_came_before(store):
    log.append(say("i1"), say("i2", "fine", "ben"))
    task(3)
    assert queue.progress("t").done == 2 and ids(queue.take("t", "ana")) == ["i0"]
    task(5)
    assert ids(queue.take("t", "ana")) == ["i0", "i3", "i4"] and sound("t").total == 5

def test_gold_said_later(store):
    task(4)
    queue.answer(say("i0"))
    task(4, gold={"i0": "late", "i1": "fine"})
    assert (p := sound("t")).total == 2 and p.done == 0

@pytest.mark.parametrize("seed", range(3))
def test_any_mix_of_events_keeps_the_books(store, seed):
    "Labels, skips, flags, rulings, undos and undone undos by three people in any order; the log is right, and the rest follows it."
    rng, past = random.Random(seed), []
    task(8, overlap=rng.choice([1, 2]), gold={"i7": "late"})
    for _ in range(120):
        if past and rng.random() < .3: e = rng.choice(past).undo()
        else: e = say(f"i{rng.randrange(8)}", rng.choice(["late", "fine"]), rng.choice(["ana", "ben", "cara"]), rng.choice(["label"]*4 + ["skip", "flag", "adjudicate"]))
        past.append(e)
        assert queue.answer(e, e) == 1
        if rng.random() < .2: queue.take("t", rng.choice(["ana", "ben", "dora"]), 3, lease=rng.choice([.001, 60]))
    sound("t")
    left = queue.take("t", "zoe", 20)
    tables.query("SELECT 1")
    assert len(left) == len({*ids(left)})

# --- at once ---

WORKER = """
import sys, random
from mlops_nb.label import queue
from mlops_nb.label.log import Event
who, k = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
while got := queue.take("t", who, k):
    for i in range(0, len(got), 10): queue.answer(*[Event("t", g.item, "late", annotator=who, ms=5) for g in got[i:i+10]])
"""

def process(code, *words):
    return subprocess.Popen([sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def together(code, people, *words):
    ps = [process(code, who, *words) for who in people]
    for p in ps: assert p.stdout.readline().strip() == "ready", p.communicate()[1]
    for p in ps: p.stdin.write("\n"), p.stdin.flush()
    said = [p.communicate(timeout=300) for p in ps]
    assert [p.returncode for p in ps] == [0]*len(ps), "\n".join(err[-2000:] for _, err in said)

def test_four_processes_overlap_two(store):
    n = int(os.environ.get("ITEMS", 1000 if store == "sqlite" else 300))   # bench/label_queue.py does it with 10,000
    task(n, overlap=2)
    together(WORKER, ["ana", "ben", "cara", "dora"], "25")
    ev = log.events("t")
    assert len(ev) == 2*n and (ev.groupby("item").size() == 2).all(), "every item exactly twice"
    assert not ev.duplicated(["item", "annotator"]).any(), "nobody the same item twice"
    assert ev.annotator.nunique() == 4 and sound("t").done == n and not tables.query("SELECT * FROM label_lease")

def test_tables_made_by_many_at_once(store):
    ledger.run_id()
    together("import sys\nfrom mlops_nb.label import queue\nprint('ready', flush=True)\nsys.stdin.readline()\nqueue.create('t', ['a', 'b', sys.argv[1]], key=None, classes=['x'], kind='text')", list("abcd"))
    assert queue.progress("t").total == 4

MORTAL = """
import sys
from mlops_nb.label import queue
from mlops_nb.label.log import Event
who, n = sys.argv[1], 0
print("ready", flush=True)
sys.stdin.readline()
while got := queue.take("t", who, 5):
    for g in got:
        e = Event("t", g.item, "late", annotator=who, uid=f"{who}-{g.item}")
        print("send", e.uid, flush=True)
        queue.answer(e)
        print("ack", e.uid, flush=True)
"""

def test_kill_nine_at_any_step(store):
    "Whoever is killed, at whatever step: what was acknowledged is there, once, and everybody else finishes the task."
    rounds, rng, acked = int(os.environ.get("KILLS", 12)), random.Random(7), []
    task(rounds*3 + 60, overlap=2)
    people = ["ana", "ben", "cara"]
    for r in range(rounds):
        p = process(MORTAL, people[r % 3])
        assert p.stdout.readline().strip() == "ready", p.communicate()[1]
        p.stdin.write("\n"), p.stdin.flush()
        time.sleep(rng.random()*.06)
        p.kill()
        acked += [l.split()[1] for l in p.communicate()[0].splitlines() if l.startswith("ack ")]
    for who in people:     # each starts again, gets his own holds back, and goes on
        done = subprocess.run([sys.executable, "-c", MORTAL, who], input="\n", capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
    ev = log.events("t")
    assert {*acked} <= {*ev.uid} and not ev.uid.duplicated().any() and not ev.duplicated(["item", "annotator"]).any()
    assert (ev.groupby("item").size() == 2).all() and sound("t").left == 0

# --- bad input ---

def said_by(call, error=BadInput):
    with pytest.raises(error) as e: call()
    return str(e.value)

def test_names_that_do_not_fit(local):
    task(5)
    assert "did you mean 't'" in said_by(lambda: queue.take("tt", "ana")) or "'t'" in said_by(lambda: queue.open_task("tt"))
    for call in (lambda: queue.progress("flights"), lambda: queue.take("flights", "ana"), lambda: queue.answer(Event("flights", "i0", "late")), lambda: queue.disagreements("flights"), lambda: queue.prioritise("flights", [])):
        assert "'flights'" in said_by(call) and "t" in said_by(call)
    assert "'lte'" in said_by(lambda: queue.answer(say("i0", "lte"))) and "did you mean 'late'" in said_by(lambda: queue.answer(say("i0", "lte")))
    assert "no item 'i77'" in said_by(lambda: queue.answer(say("i77")))
    with pytest.raises(BadInput) as e: queue.answer(say("i0"), say("i1", "lte", uid="guilty"))
    assert e.value.uid == "guilty" and log.events("t").empty, "all or none"
    for call in (lambda: queue.take("t", " "), lambda: queue.take("t", None), lambda: queue.take("t", "ana", 0), lambda: queue.take("t", "ana", lease=0), lambda: queue.adjudicate("t", "i0", "maybe", "eve")): said_by(call)

@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers(local, score):
    task(5)
    assert str(score) in said_by(lambda: queue.prioritise("t", ["i0", "i1"], [1., score]))
    assert str(score) in said_by(lambda: queue.suggest("t", ["i0"], ["late"], score))
    assert "2 values of priority for 1 items" in said_by(lambda: queue.prioritise("t", ["i0"], [1., 2.]))
    assert "no item 'x'" in said_by(lambda: queue.prioritise("t", ["x"])) and "no item 'x'" in said_by(lambda: queue.suggest("t", ["x"], ["late"]))
    assert not any(i.reason for i in queue.take("t", "ana", 5))

def test_items_without_a_key_or_with_one_twice(local):
    df = items(6)
    assert "have no id" in said_by(lambda: task(name="u") and queue.create("v", df.assign(id=["a", None, "b", "c", "d", ""]), key="id", classes=["x"]))
    assert "column 'words' twice" in said_by(lambda: queue.create("v", pd.DataFrame([[1, "a", "b"]], columns=["id", "words", "words"]), key="id", classes=["x"]))
    assert "confidence 'sure' is not a number" in said_by(lambda: [queue.create("sure", ["a"], key=None, classes=["x"]), queue.suggest("sure", ["a"], ["x"], "sure")])
    assert "'a' of task 'v' is there twice" in said_by(lambda: queue.create("v", df.assign(id=list("abcdea")), key="id", classes=["x"]))
    with pytest.warns(UserWarning, match="1 of 3 items"): queue.create("w", ["same", "same", "other"], key=None, classes=["x"], kind="text")
    assert queue.progress("w").total == 2 and "v" not in list(queue.tasks().name)

def test_a_text_of_50_megabytes(local):
    assert "50 MB long" in said_by(lambda: queue.create("t", ["fine", "a"*50_000_000], key=None, classes=["x"], kind="text"))
    queue.create("t", ["fine"], key=None, kind="value")
    item = queue.take("t", "ana")[0].item
    assert "MB" in said_by(lambda: queue.answer(say(item, "a"*50_000_000))) and "MB" in said_by(lambda: queue.answer(say(item, "a"*50_000_000, kind="note")))
    assert queue.answer(say(item, "a"*900_000)) == 1

def test_another_schema_under_the_same_name(local):
    task(5)
    assert "'overlap'" in said_by(lambda: task(5, overlap=2)) or "overlap" in said_by(lambda: task(5, overlap=2))
    assert "classes" in said_by(lambda: task(5, classes=["late", "early"])) and "kind" in said_by(lambda: task(5, kind="choice"))
    assert queue.create("t", items(7), key="id", classes=["late", "fine"], kind="text", question="Late?").question == "Late?" and queue.progress("t").total == 7

def test_two_people_under_one_name(local):
    task(5)
    queue.take("t", "ana", 2, session="laptop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        queue.take("t", "ana", 2, session="laptop")
    assert queue.elsewhere("t", "ana", "laptop") == queue.elsewhere("t", "ben", "laptop") == "" and "'ana' was at work as laptop" in queue.elsewhere("t", "ana", "tower")
    with pytest.warns(UserWarning, match="'ana' was at work as laptop"): queue.take("t", "ana", 2)

def test_personal_columns_are_never_shown(local):
    df = items(3).assign(mail=["ana@example.org", "ben@example.org", "cara@example.org"])
    with pytest.warns(UserWarning, match="mail"): t = queue.create("t", df, key="id", classes=["x"])
    assert t.show == ("text",)
    df.attrs["personal"] = {"mail": "e-mail"}
    assert "personal" in said_by(lambda: queue.create("u", df, key="id", show=["mail"], classes=["x"])) and "personal" in said_by(lambda: queue.create("u", df, key="mail", classes=["x"]))
    assert "example.org" not in json.dumps([i.data for i in queue.take("t", "ana")]) and not any("example.org" in str(r) for r in tables.query("SELECT data FROM label_data"))

def test_a_locked_database(local, monkeypatch):
    task(5)
    monkeypatch.setenv("MLOPS_NB_LOCK_TIMEOUT", "0.3")
    got = queue.take("t", "ana", 2)
    with sqlite3.connect(local/".mlops/mlops.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "locked" in said_by(lambda: queue.answer(say(got[0].item)), Busy) and "locked" in said_by(lambda: queue.take("t", "ben"), Busy)
        assert queue.progress("t").total == 5, "reading goes on"
        other.execute("ROLLBACK")
    assert queue.answer(say(got[0].item)) == 1 and sound("t").done == 1

def test_a_full_database(local):
    task(5)
    queue.answer(say("i0"))
    file = local/".mlops/mlops.db"
    c = database._sqlite(file, 20.0, os.getpid(), file.stat().st_ino)
    c.execute(f"PRAGMA max_page_count = {c.execute('PRAGMA page_count').fetchone()[0] + 4}")
    clicks = [say("i1", kind="note", uid=f"n{i}", who="ben") for i in range(40)]
    clicks = [Event(e.task, e.item, "word "*2000, "note", "ben", uid=e.uid) for e in clicks]
    kept, told = [], ""
    for e in clicks:
        try: kept += [e.uid] * queue.answer(e)
        except MlopsError as error: told = str(error)
    assert "full" in told and len(kept) < 40 and {*kept} | {log.events("t").uid.iloc[0]} == {*log.events("t").uid}, "what was acknowledged is there, and nothing else"
    c.execute("PRAGMA max_page_count = 1000000")
    assert queue.answer(*clicks) == 40 - len(kept) and sound("t").done == 1, "once there is room, the rest goes in, once"
