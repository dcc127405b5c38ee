"The log of labels: databases of before, threads, corrections in any order, what is published and where it came from."
import itertools, os, random, sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlops_nb.core import ledger
from mlops_nb.core.finding import BadInput
from mlops_nb.data import dataset
from mlops_nb.label import log, queue, tables
from mlops_nb.label.log import Event

def say(item, label="1", who="ana", kind="label", **more): return Event("t", item, label, kind, who, **more)

BEFORE = """CREATE TABLE label_event (no INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE, task TEXT NOT NULL, item TEXT, label TEXT, kind TEXT, annotator TEXT, at TEXT);
CREATE INDEX ix_label_event_task ON label_event (task);
INSERT INTO label_event (uid, task, item, label, kind, annotator, at) VALUES ('u1', 't', 'a', '0', 'label', 'ana', '2026-01-01T00:00:00.000001+00:00'), ('u2', 't', 'a', '1', 'label', 'ana', '2026-01-01T00:00:01.000001+00:00'),
    ('u3', 't', 'b', '1', 'label', 'ben', '2026-01-01T00:00:02.000001+00:00'), ('u4', 't', 'b', 'u3', 'undo', 'ben', '2026-01-01T00:00:03.000001+00:00'), ('u5', 't', 'c', NULL, 'skip', 'ben', '2026-01-01T00:00:04.000001+00:00');"""

def test_a_database_of_before(local):
    "Its events stay, its columns become the present ones, and what holds now is known at once."
    (local/".mlops").mkdir()
    with sqlite3.connect(local/".mlops/mlops.db") as c: c.executescript(BEFORE)
    c.close()
    assert log.current("t")[["item", "annotator", "label", "kind"]].values.tolist() == [["a", "ana", "1", "label"], ["c", "ben", None, "skip"]]
    assert log.version("t") == 5 and log.append(say("b", ms=700, suggestion="0", confidence=.6, model="m 1")) == 1 and log.append(say("b", uid="u1")) == 0
    last = log.events("t").iloc[-1]
    assert (last.ms, last.suggestion, last.confidence, last.model) == (700, "0", .6, "m 1") and log.events("t").ms.isna().sum() == 5
    ledger.close()
    assert len(log.current("t")) == 3

def test_a_database_of_before_opened_by_many(local):
    (local/".mlops").mkdir()
    with sqlite3.connect(local/".mlops/mlops.db") as c: c.executescript(BEFORE)
    c.close()
    with ThreadPoolExecutor(8) as pool: assert sum(pool.map(lambda i: log.append(say("z", uid=f"n{i % 5}", who=f"p{i % 5}")), range(20))) == 5
    assert len(log.current("t")) == 7

@pytest.mark.parametrize("seed", range(4))
def test_events_in_any_order_of_arrival(local, seed):
    "An outbox that was held back, or two browsers: what holds depends on when things were done, not on when they were heard."
    rng, at = random.Random(seed), iter(f"2026-01-01T00:00:{s:02}.000000+00:00" for s in itertools.count())
    done = []
    for _ in range(25):
        if done and rng.random() < .35:
            e = rng.choice(done)
            done.append(Event("t", e.item, e.uid, "undo", e.annotator, next(at)))
        else: done.append(say(rng.choice("abc"), rng.choice("01"), rng.choice(["ana", "ben"]), rng.choice(["label", "label", "skip", "flag", "adjudicate"]), at=next(at)))
    log.append(*done)
    other = [Event("s", e.item, e.label if e.kind != "undo" else f"{e.label}s", e.kind, e.annotator, e.at, f"{e.uid}s") for e in done]
    rng.shuffle(other)
    for e in other: log.append(e, e)
    look = lambda task: log.current(task).sort_values(["item", "annotator"]).values.tolist()
    assert look("t") == look("s") and log.labels("t").sort_values("item").values.tolist() == log.labels("s").sort_values("item").values.tolist()

def test_threads_of_one_kernel(local):
    events = [say(f"i{i % 50}", str(i), f"p{i % 7}", uid=f"u{i % 300}") for i in range(600)]
    with ThreadPoolExecutor(8) as pool: assert sum(pool.map(log.append, events)) == 300
    assert len(log.events("t")) == 300 and log.version("t") == log.events("t").no.max()

@pytest.mark.parametrize("bad, said", [
    (dict(kind="lable"), "did you mean 'label'"), (dict(label=None), "needs `label`"), (dict(label=None, kind="note"), "the text"), (dict(label=None, kind="undo"), "uid"), (dict(label=None, kind="adjudicate"), "label itself"),
    (dict(item=" "), "'item'"), (dict(who=""), "'annotator'"), (dict(uid=""), "'uid'"), (dict(ms=float("nan")), "ms nan"), (dict(ms=-1), "ms -1"), (dict(confidence=1.2), "confidence 1.2"), (dict(confidence="sure"), "confidence 'sure'"), (dict(label="x"*1_100_000), "1.1 MB")])
def test_what_cannot_be_right(local, bad, said):
    facts = {**dict(item="a"), **bad}
    with pytest.raises(BadInput) as e: log.append(say("fine"), say(facts.pop("item"), **facts))
    assert said in str(e.value) and hasattr(e.value, "uid") and log.events("t").empty

def test_text_no_database_keeps(local):
    log.append(say("a", "nul \0 here", kind="note"), say("b", "half \ud83d of it", kind="note"), say("c", "<b>'; DROP TABLE label_event; --", kind="note"), say("d", "", kind="flag"))
    assert log.events("t").label.tolist() == ["nul  here", "half ? of it", "<b>'; DROP TABLE label_event; --", None]

def test_labels_of_many(local):
    "Against the plain definition: a ruling, else the most said, of equally many the last said."
    rng = random.Random(0)
    log.append(*[say(f"i{rng.randrange(60)}", rng.choice("abc"), f"p{rng.randrange(5)}", rng.choice(["label"]*9 + ["adjudicate", "skip"])) for _ in range(400)])
    got, rows = log.labels("t").set_index("item"), tables.query("SELECT item, annotator, slot, label, at, no FROM label_answer WHERE task = 't' AND kind IN ('label', 'adjudicate') ORDER BY at, no")
    for item in got.index:
        votes, ruled = [r[3] for r in rows if r[0] == item and r[2] == 0], [r[3] for r in rows if r[0] == item and r[2] == 1]
        most = max(map(votes.count, votes), default=0)
        best = {v for v in votes if votes.count(v) == most}
        label = ruled[-1] if ruled else next(v for v in reversed(votes) if v in best)
        assert (got.label[item], got.votes[item], got.agreement[item]) == (label, len(votes), votes.count(label)/max(len(votes), 1))
        assert got.source[item] == ("adjudicated" if ruled else "agreed" if len({*votes}) == 1 else "tie" if len(best) > 1 else "majority")
        assert got.annotators[item] == ", ".join(sorted({r[1] for r in rows if r[0] == item})) and got["at"][item] == max(r[4] for r in rows if r[0] == item)

def test_publish_and_its_lineage(local):
    import pandas as pd
    dataset.commit(pd.DataFrame({"id": ["a", "b", "c"], "text": ["x", "y", "z"]}), "tweets")
    queue.create("t", "tweets", key="id", classes=["0", "1"], kind="text", gold={"c": "0"})
    with pytest.raises(BadInput, match="no labels"): log.publish("t")
    queue.answer(say("a"), say("b", "0", "ben"), say("c", "1"))
    assert log.publish("t") == log.publish("t") == 0
    rows = dataset.read("t").set_index("id")
    assert rows.label.to_dict() == dict(a="1", b="0", c="0") and rows.source.to_dict() == dict(a="agreed", b="agreed", c="gold") and rows.annotators["b"] == "ben"
    said = {(r["kind"], r["name"], r["version"]) for r in ledger.lineage("dataset", "t")}
    assert {("dataset", "t", "0"), ("dataset", "tweets", "0"), ("labels", "t", "3")} <= said
    queue.answer(say("a", "0"))
    assert log.publish("t", note="after a talk") == 1 and dataset.history("t").note.iloc[-1].startswith("after a talk [3 items by 2 people")

def test_the_version_in_the_ledger(local):
    "A stage that read the labels learns of new ones; a session of a thousand clicks leaves no thousand rows."
    for i in range(30): log.append(say(f"i{i}"))
    ledger.read("labels", "t", log.version("t"))
    for i in range(30): log.append(say(f"i{i}", "0"))
    io = ledger.touched(kind="labels", name="t")
    assert io[io.direction == "write"].version.tolist() == ["30", "60"] and io.version.iloc[-1] == "60"
