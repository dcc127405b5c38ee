"Rules of [policy] close gates, a waiver opens them until its day, and everything wrong in the file is told with the way out."
import getpass, json, os

import pandas as pd, pytest
from sklearn.linear_model import LogisticRegression

from conftest import cli, one_line, write_settings
from mlops_nb.core import database, ledger
from mlops_nb.core.finding import BadInput, DataCheckFailed, Finding, GateClosed, failed, gate
from mlops_nb.data import catalogue, dataset, privacy
from mlops_nb.govern import policy
from mlops_nb.registry import compliance, models, waivers
from mlops_nb.registry.contest import decide, train
from mlops_nb.registry.policy import policy as asked
from mlops_nb.train.goal import Goal

ME = getpass.getuser()

def rules(folder, **keys): write_settings(folder, mlops_nb={}, policy=keys)

def frame(n=600):
    import numpy as np
    x = np.random.default_rng(0).normal(size=n)
    return pd.DataFrame(dict(x=x, ssn=range(n), when=pd.date_range("2024-01-01", periods=n, freq="h"), label=(x + np.random.default_rng(1).normal(size=n)*.3 > 0).astype(int)))

def contest(df):
    c = train(df, "m", Goal(minimum=.6), "when", "2024-01-20", "sklearn.linear_model.LogisticRegression")
    return decide(c, Goal(minimum=.6), "when")

@pytest.mark.parametrize("line, said", [("forbiden = ssn", "did you mean 'forbidden'"), ("licenses = mit", "did you mean 'licences'"), ("approvals = risk 2: ann", "cannot be"), ("approvals = ann", "need a role"), ("retention = a while", "not one number"),
                                        ("retention = soon", "not a number"), ("required = roc_auc", "belong to no stage"), ("forbidden = marketing:", "names nothing"), ("min_agreement = high", "not a number"), ("personal = a: x; a: y", "is there twice")])
def test_what_is_wrong_in_the_file_is_told(local, line, said):
    (local/"settings.ini").write_text(f"[mlops_nb]\n[policy]\n{line}\n")
    one_line(cli("policy"), 2, said)

def test_a_forbidden_column_closes_the_gate_and_a_waiver_opens_it(local):
    rules(local, forbidden="ssn")
    out = contest(frame())
    assert out.action == "keep" and [f.check for f in failed(out.findings)] == ["forbidden"] and "ssn" in out.reason
    with pytest.raises(GateClosed, match="forbidden"): models.promote("m", 1, "by hand")
    assert cli("policy").returncode == 3
    done = cli("policy", "waive", "forbidden", "--reason", "the new feed comes in May", "--owner", "ann", "--until", "30d")
    assert done.returncode == 0 and cli("policy").returncode == 0
    out = contest(frame())
    kept = next(f for f in out.findings if f.check == "forbidden")
    assert out.action == "promote" and not kept.ok and kept.level == "warn" and "ann answers for it" in kept.note
    event = database.rows("event", action="waive")[-1]
    assert event["actor"] == ME and json.loads(event["detail"])["owner"] == "ann"

def test_an_expired_waiver_no_longer_counts_and_says_so(local):
    rules(local, forbidden="ssn")
    ledger.event("waive", "forbidden/*", reason="x", owner="ann", until="2020-01-01T00:00:00.000+00:00")
    out = contest(frame())
    assert out.action == "keep" and "the waiver of ann ended on 2020-01-01" in next(f for f in out.findings if f.check == "forbidden").note
    assert "over" in cli("policy").stdout and policy.table()[0]["state"] == "broken"

def test_a_clock_set_back_wakes_no_waiver(local):
    ledger.event("waive", "licences/*", reason="x", owner="ann", until="2030-01-01T00:00:00.000+00:00")
    assert waivers.waivers()[0].active()
    database.insert("event", dict(at="2031-01-01T00:00:00.000+00:00", run="", actor="x", action="x", subject="x", detail="{}"))
    assert not waivers.waivers()[0].active()
    with pytest.raises(BadInput, match="set the clock right"): waivers.waive("licences", "x", "ann", "3d")

@pytest.mark.parametrize("words, said", [(["licence", "--until", "3d"], "did you mean 'licences'"), (["licences", "--until", "2001-01-01"], "has passed"), (["licences", "--until", "900d"], "lasts 90 at most"), (["licences", "--until", "soon"], "is no moment"),
                                         (["approval", "--until", "3d"], "not waived but given")])
def test_a_waiver_needs_a_rule_and_a_day(local, words, said):
    one_line(cli("policy", "waive", *words, "--reason", "x", "--owner", "ann"), 2, said)
    assert not database.rows("event", action="waive")

def test_a_waiver_needs_reason_and_owner(local):
    assert cli("policy", "waive", "licences", "--owner", "ann", "--until", "3d").returncode == 2
    for reason, owner in ((" ", "ann"), ("x", "")):
        with pytest.raises(BadInput, match="reason|owner"): waivers.waive("licences", reason, owner, "3d")

def test_only_those_who_may(local):
    rules(local, waivers="somebody-else")
    with pytest.raises(BadInput, match="not one of those who may waive"): waivers.waive("licences", "x", "ann", "3d")

def test_a_waiver_is_of_its_subject_only(local):
    waivers.waive("licences/flights", "x", "ann", "3d")
    found = waivers.applied([Finding("licences", s, "", "CC0", False) for s in ("flights", "weather")] + [Finding("roc_auc", "flights", .5, .6, False)])
    assert [f.level for f in found] == ["warn", "error", "error"]

def test_rules_of_a_purpose(local):
    rules(local, forbidden="ssn; marketing: age", purpose="marketing")
    assert {f.value for f in compliance.forbidden("m", ["ssn", "age", "x"], asked())} == {"ssn", "age"}
    rules(local, forbidden="ssn; marketing: age", purpose="service")
    assert {f.value for f in compliance.forbidden("m", ["ssn", "age", "x"], asked())} == {"ssn"}

def test_personal_columns_by_their_tag(local):
    rules(local, personal="none; support: e-mail")
    dataset.commit(privacy.tag(pd.DataFrame(dict(x=[0, 1]*20, contact=["ann@example.com"]*40)), {"contact": "e-mail"}), "people")
    df = dataset.read("people")
    models.register(LogisticRegression().fit(df[["x"]], df.x), "m", df[["x"]].head(), {}, {})
    bad = failed(compliance.of_model("m", 1, ["x", "contact"], asked()))
    assert [f.check for f in bad] == ["personal"] and "example.com" not in str(bad) and not failed(compliance.of_model("m", 1, ["x"], asked()))
    rules(local, personal="none; support: e-mail", purpose="support")
    assert not failed(compliance.of_model("m", 1, ["x", "contact"], asked()))

def test_data_without_a_licence_has_none(local):
    rules(local, licences="CC0-1.0", retention="30", regions="eu-*")
    dataset.commit(pd.DataFrame(dict(x=[1])), "rows")
    found = policy.check("rows")
    assert {f.check for f in failed(found)} == {"licences", "regions"} and "no licence" in str(found)
    with pytest.raises(DataCheckFailed): gate(found, DataCheckFailed)
    catalogue.describe("rows", licence="CC0-1.0", description="call Ana")
    told = json.loads(database.rows("event", action="describe")[-1]["detail"])      # who changed the licence is in the audit trail, the text is not
    assert told == dict(fields=["description", "licence"], licence="CC0-1.0")
    assert {f.check for f in failed(policy.check("rows"))} == {"regions"}

def test_what_the_project_makes_needs_no_licence_of_its_own(local):
    dataset.commit(pd.DataFrame(dict(x=[1])), "source_rows")
    os.environ["MLOPS_NB_RUN"] = ledger.start_run("score.ipynb", code="abc")
    try:
        dataset.read("source_rows")
        dataset.commit(pd.DataFrame(dict(y=[2])), "made_of_them")
    finally: ledger.end_run(os.environ.pop("MLOPS_NB_RUN"), "done")
    assert compliance.outside(["source_rows", "made_of_them"]) == ["source_rows"]

def test_old_versions_break_retention_until_they_are_vacuumed(local, monkeypatch):
    rules(local, retention="30; logs: 0")
    dataset.commit(pd.DataFrame(dict(x=[1])), "rows")
    dataset.commit(pd.DataFrame(dict(x=[2])), "logs")
    assert not failed(compliance.of_data("rows", asked())) 
    old, = compliance.of_data("logs", asked())
    assert old.limit == 0 and old.value >= 0 and "vacuum" in old.action

def test_old_rows_break_retention_where_a_column_says_how_old_they_are(local):
    rules(local, retention="3650; logs: 90 when")
    days = lambda *ago: pd.DataFrame(dict(when=pd.Timestamp.now() - pd.to_timedelta(ago, "D"), x=1))
    dataset.commit(days(10, 100), "logs")
    whole, old = compliance.of_data("logs", asked())
    assert whole.ok and not old.ok and 99 < old.value < 102 and old.subject == "logs by when" and "without the rows before" in old.action
    dataset.commit(days(10), "logs")
    assert not failed(compliance.of_data("logs", asked())) and "logs by when" in cli("policy").stdout
    rules(local, retention="logs: 90 wen")
    with pytest.raises(BadInput, match="did you mean 'when'"): compliance.of_data("logs", asked())

def test_agreement_below_the_least_closes(local):
    rules(local, min_agreement=".667")
    ledger.record([Finding("agreement", "labels", .4, .667, False, "warn")], topic="birds")
    assert failed(compliance.agreement("birds", asked())) and not failed(compliance.agreement("made_by_a_rule", asked()))

def test_required_checks_of_a_stage(local):
    rules(local, required="ingest: type; train: roc_auc reload")
    id = ledger.start_run("ingest.ipynb", stage="ingest", code="abc")
    ledger.insert("finding", dict(run=id, topic="m", at="", check="type", subject="m", value="1", limit="1", ok=False, level="error", note="", action=""))
    ledger.end_run(id, "done")
    found = {f.subject: f.value for f in compliance.required("m", asked(), known=[Finding("roc_auc", "m", .7, .6), Finding("reload", "m", 1, 0, False)])}
    assert found == {"m: ingest type": "failed", "m: train roc_auc": "passed", "m: train reload": "failed"}

def test_every_role_must_approve_and_nobody_twice(local):
    rules(local, approvals=f"owner: {ME}; risk 2: {ME} ann")
    df = frame().drop(columns="ssn")
    assert contest(df).action == "propose"
    assert models.approve("m", 1, "seen") is False and models.in_charge("m") is None
    with pytest.raises(GateClosed, match=r"2 of .* \(risk\)"): models.promote("m", 1, "by hand")
    database.insert("event", dict(at="2024-01-01", run="", actor="ann", action="approve", subject="m", detail=json.dumps(dict(version=1, reason="x"))))
    assert models.approve("m", 1, "all agreed") and models.in_charge("m") == 1

def test_nothing_asked_nothing_found(local):
    done = cli("policy", "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == dict(rules=[], standing=[], waivers=[])
    df = frame().drop(columns="ssn")
    assert not {f.check for f in contest(df).findings} & {*waivers.RULES, "required"} - {"lineage"}
