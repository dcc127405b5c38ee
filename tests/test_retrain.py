"Monitor and retrain on tables of one's own, by parameters alone: a regression and two classes, by the runner, stock papermill and the command line; what starts a training, and what does not."
import json, subprocess, sys
from dataclasses import replace
from itertools import product

import nbformat, numpy as np, pandas as pd, pytest

from conftest import cli, one_line, write_settings, without_card
from mlops_nb.core import ledger
from mlops_nb.core.finding import BadInput, Finding
from mlops_nb.data import dataset
from mlops_nb.label import queue
from mlops_nb.monitor import alerts, note, retrain, watch
from mlops_nb.registry import contest, models
from mlops_nb.run import notebook
from mlops_nb.serve import capture
from mlops_nb.train.goal import Goal

TREES, FEW = "sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 40}

# --- decisions ---

def found(check, ok, level="error", value=.6): return Finding(check, "m", value, .7, ok, level)

@pytest.mark.parametrize("auc, calibration, estimate, drift", [*product(*[(None, True, False)]*4)])
def test_performance_first_then_estimates_drift_never_unless_asked(auc, calibration, estimate, drift):
    "All combinations of not looked at, fine, failed."
    seen = [found(c, ok) for c, ok in (("auc", auc), ("calibration", calibration), ("estimated_auc", estimate), ("drift", drift)) if ok is not None]
    done, asked = retrain.decide(seen), retrain.decide(seen, retrain.triggers({"drift": True}))
    performance = auc is False or calibration is False
    estimated = estimate is False and auc is None and calibration is None
    assert done.action == ("retrain" if performance or estimated else "watch" if False in (estimate, drift) else "keep")
    assert done.trigger == ("performance" if performance else "estimate" if estimated else "")
    assert asked.trigger == ("performance" if performance else "estimate" if estimated else "drift" if drift is False else "")
    assert done.reason and retrain.decide(seen, retrain.triggers({"estimated": False})).trigger == ("performance" if performance else "")

def test_a_cool_down_holds_every_trigger():
    asked = retrain.triggers({"max_age_days": 30, "new_labels": 100, "new_data": True, "cooldown_days": 7})
    for trigger, how in (("age", dict(age_days=31.)), ("labels", dict(labels=100)), ("data", dict(data=1))):
        assert retrain.decide(retrain.occasions(asked, "m", trained_days=7., **how), asked).trigger == trigger
        soon = retrain.decide(retrain.occasions(asked, "m", trained_days=6.9, **how), asked)
        assert (soon.action, soon.trigger) == ("watch", trigger) and "7 are to pass" in soon.reason
    assert retrain.decide(retrain.occasions(asked, "m", age_days=30., labels=99, trained_days=9.), asked).action == "keep"

@pytest.mark.parametrize("wrong", [{"max_age": 90}, {"new_labels": -1}, {"max_age_days": float("nan")}, {"drift": "yes"}, {"cooldown_days": True}])
def test_triggers_that_cannot_be(wrong):
    with pytest.raises(BadInput, match="trigger"): retrain.triggers(wrong)

# --- a regression of one's own ---

GRID = dict(dataset_name="grid", labels_name="", model="load", key="hour_id", time="at", target="mw")
LOAD = watch.Watched("load", Goal(metric="mae", baseline=20, minimum=8, min_gain=.5), "grid", "", "at", key="hour_id", target="mw")

def grid(months, seed=0, minutes=60):
    "Load of a power grid by the hour, or more often: answers in a column of the same table. From July on a new plant doubles the effect of cold."
    at = pd.date_range("2025-01-01", periods=24*30*months*60//minutes, freq=f"{minutes}min")
    rng, warm = np.random.default_rng(seed), 10 + 4*np.sin(2*np.pi*at.hour/24)
    temp = warm + rng.normal(0, 2, len(at))
    plant = (at >= "2025-07-01").astype(float)
    return pd.DataFrame({"hour_id": [f"h{i:06}" for i in range(len(at))], "at": at, "temp": temp, "hour": at.hour, "weekend": at.dayofweek > 4, "plant": plant, "mw": 100 - 2*(1 + plant)*temp + 5*np.sin(at.hour/4) + rng.normal(0, 3, len(at))})

def power(folder, without=(), since="2025-05-01", until="2025-09-01", minutes=60):
    "A champion of January to April, and what it said from May on; some columns did not reach the log."
    write_settings(folder, mlops_nb={}, pipeline={}, goal=dict(problem="How much power is needed in an hour?", owner="grid", target="mw", metric="mae", baseline="20", minimum="8", max_drop="2", min_gain="0.5"))
    all_ = grid(8, minutes=minutes)
    first = all_[all_["at"] < "2025-05-01"]
    dataset.commit(first, "grid")
    frame = contest.training_frame("grid", "", "hour_id", time="at", target="mw")
    from mlops_nb.train.goal import goal
    candidate = contest.train(frame, "load", goal(), "at", "2025-04-15", TREES, **FEW)
    assert contest.decide(candidate, goal(), "at").action == "promote"
    later = all_[(all_["at"] >= since) & (all_["at"] < until)]
    capture.log(later.drop(columns=["mw", *without]), candidate.model.predict(later.drop(columns=["mw", "hour_id"])), "load", 1, "hour_id", "at", batch="later")
    return all_, later

def said(path): return "\n".join("".join(o.get("text", "") or o.get("data", {}).get("text/html", "") or o.get("data", {}).get("text/plain", "")) for c in nbformat.read(path, 4).cells if c.cell_type == "code" for o in c.outputs)

def test_a_regression_is_watched_and_trained_again(project):
    "Outcomes come, decay, an alarm with exit code 3, a challenger that wins, and wait for its months."
    all_, later = power(project)
    early = notebook.run("monitor", GRID, wait=False)
    assert early.exit_code == 0 and "not known yet" in said(early.output), early.error
    dataset.append(later, "grid")
    alarm = notebook.run("monitor", {**GRID, "strict": True}, wait=False)
    assert alarm.exit_code == 3 and "mae of load" in alarm.error, alarm.error
    rows = watch.record(LOAD).set_index("month")
    assert rows.alarm["2025-07"] == rows.alarm["2025-08"] == "mae" and not rows.alarm["2025-05"] and not rows.alarm["2025-06"] and rows.metric.eq("mae").all()
    page = said(alarm.output)
    assert "in need of treatment" in page and "mean absolute error was" in page and "<script" not in page
    done = notebook.run("retrain", {**GRID, "estimator": TREES, "parameters": FEW, "strict": True}, wait=False)
    assert done.exit_code == 0 and "promote" in said(done.output), done.error
    kept = ledger.events("promote", "load").detail.iloc[-1]
    assert kept["trigger"] == "performance" and "mae of load" in kept["because"] and kept["gain_lo"] > 0
    again = notebook.run("retrain", {**GRID, "estimator": TREES, "parameters": FEW}, force=True, wait=False)
    assert again.exit_code == 0 and "its own months are still to come" in said(again.output)

def test_a_version_that_is_worse_than_the_one_before_is_taken_back(project):
    "The monitor asks the version before about the same rows; the page brings the command, the command is run, and nothing asks for it any more."
    import shlex
    from sklearn.dummy import DummyRegressor
    from mlops_nb.pages import monitoring, state
    all_, later = power(project, until="2025-05-20")
    inputs = later.drop(columns=["mw", "hour_id"])
    first = models.registered("load", 1)
    models.register(DummyRegressor().fit(inputs, later.mw), "load", inputs.head(5), {}, {"mae": 1.5}, {**first["tags"], "trained_until": "2025-05-19"})
    models.promote("load", 2, "looked good on paper")
    last = all_[(all_["at"] >= "2025-06-01") & (all_["at"] < "2025-07-01")]
    capture.log(last.drop(columns="mw"), np.full(len(last), later.mw.mean()), "load", 2, "hour_id", "at", batch="june")
    dataset.append(all_[(all_["at"] >= "2025-05-01") & (all_["at"] < "2025-07-01")], "grid")
    done = notebook.run("monitor", GRID, wait=False)
    assert done.exit_code == 0, done.error
    seen = state.load_state("load")
    (found,), told = [f for f in seen.findings if f.check == "rollback_gain"], monitoring.actions(seen)
    assert found.level == "error" and "of version 1 on the same 720 rows" in found.note and "2025-06" in found.note and len(told) <= 3
    reason, command = told[0]
    assert command.startswith("mlops-nb rollback load --reason ") and "same 720 rows" in reason and command.replace('"', "&quot;") in monitoring.page(seen)
    watch.alert(LOAD, seen.findings)
    assert "load/rollback_gain/load" in [a.name for a in alerts.standing("load")]
    assert cli(*shlex.split(command)[1:]).returncode == 0 and models.in_charge("load") == 1
    after = state.load_state("load")
    assert after.version == "1" and not any("rollback" in c for _, c in monitoring.actions(after)) and "has taken over" in monitoring.actions(after)[0][0]
    capture.log(all_[all_["at"] >= "2025-08-01"].head(400).drop(columns="mw"), np.full(400, 80.), "load", 1, "hour_id", "at", batch="august")
    dataset.append(all_[all_["at"] >= "2025-08-01"].head(400), "grid")
    watch.alert(LOAD, again := watch.update(LOAD))
    assert not any(f.check == "rollback_gain" for f in again) and "load/rollback_gain/load" not in [a.name for a in alerts.standing("load")]

def test_a_gate_that_says_no_ends_with_3(project):
    "Trained on old age, the challenger has nothing to add."
    all_, later = power(project)
    dataset.append(later[later["at"] < "2025-06-01"], "grid")
    words = [w for k, v in {**GRID, "estimator": TREES, "parameters": FEW, "triggers": "{'max_age_days': 5}"}.items() if k != "model" for w in ("-p", f"{k}={v}")]
    assert not any(f.check == "mae" and not f.ok for f in watch.update(LOAD))
    done = cli("retrain", "load", *words)
    assert done.returncode == 3 and "gain" in done.stderr + done.stdout, done.stderr
    assert models.in_charge("load") == 1 and ledger.events("keep", "load").detail.iloc[-1]["trigger"] == "age"
    decision, month = watch.verdict(LOAD, retrain.triggers({"max_age_days": 5}))
    assert decision.action == "watch" and "version 2 has learned from all of that and did not win" in decision.reason   # not every day again

def test_by_stock_papermill_from_another_folder(project, tmp_path):
    all_, later = power(project)
    dataset.append(later, "grid")
    words = [w for k, v in GRID.items() for w in ("-y", f"{k}: {json.dumps(v)}")]
    done = subprocess.run([sys.executable, "-m", "papermill", str(project/"nbs/workflows/monitor.ipynb"), str(tmp_path/"note.ipynb"), *words, "-y", "strict: true", "--no-progress-bar"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and "GateClosed" in done.stderr and "in need of treatment" in said(tmp_path/"note.ipynb") and not without_card(tmp_path/"note.ipynb"), done.stderr[-2000:]
    assert "mae" in set(ledger.findings("load").check)

# --- two classes, words, people, and what is not there ---

def clinic(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame({"patient": np.arange(n), "dose": rng.normal(size=n), "ward": rng.choice(["A", "B"], n)})
    return df.assign(label=(df.dose + rng.normal(0, .7, n) > 0).astype(int))

def test_a_table_without_time_and_a_queue_for_people(local):
    "Rows know no time; the month is that of the prediction. A new ward and moved doses are proposed, each with its reason, once."
    from mlops_nb.train import splits
    df, aim = clinic(), Goal(minimum=.6)
    dataset.commit(df, "clinic")
    frame = contest.training_frame("clinic", "", "patient", target="label")
    made = contest.train(frame, "late", aim, "", splits.split(frame, "label", "random"), "sklearn.linear_model.LogisticRegression")
    assert contest.decide(made, aim).action == "promote"
    new = clinic(800, 1).assign(patient=lambda d: d.patient + 10_000, dose=lambda d: d.dose + 2, ward=lambda d: np.where(d.patient % 4 == 0, "C", d.ward))
    dataset.append(new, "clinic")
    capture.log(new.drop(columns="label"), made.model.predict_proba(new.drop(columns=["label", "patient"]))[:, 1], "late", 1, "patient", pd.Series(pd.Timestamp("2026-03-05"), index=new.index), batch="march")
    w = watch.Watched("late", aim, "clinic", "", "", key="patient", target="label")
    seen = watch.update(w)
    assert {"auc", "calibration", "drift"} <= {f.check for f in seen} and watch.update(w) == []
    queue.create("second_look", new[["patient", "dose", "ward"]], key="patient", classes=["yes", "no"])
    moved = [*seen, Finding("unseen_category", "ward", "C", ok=False, level="warn")]
    some, more = (watch.ask(w, "second_look", moved, k=30) for _ in range(2))
    assert len(some) == 30 and some.item.is_unique and not {*some.item} & {*more.item}
    assert any("ward C: the model has never seen this value" in r for r in some.reason) and any("dose" in r and "of the rows before" in r for r in some.reason)
    assert queue.take("second_look", "ana", 1)[0].reason in set(some.reason)

def test_a_page_says_how_many_rows_people_have_to_label(project):
    "Outcomes come from a queue: too few, then too few for their share, then enough; and what the monitor has put first."
    from mlops_nb.label import log
    from mlops_nb.pages import monitoring, state
    from mlops_nb.train import splits
    df, aim = clinic(), Goal(minimum=.6)
    write_settings(project, mlops_nb={}, pipeline=dict(monitor=""), goal=dict(minimum="0.6", target="outcome"))
    dataset.commit(df.rename(columns={"label": "outcome"}), "clinic")
    frame = contest.training_frame("clinic", "", "patient", target="outcome")
    made = contest.train(frame, "late", aim, "", splits.split(frame, "label", "random"), "sklearn.linear_model.LogisticRegression")
    assert contest.decide(made, aim).action == "promote"
    new = clinic(600, 1).assign(patient=lambda d: d.patient + 10_000)
    capture.log(new.drop(columns="label"), made.model.predict_proba(new[["dose", "ward"]])[:, 1], "late", 1, "patient", pd.Series(pd.Timestamp("2026-03-05"), index=new.index), batch="march")
    queue.create("seen", new[["patient", "dose", "ward"]], key="patient", classes=["0", "1"])
    answer = lambda rows: (queue.answer(*[log.Event("seen", str(p), str(y), annotator="ana") for p, y in zip(rows.patient, rows.label)]),
                           dataset.commit(log.labels("seen")[["item", "label"]].rename(columns={"item": "id"}).assign(label=lambda d: d.label.astype(float)), "seen"))
    def look():
        done = notebook.run("monitor", dict(model="late", dataset_name="clinic", labels_name="seen", key="patient", target="", time="", ask="seen"), force=True, wait=False)
        assert done.exit_code == 0, done.error
        return state.load_state("late")
    answer(new[:50])
    steps = monitoring.actions(look())
    assert steps[0] == ("Label 150 rows: Mar 2026 has 50 answers, and 200 are the fewest that say anything.", "mlops-nb dashboard labeling"), steps
    answer(new[50:300])
    seen = look()
    assert seen.queue["task"] == "seen" and seen.queue["left"] == 300 and 0 < seen.queue["proposed"] <= 100 and "unsure" in seen.queue["why"]
    assert ("Label 180 rows: 50% of Mar 2026 has its answer, 80% are asked.", "mlops-nb dashboard labeling") in monitoring.actions(seen) and "Label 180 rows" in monitoring.page(seen)
    answer(new[300:])
    assert not any("Label" in reason for reason, _ in monitoring.actions(look()))

def test_what_is_not_there_is_said(project):
    "No model, no predictions, no reference, other columns: a sentence, never a traceback."
    with pytest.raises(BadInput, match="there is no model 'load'; there are none yet"): watch.update(LOAD)
    power(project)
    with pytest.raises(BadInput, match="where the outcomes of load are"): watch.update(replace(LOAD, key=""))
    with pytest.raises(BadInput, match="unknown data set|no data set"): watch.update(replace(LOAD, features="gird"))
    says(cli("monitor", "lod"), "did you mean 'load'")
    one_line(cli("monitor", "load", "-p", "labels"), 2, "is not name=value")

def says(done, words): assert done.returncode == 2 and words in done.stdout and "Traceback" not in done.stdout + done.stderr, f"{done.returncode}\n{done.stdout}{done.stderr}"

def test_a_column_that_vanished_is_an_alarm_and_outcomes_are_judged_all_the_same(local):
    all_, later = power(local, without=["weekend"])
    dataset.append(later, "grid")
    seen = watch.update(LOAD)
    assert any(f.check == "mae" and f.value is not None for f in seen)
    watch.alert(LOAD, seen)
    assert "load/vanished_column/weekend" in [a.name for a in alerts.standing("load") if a.level == "error"]

def test_outcomes_that_come_later_open_the_month_again(local):
    all_, later = power(local)
    may = later[later["at"] < "2025-06-01"]
    assert watch.open_months(LOAD) == ["2025-05", "2025-06", "2025-07", "2025-08"]
    watch.update(LOAD)
    assert watch.open_months(LOAD) == []
    dataset.append(may.head(300), "grid")
    assert watch.open_months(LOAD) == ["2025-05"]
    first = watch.update(LOAD)
    dataset.append(may.iloc[300:], "grid")
    assert watch.open_months(LOAD) == ["2025-05"] and first[0].check == "mae"
    estimated = [f for f in watch.update(LOAD)]
    assert watch.record(LOAD).set_index("month").labels["2025-05"] == len(may) and estimated
    capture.log(later.tail(50).drop(columns="mw").assign(hour_id=lambda d: "y" + d.hour_id), np.full(50, 80.), "load", 1, "hour_id", "at", batch="more")
    assert watch.open_months(LOAD) == ["2025-08"]
    watch.update(LOAD)
    newest = json.loads(watch.record(LOAD).iloc[-1].evidence)
    assert any(f["check"] == "estimated_mae" and "assumes the relation" in f["note"] for f in newest)

def test_the_note_escapes_and_stays_small(local):
    all_, later = power(local)
    dataset.append(later, "grid")
    watch.alert(LOAD, watch.update(LOAD))
    alerts.raise_([Finding("drift", f"<script>{i}</script>", .5, .1, ok=False) for i in range(500)], "load")
    page = note.note(LOAD)
    assert "<script" not in page and len(page) < 30_000 and page.index("in need of treatment") < page.index("How good it was") < page.index("What stands")
    assert f"{len(alerts.listing('load'))} alerts" in page

def test_outcomes_of_their_own_corrected_and_wrong(local):
    "Ids are numbers in a column called `id`, outcomes come through `serve.outcomes` as text; the answer is in the training table, and is no input that vanished."
    from mlops_nb.serve import outcomes
    from mlops_nb.train import splits
    df, aim = clinic().rename(columns={"patient": "id"}), Goal(minimum=.6)
    dataset.commit(df, "clinic")
    frame = contest.training_frame("clinic", "", "id", target="label")
    made = contest.train(frame, "late", aim, "", splits.split(frame, "label", "random"), "sklearn.linear_model.LogisticRegression")
    assert contest.decide(made, aim).action == "promote"
    later = {m: clinic(600, i).rename(columns={"patient": "id"}).assign(id=lambda d: d.id + 10_000*i) for i, m in enumerate(("2026-03", "2026-04"), 1)}
    for m, rows in later.items():
        capture.log(rows.drop(columns="label"), made.model.predict_proba(rows.drop(columns=["label", "id"]))[:, 1], "late", 1, rows["id"], pd.Series(pd.Timestamp(f"{m}-05"), index=rows.index), batch=m)
        outcomes.join(rows[["id", "label"]])
    w = watch.Watched("late", aim, "clinic", "outcomes", "", key="id")
    seen = watch.update(w)
    assert not any(f.check in ("vanished_column", "look") for f in seen) and watch.record(w)["labels"].tolist() == [600, 600] and watch.open_months(w) == []
    april = later["2026-04"]
    outcomes.join(april[["id"]].assign(label=1 - april.label))                 # as many as before, and all of them others
    assert watch.open_months(w) == ["2026-04"]
    watch.update(w)
    before, now = watch.record(w)["auc"]
    assert now < .2 < .8 < before
    dataset.append(april, "clinic")
    again = contest.training_frame("clinic", "outcomes", "id")                 # what a challenger learns from: ids of both kinds meet
    assert len(again) == 600 and (again.label == 1 - april.label.to_numpy()).all()
    outcomes.join(pd.DataFrame({"id": april["id"].head(5), "label": 7}))        # no class of this model
    lost, = [f for f in watch.update(w) if f.check == "look"]
    assert not lost.ok and "2026-04" in lost.note and lost.action and watch.open_months(w) == ["2026-04"]
    watch.alert(w, [lost])
    assert [a.check for a in alerts.standing("late")] == ["look"]
    outcomes.join(april[["id", "label"]].head(5))
    assert not any(f.check == "look" for f in watch.update(w))

# --- weeks and days ---

def test_weeks_are_judged_from_monday_and_start_a_challenger_once(local):
    "The plant opens on a Tuesday; the week it falls into is the first alarm, and the challenger that has seen two of them meets the champion on the newest fortnight."
    all_, later = power(local, since="2025-06-25", until="2025-07-28", minutes=30)
    w = replace(LOAD, window="W")
    dataset.append(later, "grid")
    weeks = ["2025-06-23", "2025-06-30", "2025-07-07", "2025-07-14", "2025-07-21"]
    assert watch.open_months(w) == weeks
    seen = watch.update(w)
    rows = watch.record(w).set_index("month")
    assert rows.n.tolist() == [240, *[336]*4] and rows.alarm.tolist() == ["", *["mae"]*4] and watch.open_months(w) == []
    decision, week = watch.verdict(w)
    assert decision.action == "retrain" and week == weeks[-1]
    watch.alert(w, seen)
    page = note.note(w)
    assert "In the week of 21 July 2025 its" in page and "Week of" in page and "weeks, newest first" in page
    made = watch.challenge(w, "hour_id", TREES, **FEW)
    assert made.action == "promote" and made.comparison.lo > 0 and "its own weeks are still to come" in watch.verdict(w)[0].reason

def test_days_have_hours_for_units_and_months_stay_beside_them(local):
    all_, later = power(local, until="2025-05-06", minutes=5)
    w = replace(LOAD, window="D")
    dataset.append(later, "grid")
    watch.update(LOAD)
    assert watch.record(w).empty and watch.open_months(w) == [f"2025-05-0{d}" for d in range(1, 6)]
    watch.update(w)
    rows = watch.record(w)
    assert rows.n.tolist() == [288]*5 and ((rows.lo < rows.value) & (rows.value < rows.hi)).all() and watch.record(LOAD).month.tolist() == ["2025-05"]
    assert "On 5 May 2025 its mean absolute error was" in note.note(w) and "In May 2025 its" in note.note(LOAD)
    from mlops_nb.pages import monitoring, state
    seen = state.load_state("load")                       # the page shows what was looked at last
    assert [m["month"] for m in seen.months] == rows.month.tolist() and {d["month"] for d in seen.drift} == {*rows.month}
    page = monitoring.document(seen)
    assert "5 May" in page and "day by day" in page and "month by month" not in page

def test_a_store_of_months_stays_readable(local):
    "Rows that were written before windows had a length are months."
    all_, later = power(local)
    watch.update(LOAD)
    for name in ("monitoring", "drift"): dataset.commit(dataset.read(name).drop(columns="window"), name)
    assert len(watch.record(LOAD)) == 4 and watch.record(replace(LOAD, window="W")).empty
    dataset.append(later, "grid")
    watch.update(LOAD)
    assert watch.record(LOAD).alarm.tolist() == ["", "", "mae", "mae"] and watch.record(LOAD).window.tolist() == ["M"]*4
    with pytest.raises(BadInput, match="window 'Q' is no window"): replace(LOAD, window="Q")

def test_several_classes_are_estimated_before_their_outcomes_are_known(local):
    "The goal's metric of words, from the probabilities that the log kept."
    from mlops_nb.train import splits
    def wards(n, seed):
        rng = np.random.default_rng(seed)
        df = pd.DataFrame({"id": np.arange(n) + 100_000*seed, "a": rng.normal(size=n), "b": rng.normal(size=n)})
        return df.assign(label=np.array(["cat", "dog", "eel"])[np.argmax(np.c_[df.a, df.b, 0*df.a] + rng.gumbel(0, .6, (n, 3)), axis=1)])
    df, aim = wards(3000, 0), Goal(metric="f1_macro", minimum=.4, baseline=.3)
    dataset.commit(df, "clinic")
    made = contest.train(frame := contest.training_frame("clinic", "", "id", target="label"), "kind", aim, "", splits.split(frame, "label", "random"), "sklearn.linear_model.LogisticRegression")
    assert contest.decide(made, aim).action == "promote"
    w = watch.Watched("kind", aim, "clinic", "", "", key="id", target="label")
    for seed, month in ((1, "2026-03"), (2, "2026-04")):
        new = wards(1500, seed)
        if seed == 1: dataset.append(new, "clinic")
        capture.log(new.drop(columns="label"), made.model.predict_proba(new[["a", "b"]]), "kind", 1, "id", pd.Series(pd.Timestamp(f"{month}-05"), index=new.index), batch=month)
        watch.update(w)
    told, = [f for f in json.loads(watch.record(w).iloc[-1].evidence) if f["check"] == "estimated_f1_macro"]
    from sklearn.metrics import f1_score
    assert abs(told["value"] - f1_score(new.label, made.model.predict(new[["a", "b"]]), average="macro")) < .04 and "assumes" in told["note"]
