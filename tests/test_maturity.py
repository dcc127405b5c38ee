"The score comes from evidence alone: nothing scores zero, one run scores half, a system that stopped is no system, and the command says so."
import json, os, subprocess, sys
from datetime import datetime, timedelta, timezone

from conftest import cli
from mlops_nb.core import database, ledger
from mlops_nb.govern import maturity
from mlops_nb.govern.levels import criteria, reached
from mlops_nb.govern.proof import gather
from mlops_nb.govern.rubric import SECTIONS, TESTS

def run(stage, *checks, code="abc", state="done", limit="1"):
    id = ledger.start_run(f"nbs/workflows/{stage}.ipynb", code=code, environment="def")
    for c in checks: ledger.insert("finding", dict(run=id, topic="m", at="", check=c, subject="m", value="1", limit=limit, ok=True, level="error", note="", action=""))
    ledger.end_run(id, state)
    return id

def score(id): return TESTS[id].look(gather())[0]

def test_an_empty_project_scores_zero_from_the_command_line(local):
    done = cli("maturity", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["final"] == 0 and all(t["score"] == 0 for t in told["tests"]) and len(told["tests"]) == 28 and len(told["next"]) == 3
    assert {k: v["level"] for k, v in told["levels"].items()} == {"Google": 0, "Microsoft": 0} and sum(map(len, told["debt"].values())) == 28
    text = cli("maturity").stdout
    assert "ML Test Score 0 of 7: a research project" in text and "cheapest next steps" in text and "nothing ran" not in text

def test_the_final_score_is_the_smallest_section(local):
    for _ in range(2): run("ingest", "type"); run("train", "forbidden", "personal", "slice_gain"); run("score", "type"); run("monitor", "auc", "staleness")
    m = maturity.judge()
    assert m.sections["data"] == 3 and m.sections["infrastructure"] == 0 and m.final == 0 and m.sections["monitoring"] >= 3
    assert {r.test.section for r in maturity.next_steps(m)} == {"infrastructure"}

def test_nothing_is_claimed_without_a_record(local):
    assert {t.look(p) for p in [gather()] for t in TESTS.values()} == {(0.0, "nothing is recorded", ())}

def test_once_or_by_hand_is_half_and_names_its_run(local):
    first = run("ingest", "type")
    assert TESTS["data 1"].look(gather())[::2] == (.5, (first,))
    by_hand = run("ingest", "type", code="")
    assert score("data 1") == .5 and by_hand in TESTS["data 1"].look(gather())[2]
    second = run("ingest", "nulls", state="failed")     # a gate that closed has looked as well
    assert TESTS["data 1"].look(gather())[::2] == (1.0, (first, second))

def test_a_run_that_has_not_ended_is_no_evidence(local):
    run("ingest", "type")
    id = ledger.start_run("nbs/workflows/ingest.ipynb", code="abc")
    ledger.insert("finding", dict(run=id, topic="m", at="", check="type", subject="m", value="1", limit="1", ok=True, level="error", note="", action=""))
    assert score("data 1") == .5

def test_a_system_that_stopped_scores_half(local):
    for _ in range(2): run("ingest", "type")
    database.write("UPDATE run SET started = '2020-01-01T00:00:00.000+00:00'", {})
    assert score("data 1") == .5 and "none since 2020-01-01" in TESTS["data 1"].look(gather())[1]

def test_only_the_right_stage_and_only_with_a_limit(local):
    for _ in range(2): run("explore", "slice"); run("train", "latency_ms", limit="null")
    assert score("model 6") == 0 and score("monitoring 6") == .5     # measured, and nothing is asked
    for _ in range(2): run("train", "latency_ms")
    assert score("monitoring 6") == 1

def test_no_run_that_merely_looked_is_a_training(local):
    for _ in range(3): run("retrain", "auc")
    found = {(c.model, c.name): c for c in maturity.judge().criteria}
    assert not found["Google", "continuous training"].met and not found["Microsoft", "automated training"].met

def test_levels_need_all_below(local):
    p = gather()
    full = {i: 1. for i in TESTS}
    assert reached(criteria(p, full), "Google") == 0 and reached(criteria(p, full), "Microsoft") == 0     # scores alone are no records

def test_ci_leaves_a_record_that_counts(small):
    (small/"tests").mkdir()
    (small/"tests/test_features.py").write_text("def test_features(): assert True\n")
    assert score("data 7") == .5 and "no run of them is recorded" in TESTS["data 7"].look(gather())[1]
    cli("ci", "--until", "use", "--no-package")
    event, = [json.loads(e["detail"]) for e in database.rows("event", action="ci")]
    assert event["steps"]["tests"] == event["steps"]["pipeline"] == "green" and score("data 7") == .5
    ledger.event("ci", "use", **event)
    assert score("data 7") == score("infrastructure 3") == 1
    ledger.event("ci", "use", steps={"tests": "red"})
    assert len(TESTS["data 7"].look(gather())[2]) == 2      # a red build is none of them

def test_history_keeps_what_changed(local):
    cli("maturity"); cli("maturity")
    assert len(maturity.history()) == 1
    for _ in range(2): run("ingest", "type")
    cli("maturity")
    assert [h["sections"]["data"] for h in maturity.history()] == [0, 1]

def test_the_first_run_of_a_day_writes_the_history(small, monkeypatch):
    "Not the second one, and not a run that fails for it; a clock that went back begins another day."
    assert cli("run").returncode == 0 and cli("run").returncode == 0 and cli("run", "make", "--force").returncode == 0
    first, = maturity.history()
    assert first["final"] == 0 and len(first["tests"]) == 28
    assert not maturity.daily()
    monkeypatch.setattr(ledger, "_now", lambda: "2012-01-01T00:00:00.000+00:00")
    assert maturity.daily() and not maturity.daily()
    assert [h["at"][:4] for h in maturity.history()][1:] == ["2012"]

def test_a_run_does_not_fail_for_its_history(small, monkeypatch, capsys):
    from mlops_nb.run import pipeline
    monkeypatch.setattr(maturity, "judge", lambda: 1/0)
    assert [r.state for r in pipeline.run(only=["make"])] == ["done"] and "was not written down: ZeroDivisionError" in capsys.readouterr().err and maturity.history() == []

def added(model, version, days, code="abc", charge=None):
    "A training that was the first to read a column, which the data had for so many days; put in charge so many days later."
    id = ledger.start_run("nbs/workflows/train.ipynb", code=code, environment="def")
    os.environ["MLOPS_NB_RUN"] = id
    ledger.event("register", model, version=version, tags={}, metrics={})
    ledger.insert("finding", dict(run=id, topic=model, at="", check="feature_added", subject=f"{model} version {version}: gate", value=json.dumps(days), limit="30", ok=days <= 30, level="info", note="", action=""))
    ledger.end_run(os.environ.pop("MLOPS_NB_RUN"), "done")
    if charge is not None: database.insert("event", dict(at=(datetime.now(timezone.utc) + timedelta(days=charge)).isoformat(timespec="milliseconds"), run=id, actor="a", action="promote", subject=model, detail=json.dumps(dict(version=version, alias="champion"))))
    return id

def test_new_features_count_when_they_are_in_charge(local):
    assert score("data 6") == 0
    added("slow", 2, 31., charge=0)
    assert score("data 6") == 0                                     # it took longer
    first = added("m", 2, 1.)
    assert TESTS["data 6"].look(gather())[::2] == (.5, (first,))    # trained, and not in charge
    added("m", 3, 1., charge=40)
    assert score("data 6") == .5                                    # in charge too late
    quick = added("n", 2, 1., charge=2)
    assert TESTS["data 6"].look(gather())[::2] == (.5, (quick,))    # once
    added("n", 3, 1., charge=2, code="")
    assert score("data 6") == .5                                    # and once by hand
    added("n", 4, 2., charge=3)
    assert score("data 6") == 1

def test_a_training_says_how_old_a_new_column_is(local):
    "Two versions of a model, the second with a column that came to the data in between: the first adds nothing, the second says since when."
    import numpy as np, pandas as pd
    from mlops_nb.data import dataset
    from mlops_nb.registry import contest
    from mlops_nb.train.goal import Goal
    x, rng = np.random.default_rng(0).normal(size=600), np.random.default_rng(1)
    df = pd.DataFrame(dict(x=x, when=pd.date_range("2024-01-01", periods=600, freq="h"), label=(x + rng.normal(size=600)*.3 > 0).astype(int)))
    for more in ({}, {"gate": rng.integers(0, 5, 600)}):
        dataset.commit(df.assign(**more), "rows")
        id = os.environ["MLOPS_NB_RUN"] = ledger.start_run("nbs/workflows/train.ipynb", code="abc", environment="def")
        try: contest.decide(contest.train(contest.training_frame("rows", "", "", target="label"), "m", Goal(minimum=.6), "when", "2024-01-20", "sklearn.linear_model.LogisticRegression"), Goal(minimum=.6), "when")
        finally: ledger.end_run(os.environ.pop("MLOPS_NB_RUN"), "done")
    told, = database.rows("finding", check="feature_added")
    assert told["subject"] == "m version 2: gate" and 0 <= json.loads(told["value"]) < 1 and told["ok"] and told["run"] == id and TESTS["data 6"].look(gather())[::2] == (.5, (id,))

def test_what_columns_cost_is_held_against_what_they_add(local):
    first = run("importance", "feature_cost")
    assert TESTS["data 3"].look(gather())[::2] == (.5, (first,))
    run("importance", "feature_cost")
    assert score("data 3") == 1

def test_heavy_libraries_are_left_alone(local):
    for _ in range(2): run("ingest", "type")
    ledger.close()
    code = "import sys; from mlops_nb.govern import maturity; m = maturity.judge(); print(m.sections['data'], [x for x in ('mlflow', 'pandas', 'sklearn', 'pyarrow') if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "1.0 []", done.stderr

def test_a_large_ledger_is_added_up_by_the_database(local):
    ids = [run("ingest") for _ in range(50)]
    row = dict(topic="m", at="", subject="m", value="1", limit="1", ok=True, level="error", note="", action="")
    database.insert("finding", *[dict(row, run=ids[i % 50], check=f"check {i % 40}") for i in range(4_000)])
    p = gather()
    assert len(p.checks) == 40 and sum(n for c in p.checks.values() for n, _, _ in c.values()) == 4_000

def test_the_page_shows_the_evidence(local):
    from mlops_nb.pages.maturity import write_report
    ids = [run("ingest", "type") for _ in range(2)]
    maturity.keep(maturity.judge())
    text = open(write_report(), encoding="utf-8").read()
    assert all(i in text for i in ids) and all(s in text for s in SECTIONS.values()) and "http" not in text.split("<body>")[1].replace("http://www.w3.org", "")
