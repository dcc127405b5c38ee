"Realized and estimated performance: the same from rows and from histograms, late and corrected outcomes, every kind of problem, and intervals that hold."
import re
from dataclasses import replace

import numpy as np, pandas as pd, pytest
from sklearn import metrics as sk

from mlops_nb.core.finding import BadInput
from mlops_nb.monitor import estimate, histogram
from mlops_nb.monitor.bins import bins
from mlops_nb.monitor.performance import by_slice, performance, realized, slice_findings
from mlops_nb.monitor.profile import profile
from mlops_nb.monitor.scores import late as late_scores, score_cuts, scores
from mlops_nb.train.evaluate import metrics
from mlops_nb.train.goal import Goal

def window(n=6000, days=20, power=1., seed=0, mood=0.):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame(dict(score=rng.beta(2, 4, n), day=pd.Timestamp("2013-03-01") + pd.to_timedelta(np.arange(n)*days//n, "D"), version=1))
    odds = np.log(df.score/(1 - df.score)) + rng.normal(0, mood, days)[np.arange(n)*days//n]
    return df.assign(label=(rng.random(n) < (1/(1 + np.exp(-odds)))**power)*1., town=rng.choice(["port", "hills"], n))

def counted(df, **how):
    code, days = pd.factorize(df["day"], sort=True)
    return scores(df["score"], df.get("label"), code=code, windows=len(days), **how)

# --- histograms against rows ---

@pytest.mark.parametrize("shape", [(2, 4), (.3, .3), (40, 2)])
def test_metrics_of_bins_are_those_of_rows_within_the_error_they_state(shape):
    rng = np.random.default_rng(1)
    p = rng.beta(*shape, 30_000)
    y = (rng.random(30_000) < p)*1.
    h = scores(p, y)
    pos, neg, at, yes = h.y[0], (h.known - h.y)[0], histogram.centres(h), p >= .5
    assert abs(histogram.area(pos, neg) - sk.roc_auc_score(y, p)) <= histogram.hidden(pos, neg)
    for name, want in dict(brier_score=sk.brier_score_loss(y, p), log_loss=sk.log_loss(y, p), calibration_gap=(p - y).mean()).items():
        assert abs(histogram.value(name, pos, neg, at) - want) < 2e-4, name
    for name, of in dict(accuracy=sk.accuracy_score, precision=sk.precision_score, recall=sk.recall_score, f1=sk.f1_score, balanced_accuracy=sk.balanced_accuracy_score, matthews_corrcoef=sk.matthews_corrcoef, cohen_kappa=sk.cohen_kappa_score).items():
        assert np.isclose(histogram.value(name, pos, neg, at), of(y, yes), atol=1e-12), name

def test_a_score_at_the_threshold_says_yes():
    h = scores([.5, .5, .4, .6], [1., 0., 0., 1.])
    assert histogram.value("recall", h.y, h.known - h.y, histogram.centres(h)) == 1 and histogram.value("precision", h.y, h.known - h.y, histogram.centres(h)) == 2/3

def test_perfect_worst_and_tied_scores():
    for p, want in (([.1, .2, .8, .9], 1.), ([.8, .9, .1, .2], 0.), ([.3]*4, .5)):
        h = scores(p, [0., 0., 1., 1.])
        assert histogram.area(h.y, h.known - h.y) == want
    assert np.isnan(histogram.area(np.zeros(3), np.ones(3)))

def test_regression_sums_are_exact_whatever_the_bins():
    rng = np.random.default_rng(2)
    p = rng.normal(10, 3, 4000)
    y = p + rng.standard_t(3, 4000)
    card = realized(scores(p, y, score_cuts(p[:50]), np.arange(4000)//200, 20))
    assert np.allclose(card.value, [sk.r2_score(y, p), sk.mean_absolute_error(y, p), sk.root_mean_squared_error(y, p), (p - y).mean()])
    rows = metrics(y, p, np.arange(4000)//200)
    assert np.allclose(card.loc[["r2", "mae", "rmse"], ["lo", "hi"]], rows.loc[["r2", "mae", "rmse"], ["lo", "hi"]], atol=2e-3)

def test_intervals_of_a_histogram_are_those_of_the_rows():
    df = window(mood=.4)
    a, b = realized(counted(df)), metrics(df.label, df.score, df.day)
    for m in ("roc_auc", "log_loss", "brier_score", "calibration_gap"): assert np.allclose(a.loc[m, ["value", "lo", "hi"]].astype(float), b.loc[m].astype(float), atol=1e-3), m
    wide, narrow = (r.loc["calibration_gap", "hi"] - r.loc["calibration_gap", "lo"] for r in (a, realized(scores(df.score, df.label))))
    assert wide > 2*narrow   # days share their mood, and rows taken for independent do not know it

def test_frames_of_polars_are_taken():
    pl = pytest.importorskip("polars")
    df = window()
    assert [f.value for f in performance(pl.from_pandas(df), .7, Goal(minimum=.6))] == [f.value for f in performance(df, .7, Goal(minimum=.6))]

def test_profiles_are_taken_and_late_outcomes_merge_exactly():
    df, goal = window(), Goal(minimum=.6)
    b = bins(df[["town"]])
    whole = profile(df, b, window="day", score="score", label="label")
    early = profile(df.assign(label=df.label.where(df.index % 3 > 0)), b, window="day", score="score", label="label")
    late = df[df.index % 3 == 0]
    code = pd.factorize(df.day, sort=True)[0][df.index % 3 == 0]
    merged = early.scores + late_scores(late.score, late.label, code=code, windows=20)
    assert [f.value for f in performance(merged, .7, goal)] == pytest.approx([f.value for f in performance(whole, .7, goal)])
    one = performance(early, .7, goal)
    assert [f for f in one if f.check == "label_coverage"][0].value == pytest.approx(2/3, abs=.001)

def test_a_corrected_outcome_replaces_the_old_one():
    df = window(500, 5)
    wrong = df.label.where(df.index >= 50, 1 - df.label)
    mended = counted(df.assign(label=wrong)) + late_scores(df.score[:50], df.label[:50], old=wrong[:50], code=pd.factorize(df.day)[0][:50], windows=5)
    assert np.allclose(realized(mended).astype(float), realized(counted(df)).astype(float), equal_nan=True)

# --- every kind of problem ---

def test_findings_say_fine_watch_or_decayed():
    df, goal = window(), Goal(minimum=.5, max_drop=.02)
    auc = sk.roc_auc_score(df.label, df.score)
    seen = {ref: performance(df, ref, goal)[0] for ref in (auc, auc + .022, auc + .2)}
    assert [(f.ok, f.level) for f in seen.values()] == [(True, "warn"), (False, "warn"), (False, "error")]

@pytest.mark.parametrize("way", ["rows", "scores"])
def test_a_regression_is_judged_by_its_own_metric(way):
    rng = np.random.default_rng(3)
    df = window().assign(score=rng.normal(size=6000))
    df["label"] = df.score + rng.normal(size=6000)
    goal = Goal(metric="mae", baseline=2., minimum=1., max_drop=.1, min_gain=.01)
    look = lambda d: performance(d if way == "rows" else counted(d, cuts=score_cuts(d.score)), .8, goal)[0]
    assert (look(df).check, look(df).ok) == ("mae", True)
    assert (look(df.assign(label=df.label + 2)).ok, look(df.assign(label=df.label + 2)).level) == (False, "error")

def test_several_classes_from_probabilities_kept_as_text():
    rng = np.random.default_rng(4)
    P = rng.dirichlet([1, 1, 1], 3000)
    words = np.array(["cat", "dog", "eel"])
    label = words[(P.cumsum(axis=1) > rng.random((3000, 1))).argmax(axis=1)]
    df = pd.DataFrame(dict(score=np.nan, outputs=[str(r) for r in P.tolist()], label=label, day=np.arange(3000)//150, version=2))
    goal = Goal(metric="f1_macro", minimum=.4, baseline=.3)
    found = {f.check: f for f in performance(df, .6, goal)}
    assert found["f1_macro"].value == pytest.approx(sk.f1_score(label, words[P.argmax(axis=1)], average="macro")) and abs(found["calibration"].value) < .03
    assert performance(df[df.label != "eel"], .6, goal, classes=list(words))[0].check == "f1_macro"   # a class that did not occur
    with pytest.raises(BadInput, match="none of the classes"): performance(df, .6, goal, classes=["cat", "dog", "emu"])

def test_kpi_and_worth_are_those_of_the_decisions():
    df, goal = window(), Goal(minimum=.5, values="tp 40, fp -5, fn -60", unit="EUR", kpi_metric="recall", kpi_minimum=.99)
    cut = 5/105
    yes = df.score >= cut
    for w in (df, counted(df)):
        found = {f.check: f for f in performance(w, None, goal)}
        assert found["kpi_recall"].value == pytest.approx(sk.recall_score(df.label, yes), abs=2e-3) and found["kpi_recall"].ok == (found["kpi_recall"].value >= .99)
        assert found["worth"].value == pytest.approx(1000*np.where(df.label == 1, np.where(yes, 40, -60), np.where(yes, -5, 0)).mean(), rel=.01)

def test_segments_and_slices():
    df = pd.concat([window(), window(power=3., seed=5).assign(town="moor")])
    goal = Goal(minimum=.55, max_calibration_gap=.05, segments="town=* max_calibration_gap 0.05; town=moon minimum 0.6")
    found = {(f.check, f.subject): f for f in performance(df, None, goal)}
    assert [found["calibration_of_segment", f"town={t}"].ok for t in ("port", "hills", "moor")] == [True, True, False] and found["calibration_of_segment", "town=moor"].level == "error"
    assert not found["segment", "town=moon"].value
    table = by_slice({**dict(list(df.groupby("town"))), "few": df[:100]}, goal)
    assert table["value"].isna().tolist() == [False]*3 + [True] and table.rows.sum() == 12_100
    assert all(f.ok for f in slice_findings(table, goal)) and not any(f.ok for f in slice_findings(table, replace(goal, minimum=.95)))

# --- bad input ---

def test_windows_that_cannot_be_judged_say_so():
    df, goal = window(), Goal(minimum=.6)
    for bad, said in ((df.drop(columns="day"), "no column 'day'"), (df[:0], "0 rows"), (df.assign(score=np.inf), "missing or infinite"), (df.assign(label=df.score), "roc_auc is for binary")):
        with pytest.raises(BadInput, match=said): performance(bad, .7, goal)
    with pytest.raises(BadInput, match="has no scores"): performance(profile(df, bins(df[["town"]])), .7, goal)
    with pytest.raises(BadInput, match="goal"): performance(df, .7, "roc_auc")
    with pytest.raises(BadInput, match="0 predictions"): performance(scores([]), .7, goal)
    with pytest.raises(BadInput, match="did you mean 'roc_auc'"): realized(counted(df), ["roc_acu"])
    with pytest.raises(BadInput, match="do not tell 'roc_auc'"): realized(counted(df.assign(label=df.score*7)), ["roc_auc"])
    with pytest.raises(BadInput, match="no prediction of this window has its outcome"): realized(scores(df.score))
    with pytest.raises(BadInput, match="are the same"): realized(scores(df.score, df.label*0))

@pytest.mark.parametrize("labels", [np.nan, 0., 1.])
def test_missing_or_single_labels_warn_and_never_alarm(labels):
    df = window(1000, 5).assign(label=labels)
    for w in (df, counted(df)):
        found = performance(w, .9, Goal(minimum=.6))
        assert found[0].check == "auc" and found[0].value is None and not any(f.level == "error" and not f.ok for f in found)

def test_one_row_one_day_and_no_day():
    df = window(1, 1)
    assert not performance(df, .7, Goal())[0].ok
    day = performance(window(2000, 1), .99, Goal())[0]
    assert not day.ok and day.level == "warn" and "too few days" in day.note

# --- estimates ---

def test_an_estimate_is_right_where_only_the_inputs_moved():
    rng = np.random.default_rng(6)
    reference = counted(window(40_000, power=1.7))
    p = rng.beta(5, 5, 8000)
    y = (rng.random(8000) < p**1.7)*1.
    names = ["roc_auc", "average_precision", "accuracy", "precision", "recall", "f1", "log_loss", "brier_score", "rate"]
    e, truth = estimate.cbpe(reference, scores(p), names), realized(scores(p, y), names)
    for m in names: assert e[m][1] <= truth.value[m] <= e[m][2], m
    assert estimate.ASSUMES in repr(e) and estimate.ASSUMES in e._repr_html_()

@pytest.mark.parametrize("mood", [0., .4])
def test_the_interval_holds_the_truth_where_nothing_changed(mood):
    names, inside = ["roc_auc", "log_loss", "rate"], []
    for i in range(60):
        reference, now = counted(window(6000, 20, seed=2*i, mood=mood)), counted(window(3000, 10, seed=2*i + 1, mood=mood))
        e, r = estimate.cbpe(reference, now, names, n_boot=100), realized(now, names, n_boot=1)
        inside.append([e[m][1] <= r.value[m] <= e[m][2] for m in names])
    assert (np.mean(inside, axis=0) >= .87).all(), np.mean(inside, axis=0)   # 95 % asked; three standard errors of 60 windows

def test_each_window_has_its_own_estimate_and_name():
    df = window(20_000)
    profiles = profile(df.drop(columns="label"), bins(df[["town"]]), window="day", score="score")
    e = estimate.cbpe(counted(df), profiles.by("W"), each=True)
    assert list(e.table.window) == list(profiles.by("W").windows) and e.table.rows.sum() == 20_000
    whole = estimate.cbpe(counted(df), profiles)
    assert (e.table.hi - e.table.lo).min() > whole["roc_auc"][2] - whole["roc_auc"][1]

def test_estimates_refuse_what_they_cannot_know():
    df = window()
    for reference, current, said in ((scores(df.score), counted(df), "no outcomes"), (scores(df.score, df.label*0), counted(df), "are the same"), (scores(df.score, df.label*2), counted(df), "not 0 and 1"),
                                     (counted(df), scores([]), "0 predictions"), (counted(df), scores(df.score, cuts=np.array([.5])), "bins do not add"), (df, counted(df), "no histogram of scores")):
        with pytest.raises(BadInput, match=said): estimate.cbpe(reference, current)
    with pytest.raises(BadInput, match="did you mean 'recall'"): estimate.cbpe(counted(df), counted(df), ["recal"])
    with pytest.raises(BadInput, match=re.escape("(rows, classes)")): estimate.confidence(df.score)

def houses(n=4000, seed=7):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=n)
    df = pd.DataFrame(dict(size=x, town=rng.choice(["port", "hills", None], n), score=3*x, day=np.arange(n)*20//n))
    return df.assign(label=df.score + rng.normal(size=n)*(.1 + x)*np.where(df.town == "port", 2, 1))

def test_direct_loss_estimation_from_rows_and_from_histograms():
    reference, now = houses(), houses(3000, 8).query("size > .5")
    error = (now.label - now.score).abs()
    rows = estimate.dle(reference, now.drop(columns="label"), day="day", metrics=("mae", "rmse", "mse"))
    cuts = score_cuts(reference.score)
    coarse = estimate.dle(counted(reference, cuts=cuts), counted(now.drop(columns="label"), cuts=cuts))
    for e in (rows, coarse): assert e["mae"][1] <= error.mean() <= e["mae"][2] and e["rmse"][1] <= (error**2).mean()**.5 <= e["rmse"][2] and e.assumes == estimate.ASSUMES
    assert rows["rmse"][0]**2 == pytest.approx(rows["mse"][0])
    ports = houses(3000, 9).query("town == 'port'")   # what only the inputs tell
    truth = (ports.label - ports.score).abs().mean()
    assert abs(estimate.dle(reference, ports)["mae"][0] - truth) < abs(estimate.dle(counted(reference, cuts=cuts), counted(ports, cuts=cuts))["mae"][0] - truth)/2

def test_direct_loss_estimation_refuses():
    df = houses(400)
    for bad, said in ((lambda: estimate.dle(df.drop(columns="score"), df), "no column 'score'"), (lambda: estimate.dle(df.assign(label=np.nan), df), "0 outcomes"), (lambda: estimate.dle(df, df[:0]), "0 predictions"),
                      (lambda: estimate.dle(df, df.drop(columns="town"), ["town"]), "'town' is not in both"), (lambda: estimate.dle(df, df, metrics=["mea"]), "'mea'"), (lambda: estimate.dle(df.assign(day=1), df, day="day"), "one day only")):
        with pytest.raises(BadInput, match=said): bad()

def test_an_estimate_that_did_not_come_true_is_concept_drift():
    df, later = window(10_000), window(10_000, seed=9, power=3.)
    e = estimate.cbpe(counted(df), counted(later), ["roc_auc", "rate"])
    assert not estimate.kept(e, later.label.mean(), "rate").ok and estimate.kept(e, e["rate"][0], "rate").ok
    found = estimate.judged(e, Goal(minimum=.95), subject="m")
    assert (found.check, found.ok, found.level) == ("estimated_auc", False, "error") and estimate.ASSUMES in found.note

# --- several classes before their outcomes ---

def test_estimates_of_several_classes_hold_against_the_truth():
    "Forty windows of a model that is too sure of itself, of another mix each: what is estimated is near what comes true, and mostly within its interval."
    from mlops_nb.monitor import estimate_classes as ec
    from mlops_nb.train.scoring import metric
    rng = np.random.default_rng(5)
    def drawn(n, mix):
        logit = rng.normal(0, 1.2, (n, 4)) + mix
        true, said = (np.exp(t*logit)/np.exp(t*logit).sum(axis=1, keepdims=True) for t in (1, 1.7))
        return said, (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    p, y = drawn(12_000, [.6, .2, 0, -.8])
    within = {m: [] for m in ec.METRICS}
    for _ in range(40):
        now, then = drawn(2_000, [.6, .2, 0, -.8] + rng.normal(0, .05, 4))
        e = ec.cbpe(p, y, now, ec.METRICS, n_boot=100)
        for m in ec.METRICS: within[m].append((e[m][1] <= metric(m)(then, now) <= e[m][2], e[m][0] - metric(m)(then, now)))
    for m, found in within.items():
        hit, off = np.mean(found, axis=0)
        assert hit >= .8 and abs(off) < .02, (m, hit, off)
