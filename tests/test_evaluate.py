"Evaluation: values are scikit-learn's, intervals hold the truth, nothing is found where nothing is, and what cannot be judged is refused with its reason."
import json, os, subprocess, sys
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from pathlib import Path
from sklearn import metrics as theirs
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from conftest import load_bench
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput, failed
from mlops_nb.data import samples
from mlops_nb.label.synthetic import MARK
from mlops_nb.pages import evaluation
from mlops_nb.train import assessment, errors, evaluate, fairness, intervals, robustness, slices, thresholds
from mlops_nb.train.fit import fit, predict
from mlops_nb.train.goal import Goal
from mlops_nb.train.scoring import kind_of, metric, names

bench = load_bench("evaluate")
N = 600
R = np.random.default_rng(0)
Y = (R.random(N) < .35).astype(int)
P = np.clip(.3*Y + .7*R.random(N), 0, 1)
WORDS = np.where(Y == 1, "late", "fine")
DAY = np.repeat(np.arange(20), N//20)
Y3, Q3 = R.integers(0, 3, N), R.dirichlet([1, 1, 1], N)
NUMBER = R.gamma(2, size=N)
GUESS = NUMBER*R.uniform(.5, 1.5, N)
FRAME = pd.DataFrame({"x": R.normal(size=N), "word": R.choice(list("abc"), N), "day": pd.Timestamp("2013-01-01") + pd.to_timedelta(DAY, "D")})

# --- one metric is one name ---

class KnownNumbers(RegressorMixin, BaseEstimator):
    "Predicts what it was given."
    def __init__(self, classes, p): self.classes_, self.p = classes, p
    def fit(self, X, y): return self
    def predict(self, X): return self.p
    def __sklearn_is_fitted__(self): return True

class KnownClasses(ClassifierMixin, KnownNumbers):
    def predict_proba(self, X): return self.p if self.p.ndim == 2 else np.column_stack([1 - self.p, self.p])
    def predict(self, X): return self.p.argmax(axis=1) if self.p.ndim == 2 else (self.p >= .5).astype(int)

@pytest.mark.parametrize("name", sorted(theirs.get_scorer_names()))
def test_every_scorer_of_scikit_learn_that_is_no_clustering_is_there_with_its_value(name):
    scorer = theirs.get_scorer(name)
    kinds = {"binary": (Y, P), "multiclass": (Y3, Q3), "regression": (NUMBER, GUESS)}
    if "samples" in name or scorer._score_func.__module__.endswith("cluster._supervised"):
        with pytest.raises(BadInput, match="unknown metric"): metric(name)
        return
    m = metric(name)
    assert m.better == ("higher" if scorer._sign > 0 else "lower")
    for kind in m.kinds:
        y, p = kinds[kind]
        model = (KnownNumbers if kind == "regression" else KnownClasses)(np.unique(y), p)
        assert np.isclose(m(y, p), scorer._sign*scorer(model, np.zeros((N, 1)), y), rtol=0, atol=1e-12)

def test_words_are_coded_in_sorted_order_and_names_of_both_signs_are_one_metric():
    assert metric("f1")(WORDS, P) == theirs.f1_score(WORDS, np.where(P >= .5, "late", "fine"), pos_label="late") and metric("f1")(WORDS, np.where(P >= .5, "late", "fine")) == metric("f1")(WORDS, P)
    assert metric("neg_brier_score") == metric("brier") and metric("neg_root_mean_squared_error") == metric("rmse") and metric("mcc").name == "matthews_corrcoef"

@pytest.mark.parametrize("name, y, p, more, says", [
    ("roc_acu", Y, P, {}, "did you mean 'roc_auc'"), ("roc_auc", Y3, Q3, {}, "3 classes"), ("roc_auc", Y*0, P, {}, "all 600 answers are the same"), ("r2", WORDS, P, {}, "is for a regression"),
    ("log_loss", Y3, Q3.argmax(axis=1), {}, "needs probabilities"), ("log_loss", Y, 3*P, {}, "needs probabilities and got scores"), ("accuracy", Y3, Q3[:, :2], {}, "pass labels=model.classes_"),
    ("log_loss", Y3, Q3, dict(labels=[0, 1]), "has never seen it"), ("mae", NUMBER, np.where(GUESS > 2, np.nan, GUESS), {}, "missing or infinite"), ("mae", NUMBER[1:], GUESS, {}, "599 answers and 600 scores"),
    ("max_error", NUMBER, GUESS, dict(sample_weight=GUESS), "takes no weights"), ("mean_gamma_deviance", NUMBER - 5, GUESS, {}, "mean_gamma_deviance"), ("ndcg", NUMBER, GUESS, dict(groups=np.arange(N)), "no list has two rows"), ("mae", [], [], {}, "0 answers")])
def test_a_metric_refuses_with_its_reason(name, y, p, more, says):
    with pytest.raises(BadInput, match=says): metric(name)(y, p, **more)

@pytest.mark.parametrize("y, says", [([], "0 answers"), ([1, None], "1 of 2 answers are missing"), (["a"]*3, "all 3 answers are the same")])
def test_a_kind_refuses_with_its_reason(y, says):
    with pytest.raises(BadInput, match=says): kind_of(y)

# --- intervals ---

@pytest.mark.parametrize("rows, units, digits", [(2, 2, 1), (50, 3, 1), (5000, 1, 2), (5000, 40, 0), (5000, 40, 3), (20_000, 200, 17)])
def test_every_draw_of_the_area_is_exact(rows, units, digits):
    rng = np.random.default_rng(rows + units)
    y, unit, weight = np.r_[0, 1, rng.integers(0, 2, rows - 2)], np.r_[np.arange(min(units, rows)), rng.integers(0, units, rows)][:rows], rng.random(rows) + .1
    p, w = np.round(rng.random(rows) + .2*y, digits), intervals.draws(unit.max() + 1, 30)
    for weights in (None, weight):
        got = intervals.areas(y, p, unit, w, weights)
        for d, value in zip(w, got):
            row = d[unit]*(1 if weights is None else weights)
            if len(np.unique(y[row > 0])) == 2: assert abs(value - theirs.roc_auc_score(y, p, sample_weight=row)) < 1e-12
            else: assert np.isnan(value)

@pytest.mark.parametrize("name", names())
def test_the_draws_of_every_metric_are_scikit_learns_values(name):
    m = metric(name)
    kind = m.kinds[-1]
    y, p = dict(binary=(Y, P), multiclass=(Y3, Q3), regression=(NUMBER, GUESS), ranking=(Y3, GUESS))[kind]
    if kind == "ranking": assert intervals.metric_interval(name, y, p, lists=DAY)[0] == pytest.approx(m(y, p, groups=DAY))
    elif any(word in name for word in ("likelihood", "max_error", "ovo")): assert intervals.metric_interval(name, y, p, DAY, n_boot=9)[0] == m(y, p)
    else:
        w = intervals.draws(20, 4)
        assert np.allclose(intervals.replicates(m, y, p, DAY, w)[1:], [m(y, p, w[i][DAY]) for i in range(1, 5)], rtol=0, atol=1e-11)
    value, lo, hi = intervals.metric_interval(name, y, p, None if kind == "ranking" else DAY, lists=DAY if kind == "ranking" else None, n_boot=50)
    assert lo <= value <= hi

LEAST = dict(roc_auc=50, average_precision=15, accuracy=30, matthews_corrcoef=15, log_loss=10, brier_score=10, r2=3, mse=3)

def test_scikit_learns_own_tests_pass_with_ours(tmp_path):
    "One of them compares functions by identity, and ours are not theirs."
    suites = [f"sklearn.metrics.tests.test_{name}" for name in ("ranking", "classification", "regression")]
    got = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "metrics_plugin", "-p", "no:cacheprovider", "--pyargs", *suites, "-k", "not (pos_label_types and classes3-brier)"],
                         env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]), "ANSWERED": str(tmp_path/"answered.json")}, cwd=tmp_path, capture_output=True, text=True)
    assert got.returncode == 0, got.stdout[-3000:]
    answered = json.loads((tmp_path/"answered.json").read_text())
    assert all(answered.get(name, 0) >= n for name, n in LEAST.items()), answered

@pytest.mark.parametrize("case", ["AUC, 300 independent rows (DeLong)", "AUC, 2,000 rows in 20 days", "accuracy of three classes, 600 rows", "MAE, 1,500 rows in 30 days"])
def test_intervals_hold_the_truth(case):
    "A smaller number of trials than the bench's 2,000: four standard errors either way."
    share, _ = bench.covered(case, 200, n_boot=300)
    assert .95 - 4*.0154 <= share <= .95 + 4*.0154

def test_rows_of_a_day_are_not_independent():
    y, p, day = bench._two(np.random.default_rng(1), 4000, 20, 1.)
    width = lambda i: i[2] - i[1]
    assert width(intervals.metric_interval("log_loss", y, p, day)) > 1.5*width(intervals.metric_interval("log_loss", y, p)) and np.isnan(intervals.auc_interval(y, p, day*0)[1])

def test_a_perfect_ranking_is_not_sure_beyond_its_rows():
    auc, lo, hi = intervals.auc_interval([0]*10 + [1]*10, np.arange(20))
    assert (auc, hi) == (1, 1) and .6 < lo < .8 and intervals.auc_interval([1]*10 + [0]*10, np.arange(20))[:2] == (0, 0)

def test_many_users_are_dealt_into_groups_and_a_missing_day_is_refused():
    assert intervals.units(np.arange(3000), 3000).max() == 499
    with pytest.raises(BadInput, match="is missing"): intervals.units([1, None, 2], 3)
    with pytest.raises(BadInput, match="pass one group for each answer"): evaluate.metrics(Y, P, DAY[1:])

# --- every kind of problem ---

KINDS = {"binary": (Y, P, "roc_auc", {}), "words": (WORDS, P, "f1", {}), "decisions": (Y, (P > .4).astype(int), "balanced_accuracy", {}), "multiclass": (Y3, Q3, "f1_macro", {}), "regression": (NUMBER, GUESS, "neg_mean_absolute_error", {}), "ranking": (Y3, Y3 + R.normal(size=N), "ndcg@5", dict(lists=DAY))}

@pytest.mark.parametrize("kind", KINDS)
def test_metrics_judge_and_compare_work_for_every_kind(kind):
    y, p, asked, more = KINDS[kind]
    card = evaluate.metrics(y, p, DAY, asked, **more)
    m = metric(asked)
    assert card.index[0] == m.name and (card["lo"] <= card["value"]).all() and (card["value"] <= card["hi"]).all()
    easy, hard = (Goal(metric=asked, minimum=v, baseline=v) for v in (card["value"].iloc[0]*(.9 if m.better == "higher" else 1.1), card["value"].iloc[0]*(1.1 if m.better == "higher" else .9)))
    assert not failed(evaluate.judge(card, easy)) and [f.check for f in failed(evaluate.judge(card, hard))] == [m.name, "above_baseline"]
    worse = p[::-1]
    duel = evaluate.compare(y, worse, p, DAY, asked=asked, **more)
    assert duel.gain > 0 and duel.metric == m.name and np.isclose(duel.gain, m.sign*(duel.challenger - duel.champion)) and evaluate.compare(y, p, worse, DAY, asked=asked, **more).gain == pytest.approx(-duel.gain)
    assert evaluate.compare(y, p, p, DAY, asked=asked, **more).gain == 0

def test_a_champion_of_another_kind_is_refused():
    with pytest.raises(BadInput, match="needs probabilities"): evaluate.compare(Y, (P > .5).astype(int), P, DAY, asked="roc_auc")
    with pytest.raises(BadInput, match="not one of this problem"): evaluate.metrics(Y3, Q3, None, ["accuracy", "f1"])

def test_a_class_that_is_not_in_the_batch_counts_when_it_is_named():
    some = Y3 < 2
    assert evaluate.metrics(Y3[some], Q3[some], labels=[0, 1, 2]).loc["log_loss", "value"] == pytest.approx(theirs.log_loss(Y3[some], Q3[some], labels=[0, 1, 2]))
    with pytest.raises(BadInput, match="pass labels=model.classes_"): evaluate.metrics(Y3[some], Q3[some])

def test_weights_count():
    weights = R.random(N)
    card = evaluate.metrics(Y, P, DAY, weights=weights)
    assert card.loc["roc_auc", "value"] == pytest.approx(theirs.roc_auc_score(Y, P, sample_weight=weights)) and card.loc["brier_score", "value"] == pytest.approx(theirs.brier_score_loss(Y, P, sample_weight=weights))

@pytest.mark.parametrize("target, asked", [("word", "f1_macro"), ("x", "mae"), ("x", "r2")])
def test_baselines_are_best_first_and_know_the_prior(target, asked):
    found = evaluate.baselines(FRAME[:400], FRAME[400:], target, asked)
    assert "prior" in found.index and list(found[asked]) == sorted(found[asked], reverse=metric(asked).better == "higher")

def test_feasibility_without_a_time():
    small = evaluate.feasibility(FRAME.assign(y=NUMBER), "y", Goal(metric="mae", minimum=2., baseline=2.5))
    assert small.findings[0].check == "mae" and "prior" in small.baselines.index

# --- slices ---

@pytest.mark.parametrize("kind", bench.NULLS)
def test_no_slice_is_found_where_there_is_none(kind): assert bench.false_slices(kind, 60, rows=1000) <= .15

def test_no_slice_is_found_among_days_that_are_bad_as_a_whole(): assert bench.false_slices("exponential", 40, rows=1000, days=30) <= .15

def test_a_planted_corner_is_found_and_its_echoes_are_not():
    rng = np.random.default_rng(4)
    X = bench.table(40_000, rng)
    loss = rng.exponential(size=40_000) + .9*((X["c0"] == "a") & (X["weekday"] == 6))
    for day in (None, rng.integers(0, 60, 40_000)):
        found = slices.find(X, loss, day)
        assert list(found["columns"]) == [["c0", "weekday"]] and found["lo"][0] > .6 and slices.find(X, loss, day).equals(found)

def test_slices_keep_personal_columns_out_and_say_missing():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"name": rng.choice(["ann", "bob"], 4000), "z": np.where(rng.random(4000) < .2, None, "z")})
    X.attrs["personal"] = {"name": "name"}
    found = slices.find(X, rng.exponential(size=4000) + 2*(X["name"] == "ann") + 2*X["z"].isna())
    assert list(found["slice"]) == ["z missing"]

def test_a_frame_without_usable_columns_has_no_slices():
    found = slices.find(pd.DataFrame({"one": [1]*300, "gone": [None]*300}), np.arange(300.))
    assert found.empty and slices.told(found)[0].ok

# --- fairness ---

def test_disparities_are_the_textbooks():
    rng = np.random.default_rng(0)
    y, p, g = (rng.random(3000) < .3).astype(int), (rng.random(3000) < .4).astype(int), rng.choice(list("abc"), 3000)
    d = fairness.fairness(y, p, g).disparity
    select, tpr, fpr = ([p[(g == v) & at].mean() for v in "abc"] for at in (y >= 0, y == 1, y == 0))
    assert d.loc["demographic_parity_difference", "value"] == pytest.approx(np.ptp(select)) and d.loc["demographic_parity_ratio", "value"] == pytest.approx(min(select)/max(select))
    assert d.loc["equalized_odds_difference", "value"] == pytest.approx(max(np.ptp(tpr), np.ptp(fpr))) and d.loc["equalized_odds_ratio", "value"] == pytest.approx(min(min(tpr)/max(tpr), min(fpr)/max(fpr)))

def test_groups_that_are_alike_are_rarely_called_different():
    "The interval of the widest pair holds no difference: simultaneous, so at most 5 %."
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        d = fairness.fairness((rng.random(800) < .3).astype(int), rng.random(800), rng.integers(0, 5, 800)).disparity
        wrong += d.loc["demographic_parity_difference", "lo"] > 0
    assert wrong <= 9

def test_small_and_missing_groups_and_combinations():
    groups = pd.DataFrame({"sex": np.where(DAY % 2, "f", "m"), "age": np.where(DAY % 3 == 0, None, "old")})
    fair = fairness.fairness(Y, P, groups, min_rows=50)
    assert set(fair.groups.index) == {"f, missing", "f, old", "m, missing", "m, old"}
    few = fairness.fairness(Y, P, np.where(np.arange(N) < 5, "rare", np.where(DAY % 2, "a", "b")))
    assert few.small == ("rare",) and "rare" in fairness.told(few)[-1].subject
    nobody = fairness.fairness(Y, np.zeros(N), DAY % 2)
    assert np.isnan(nobody.disparity.loc["demographic_parity_ratio", "value"]) and not fairness.told(nobody)[0].ok

# --- thresholds ---

def test_the_cheapest_threshold_is_the_cheapest_of_all():
    line = thresholds.curve(Y, P, fp=1, fn=3)
    cost = lambda t: np.mean(np.where(Y == 1, 3*(P < t), P >= t))
    assert np.allclose(line["cost"], [cost(t) for t in line["threshold"]]) and thresholds.cheapest(Y, P, DAY, fp=1, fn=3).threshold == line.loc[line["cost"].idxmin(), "threshold"]

def test_a_model_that_keeps_promises_is_cut_where_they_say():
    rng = np.random.default_rng(0)
    p = rng.random(60_000)
    cut = thresholds.cheapest((rng.random(60_000) < p).astype(int), p, fp=1, fn=4)
    assert cut.promised == .2 and abs(cut.threshold - .2) < .05 and cut.saving_lo > 0 and cut.lo < .4 < cut.hi      # the mean of the smaller of 1 - p and 4p

def test_a_coin_saves_nothing_and_a_limit_is_kept():
    coin = np.random.default_rng(5).random(N)
    assert not thresholds.told(thresholds.cheapest(Y, coin, DAY, fp=1, fn=2)).ok and thresholds.cheapest(Y, P, DAY, most=.05, fp=1, fn=9).share <= .05

@pytest.mark.parametrize("costs, says", [(dict(fp=1, fnn=2), "did you mean 'fn'"), (dict(fp=0, fn=1), "costs no more"), (dict(fp=1, fn=float("nan")), "not a finite number"), (dict(fp=1, fn=2, most=2), "not a share")])
def test_costs_without_sense_are_refused(costs, says):
    with pytest.raises(BadInput, match=says): thresholds.cheapest(Y, P, DAY, **costs)

# --- errors and robustness ---

def test_the_worst_rows_are_the_worst_and_hide_people():
    df = FRAME.assign(mail=[f"p{i}@example.org" for i in range(N)])
    df.attrs["personal"] = {"mail": "email"}
    rows = errors.worst(df, evaluate.case(WORDS, P), 10)
    assert list(rows.index) == list(np.argsort(-np.where(Y == 1, -np.log(P), -np.log(1 - P)), kind="stable")[:10]) and "example.org" not in rows.to_string()

def test_broken_promises_are_found_and_kept_ones_are_not():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(int)
    assert errors.told(evaluate.case(y, p))[0].ok and not errors.told(evaluate.case(y, p**2))[0].ok
    assert errors.promises(evaluate.case(y, np.round(p))).shape[0] == 2
    with pytest.raises(BadInput, match="promise nothing"): errors.promises(evaluate.case(y, p*7))

class Fussy:
    "Knows the words a, b and c, and stops at any other."
    classes_ = np.array([0, 1])
    def predict_proba(self, X):
        if not X["word"].isin(list("abc")).all(): raise ValueError("found unknown category\nin line 7")
        q = 1/(1 + np.exp(-X["x"].fillna(0).to_numpy()))
        return np.column_stack([1 - q, q])

def test_a_model_that_gives_up_is_told_with_its_reason():
    y = (FRAME["x"] + R.normal(size=N) > 0).astype(int)
    cost = robustness.robustness(Fussy(), FRAME, y, DAY)
    words = cost[cost["column"] == "word"].set_index("change")
    assert words["error"]["unseen"] == "ValueError: found unknown category" and (words["error"] != "").all()
    assert (cost[cost["column"] == "x"].set_index("change")["drop"] > 0)["gone"] and any("unknown category" in f.note and not f.ok for f in robustness.told(cost, .03))

class Brittle(Fussy):
    "Has learned exact values by heart."
    def predict_proba(self, X):
        q = np.where(np.isin(X["x"], FRAME["x"]), 1/(1 + np.exp(-X["x"])), .5)
        return np.column_stack([1 - q, q])

def test_a_column_that_is_needed_is_no_fault_and_a_brittle_model_is():
    y = (FRAME["x"] + R.normal(size=N) > 0).astype(int)
    frame = FRAME.assign(word=np.resize(list("abc"), N))
    sound, brittle = (robustness.told(robustness.robustness(m, frame, y, DAY, columns=["x"]), .03) for m in (Fussy(), Brittle()))
    assert [(f.check, f.subject, f.ok, f.level) for f in sound] == [("robustness", "all columns", True, "warn"), ("leans_on", "x", True, "info")] and sound[1].value > .2
    assert [(f.subject, f.ok) for f in brittle if f.check == "robustness"] == [("x, noise", False)] and "worse by" in brittle[0].note

@pytest.mark.parametrize("dtype", ["int64", "Int64", "float32", "bool", "category", "datetime64[ns]"])
def test_every_kind_of_column_can_get_worse(dtype):
    column = pd.Series([0, 1]*50).astype("int64").astype(dtype)
    df = pd.DataFrame({"c": column, "other": 1.})
    got = {change: robustness.worsen(df, "c", change) for change in robustness.CHANGES}
    assert got["gone"]["c"].isna().all() and 0 < got["missing"]["c"].isna().sum() < 40 and df["c"].notna().all() and (got["unseen"] is None) == (dtype != "category")

# --- can I ship it? ---

@pytest.fixture(scope="module")
def case():
    df = samples.flights(until="2013-01-20").assign(late=samples.flight_outcomes(until="2013-01-20")["dep_delay"])
    df = df[df["late"].notna()].assign(late=lambda d: (d["late"] > 15).astype(int))[["scheduled", "carrier", "origin", "temp", "visib", "late"]]
    train, test = df[df["scheduled"] < "2013-01-11"], df[df["scheduled"] >= "2013-01-11"]
    return fit(train, "late", max_iter=20), train, test.drop(columns="late"), test["late"]

def assessed(case, goal=Goal(minimum=.55, baseline=.5, max_calibration_gap=.2), **more):
    model, _, rows, y = case
    return assessment.assess("late_flights version 1", goal, rows, y, predict(model, rows), rows["scheduled"], **more)

def test_the_verdict_follows_the_worst_finding(case):
    a = assessed(case, groups=["origin"])
    sure = replace(a, goal=replace(a.goal, minimum=a.card.loc["roc_auc", "lo"] - .01), findings=[f for f in a.findings if f.ok])
    unsure = replace(sure, goal=replace(a.goal, minimum=a.card.loc["roc_auc", "value"] - .001))
    assert assessment.verdict(sure) == ("OK", []) and assessment.verdict(unsure)[0] == "WATCH" and "reaches beyond" in assessment.verdict(unsure)[1][0]
    assert assessment.verdict(assessed(case, Goal(minimum=.9)))[0] == "ACT"

def test_a_finding_that_is_there_is_not_made_again(case):
    known = evaluate.judge(evaluate.metrics(case[3], predict(case[0], case[2])), Goal(minimum=.5))
    assert sum(f.check == "roc_auc" for f in assessed(case, findings=known).findings) == 1

def test_synthetic_rows_are_refused(case):
    model, _, rows, y = case
    with pytest.raises(BadInput, match="synthetic"): assessment.assess("m", Goal(), rows.assign(**{MARK: True}), y, predict(model, rows))

def test_too_few_days_to_search_are_said(case):
    model, _, rows, y = case
    few = rows["scheduled"] < "2013-01-14"
    a = assessment.assess("m", Goal(), rows[few], y[few], predict(model, rows[few]), rows["scheduled"][few])
    assert a.slices is None and next(f for f in a.findings if f.check == "slice").note.startswith("not searched: 3 days") and "could not be shown" not in evaluation.page(a)

def test_the_report_is_written_whole_and_holds_no_script(case, tmp_path):
    model, train, rows, y = case
    hostile = rows.assign(origin="<script>alert(1)</script>" + rows["origin"])
    with settings_for(tmp_path):
        evaluation.report("late <b>flights</b>", Goal(minimum=.55), hostile, y, predict(model, rows), rows["scheduled"], groups=["origin"], costs=dict(fp=1, fn=4), model=model, baselines=evaluate.baselines(train, rows.assign(late=y), "late"))
    text = next((tmp_path/"reports/evaluation").glob("*.html")).read_text()
    assert text.startswith("<!doctype html>") and all(word not in text for word in ("<script", "<b>flights", "http:", "https:", "could not be shown", ">nan", "None"))
    for words in ("Can I ship it?", "Where it stands", "What to do", "For whom does it fail?", "Groups by origin", "Cost of the threshold", "On worse data", "All checks"): assert words in text

@pytest.mark.parametrize("width, scheme", [(375, "light"), (375, "dark"), (1280, "light")])
def test_the_page_fits_a_phone_and_answers_in_the_first_screen(case, browser_page, width, scheme):
    html = evaluation.document(assessed(case, groups=["origin"], costs=dict(fp=1, fn=4)))
    page = browser_page(width, 800, scheme)
    page.set_content(html)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    seen = lambda text: page.get_by_text(text, exact=True).first.bounding_box()
    assert page.locator(".verdict").bounding_box()["y"] < 250 and page.locator(".verdict strong").inner_text() in ("Yes, ship it", "Ship with care", "Do not ship")
    if width == 1280: assert seen("Where it stands")["y"] < 800 and seen("What to do")["y"] < 800
    overlaps = page.evaluate("""() => [...document.querySelectorAll('svg')].flatMap(s => { const t = [...s.querySelectorAll('text')].filter(n => n.textContent.trim()).map(n => [n.textContent, n.getBoundingClientRect()]);
        return t.flatMap(([a, r], i) => t.slice(i + 1).filter(([b, q]) => r.left < q.right - 1 && q.left < r.right - 1 && r.top < q.bottom - 2 && q.top < r.bottom - 2).map(([b]) => a + ' | ' + b)) })""")
    assert overlaps == []
    spills = page.evaluate("[...document.querySelectorAll('.tile, .card')].filter(n => !n.querySelector('.wide') && n.scrollWidth > n.clientWidth + 1).map(n => n.innerText.slice(0, 40))")
    assert spills == []

@pytest.mark.parametrize("k", [3, 30])
def test_long_names_of_classes_are_told_apart_on_a_phone(browser_page, k):
    "Nothing is drawn over the edge, no two names look alike, and a table that goes on says so."
    rng = np.random.default_rng(0)
    names = np.array(sorted(f"{w} number {i}" for i, w in zip(range(k), np.resize(["Chinstrap penguin (antarctic)", "Gentoo", "Adelie penguin of Torgersen"], k))))
    y, z = rng.integers(0, k, 3000), rng.normal(size=(3000, k))
    z[np.arange(3000), y] += 2
    p = np.exp(z)/np.exp(z).sum(axis=1, keepdims=True)
    a = assessment.assess("penguins version 1", Goal(metric="accuracy", minimum=.2, baseline=.1), pd.DataFrame({"x": rng.normal(size=3000)}), names[y], p, labels=names)
    page = browser_page(375, 800, "light")
    page.set_content(evaluation.document(a))
    outside = page.evaluate("""() => [...document.querySelectorAll('svg text')].filter(t => { const r = t.getBoundingClientRect(), s = t.closest('svg').getBoundingClientRect();
        return r.left < s.left - 1 || r.right > s.right + 1 || r.top < s.top - 1 || r.bottom > s.bottom + 1 }).map(t => t.textContent)""")
    assert outside == []
    drawn = page.evaluate("[...[...document.querySelectorAll('.card')].find(c => c.innerText.startsWith('What is taken')).querySelectorAll('svg text')].map(t => t.textContent)")
    shown = [t for t in drawn if "number" in t or "umber" in t]
    assert len(shown) == 2*min(k, 12) and len(set(shown)) == min(k, 12)
    hints = page.evaluate("[...document.querySelectorAll('.wide')].filter(n => n.scrollWidth > n.clientWidth).map(n => getComputedStyle(n, '::before').content)")
    assert all("swipe" in h for h in hints) and page.evaluate("document.documentElement.scrollWidth") <= 375   # tables are cards there

@pytest.fixture(scope="module")
def browser_page():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--disable-component-update"])
        yield lambda width, height, scheme: browser.new_context(viewport=dict(width=width, height=height), color_scheme=scheme).new_page()
        browser.close()
