"Any framework, problem and split through one seam; what leaks is found; what cannot be learned is refused in one line."
import importlib.util, itertools, pickle

import numpy as np, pandas as pd, polars as pl, pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from conftest import write_settings
from mlops_nb.core import config, ledger
from mlops_nb.core.finding import BadInput, GateClosed
from mlops_nb.data import samples
from mlops_nb.features import alarms
from mlops_nb.registry import contest, models
from mlops_nb.train import assessment, errors, evaluate, frameworks, goal, robustness, splits, tune, worth
from mlops_nb.train.fit import fit, predict
from mlops_nb.train.goal import Goal
from mlops_nb.train.scoring import metric
from mlops_nb.train.segments import segment_findings
from mlops_nb.train.splits import folds, last_days, leaks, split, time_split

FRAMEWORKS = {"sklearn": ("sklearn.ensemble.HistGradientBoosting", {"max_iter": 400}), "lightgbm": ("lightgbm.LGBM", {"n_estimators": 200, "learning_rate": .2, "min_child_samples": 5}), "xgboost": ("xgboost.XGB", {"n_estimators": 400}),
              "catboost": ("catboost.CatBoost", {"n_estimators": 400, "learning_rate": .3}), "torch": ("mlops_nb.train.nets.Net", {"epochs": 300, "lr": .01})}
ROUNDS = {"sklearn": "n_iter_", "lightgbm": "best_iteration_", "xgboost": "best_iteration", "catboost": "best_iteration_", "torch": "n_iter_"}

def needs(name):
    if importlib.util.find_spec(name) is None: pytest.skip(f"{name} is not installed")

def wine(kind="words"):
    "Three classes as words, two, or numbers to predict; a category with names boosters refuse, a date, and missing values."
    df = samples.load("wine")
    df["kind"] = np.array(["[20, 30)", '{"a": 1}', "<c>"])[np.arange(len(df)) % 3]
    df.loc[::7, "malic_acid"] = np.nan
    if kind == "words": df["target"] = np.array(["red", "rosé", "white"])[df["target"]]
    if kind == "two": df["target"] = np.where(df["target"] == 1, "yes", "no")
    if kind == "numbers": df = df.drop(columns="target").rename(columns={"alcohol": "target"})
    return df.sample(frac=1, random_state=0, ignore_index=True).assign(day=pd.date_range("2026-01-01", periods=len(df), freq="6h"))

# --- one seam ---

@pytest.mark.parametrize("kind", ["two", "words", "numbers"])
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework(name, kind):
    "Classes as words or numbers, categories never seen, missing values, early stopping, weights; the same for a seed; pickled."
    needs(name)
    (path, params), df = FRAMEWORKS[name], wine(kind)
    path += "Regressor" if kind == "numbers" else "Classifier"
    cut = splits.split(df, "target", "random", size=.3, seed=1)
    train, test = cut.of(df)
    model = fit(train, "target", path, training={"patience": 10, "validation": .2, "sample_weight": "flavanoids", **({} if kind == "numbers" else {"class_weight": "balanced"})}, **params)
    p = predict(model, test.drop(columns="target").assign(kind="never seen", proline=np.nan))
    assert len(p) == len(test) and np.isfinite(p).all() and "flavanoids" not in model[0].get_feature_names_out()
    assert 0 < getattr(model[-1], ROUNDS[name]) < 399
    again = fit(train, "target", path, training={"patience": 10, "validation": .2}, **params)
    q = predict(again, test)
    assert np.array_equal(q, predict(fit(train, "target", path, training={"patience": 10, "validation": .2}, **params), test))
    assert np.allclose(q, predict(pickle.loads(pickle.dumps(again)), test))
    if kind == "numbers": assert metric("r2")(test["target"], q) > .2
    else: assert metric("balanced_accuracy")(test["target"], q) > .85 and list(again.classes_) == sorted(df["target"].unique())
    if kind == "words": assert p.shape == (len(test), 3) and np.allclose(p.sum(axis=1), 1, atol=1e-5)

def queries(n=80, size=15):
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"query": np.repeat([f"q{i}" for i in range(n)], size), "match": rng.normal(size=n*size), "price": rng.normal(size=n*size)})
    return df.assign(stars=np.clip(df["match"] + rng.normal(size=len(df))*.5 + 1.5, 0, 4).astype(int)).sample(frac=1, random_state=1, ignore_index=True)

@pytest.mark.parametrize("name", ["lightgbm.LGBMRanker", "xgboost.XGBRanker", "catboost.CatBoostRanker", "sklearn.ensemble.HistGradientBoostingRegressor"])
def test_ranking_by_group(name):
    "Whole queries on one side, shuffled rows sorted for the framework, the query no feature; better than chance."
    needs(name.split(".")[0])
    df = queries()
    cut = splits.split(df, "stars", "group", group="query", size=.25)
    train, test = cut.of(df)
    assert not set(train["query"]) & set(test["query"]) and all(f.ok for f in cut.findings)
    model = fit(train, "stars", name, training={"group": "query", "patience": 10, "validation": .2})
    ndcg = metric("ndcg@5")
    score, luck = (ndcg(test["stars"], p, groups=test["query"]) for p in (predict(model, test), np.random.default_rng(0).random(len(test))))
    assert score > luck + .15 and list(model[0].get_feature_names_out()) == ["match", "price"]
    if "Ranker" in name:
        with pytest.raises(BadInput, match="say which"): fit(train, "stars", name)

def test_forecasting_by_time():
    "Rolling origin: each fold learns from the past alone, and a gap keeps answers out that would not be known yet."
    day = pd.date_range("2024-01-01", periods=400)
    df = pd.DataFrame({"day": day, "sales": 50 + 10*np.sin(np.arange(400)*2*np.pi/7) + np.random.default_rng(0).normal(size=400)})
    df["week_ago"] = df["sales"].shift(7)
    for s in splits.folds(df.dropna(ignore_index=True), "sales", 4, time="day", gap=7):
        before, after = s.of(df.dropna(ignore_index=True))
        assert (after["day"].min() - before["day"].max()).days > 7
        assert metric("mae")(after["sales"], predict(fit(before, "sales", "sklearn.linear_model.Ridge"), after)) < 2

class Mean:
    "A framework of our own: two methods."
    def fit(self, X, y): self.mean = np.mean(y)
    def predict(self, X): return np.full(len(X), self.mean)

class Share:
    def __init__(self, plus=0.): self.plus = plus
    def fit(self, X, y): self.share = np.bincount(y) + self.plus
    def predict(self, X): return np.full(len(X), self.share.argmax())
    def predict_proba(self, X): return np.tile(self.share/self.share.sum(), (len(X), 1))

def test_two_methods_are_a_framework():
    number, words = fit(wine("numbers"), "target", Mean()), fit(wine(), "target", f"{__name__}.Share", plus=1.)
    assert np.allclose(predict(number, wine("numbers")), wine("numbers")["target"].mean())
    assert predict(words, wine()).shape == (178, 3) and set(words.predict(wine())) == {"rosé"} and list(words.classes_) == ["red", "rosé", "white"]
    assert clone(words).fit(wine().drop(columns="target"), wine()["target"]).predict(wine())[0] == "rosé"
    with pytest.raises(BadInput, match="takes no weights"): fit(wine(), "target", Share(), training={"class_weight": "balanced"})

# --- how it is trained ---

def test_without_options_nothing_changes():
    "The pipeline's own fit, bit for bit."
    from mlops_nb.features.build import pipeline
    from sklearn.ensemble import HistGradientBoostingClassifier
    df = wine("two")
    plain = pipeline(df.drop(columns="target"), HistGradientBoostingClassifier(random_state=0)).fit(df.drop(columns="target"), df["target"])
    assert np.array_equal(plain.predict_proba(df), fit(df, "target").predict_proba(df)) and np.array_equal(plain.predict_proba(df), fit(df, "target", training={"device": "auto"}).predict_proba(df))

def test_stopping_looks_at_the_last_rows_to_learn_from(monkeypatch):
    "Never at the holdout: it is not in the frame; and by time, not by dice."
    seen = {}
    real = frameworks.fitted
    monkeypatch.setattr(frameworks, "fitted", lambda pipe, part, held, *how: seen.update(part=part, held=held) or real(pipe, part, held, *how))
    df = wine("two")
    before, after = splits.split(df, "target", time="day", size=.3).of(df)
    fit(before, "target", max_iter=50, training={"patience": 5, "time": "day", "validation": .25})
    assert seen["part"].X["day"].max() < seen["held"].X["day"].min() <= seen["held"].X["day"].max() < after["day"].min()
    assert len(seen["held"].X) + len(seen["part"].X) == len(before)

def test_weights_count_rows():
    "Class weights are sample weights: given by hand they are the same."
    df = wine("two")
    balanced = fit(df, "target", training={"class_weight": "balanced"})
    by_hand = fit(df.assign(w=df["target"].map(len(df)/2/df["target"].value_counts())), "target", training={"sample_weight": "w"})
    assert np.array_equal(predict(balanced, df), predict(by_hand, df)) and not np.array_equal(predict(balanced, df), predict(fit(df, "target"), df))

def test_a_gpu_is_asked_of_each_framework_in_its_words(monkeypatch):
    monkeypatch.setattr(frameworks, "gpu", lambda: True)
    part = frameworks.Part(np.zeros((4, 1)), np.array([0, 1, 0, 1]))
    for name, word in (("xgboost.XGBClassifier", {"device": "cuda"}), ("lightgbm.LGBMClassifier", {"device_type": "gpu"}), ("catboost.CatBoostClassifier", {"task_type": "GPU"}), ("mlops_nb.train.nets.NetClassifier", {"device": "cuda"})):
        if importlib.util.find_spec(name.split(".")[0]): assert frameworks.arguments(frameworks.make_estimator(name), part, device="gpu")[0] == word

# --- splits ---

def frame(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"id": np.arange(n), "patient": rng.integers(0, 40, n), "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 30*24, n), "h"), "x": rng.normal(size=n), "y": rng.choice(["a", "b", "c"], n, p=[.6, .3, .1])})

@pytest.mark.parametrize("how, seed", [*itertools.product(splits.HOWS, range(5))])
def test_splits_keep_what_they_promise(how, seed):
    df = frame(seed=seed)
    cuts = [splits.split(df, "y", how, time="when", group="patient", size=.25, seed=seed), *splits.folds(df, "y", 4, how, time="when", group="patient", seed=seed)]
    for cut in cuts:
        a, b = cut.of(df)
        assert not set(cut.train) & set(cut.test) and len(a) and len(b)
        if how == "time": assert a["when"].max() < b["when"].min()
        if how == "group": assert not set(a["patient"]) & set(b["patient"])
        if how == "stratified": assert abs(a["y"].value_counts(normalize=True) - b["y"].value_counts(normalize=True)).max() < .03
    if how != "time": assert sorted(np.concatenate([c.test for c in cuts[1:]])) == [*range(len(df))] and abs(len(cuts[0].test) - 100) < 12
    assert np.array_equal(cuts[0].test, splits.split(df, "y", how, time="when", group="patient", size=.25, seed=seed).test)

def test_what_leaks_is_found():
    df = pd.concat([frame(), frame().head(30).assign(id=range(900, 930))], ignore_index=True).assign(id=lambda d: d["id"].where(d.index != 5, 7))
    found = {f.check: f for f in splits.split(df, "y", "random", group="patient", time="when", key="id", size=.4, seed=2).findings}
    assert not found["same_group"].ok and not found["same_row"].ok and not found["time_overlap"].ok
    twice = splits.leaks(df, [5], [7], key="id")
    assert [f.check for f in twice if not f.ok] == ["same_key"] and twice[0].value == 1
    leaky = frame().assign(told=lambda d: d["y"].map({"a": 1., "b": 2., "c": 3.}))
    assert [f.subject for f in alarms.leakage(leaky.drop(columns="y"), leaky["y"]) if not f.ok] == ["told"]

def test_a_class_that_was_never_learned():
    df = frame().sort_values("when", ignore_index=True)
    cut = splits.split(df.assign(y=df["y"].where(df.index < 390, "new")), "y", time="when", size=.3)
    assert [f.value for f in cut.findings if f.check == "new_class" and not f.ok] == [1]

@pytest.mark.parametrize("change, how, said", [
    (lambda d: d.assign(y=np.where(d["when"] < "2026-01-25", "a", "b")), dict(time="when", size=3), "have one class"), (lambda d: d, dict(time="whne"), "did you mean 'when'"), (lambda d: d, dict(), "needs its column"),
    (lambda d: d.assign(when=d["when"].where(d.index > 3)), dict(time="when"), "missing in 4"), (lambda d: d.assign(when="soon"), dict(time="when"), "cannot be ordered"), (lambda d: d.assign(patient=1), dict(how="group", group="patient"), "1 group"),
    (lambda d: d.assign(y=["rare", *d["y"][1:]]), dict(how="stratified"), "'rare' has 1 row"), (lambda d: d, dict(how="random", size=1.5), "no share"), (lambda d: d[:1], dict(how="random"), "at least two"),
    (lambda d: d, dict(time="when", gap=99), "no row to learn from"), (lambda d: d, dict(how="kfold"), "one of time"), (lambda d: d, dict(how="random", target="z"), "no column 'z'")])
def test_what_cannot_be_split(change, how, said):
    with pytest.raises(BadInput, match=said): splits.split(change(frame()), **{"target": "y", **how})

# --- bad input of a fit ---

@pytest.mark.parametrize("change, how, said", [
    (lambda d: d.assign(target="red"), {}, "one class only"), (lambda d: d.assign(ash=d["ash"].where(d.index > 0, np.inf)), {}, "'ash'.*infinite"), (lambda d: d.assign(target=d["target"].where(d.index > 2)), {}, "missing in 3"),
    (lambda d: d[["target", "day"]].assign(day=None), {}, "can be a feature"), (lambda d: d, {"training": {"patience": 5}, "estimator": "sklearn.linear_model.LogisticRegression"}, "leave patience out"),
    (lambda d: d, {"training": {"class_weight": {"blue": 2}}}, "'blue'"), (lambda d: d, {"training": {"sample_weight": "kind"}}, "no list of numbers"), (lambda d: d, {"training": {"device": "gpu"}, "estimator": "sklearn.linear_model.Ridge"}, "regression learns numbers|does not use a GPU"),
    (lambda d: d, {"estimator": "sklearn.linear_model.LogisticRegresion"}, "no estimator at"), (lambda d: d, {"estimator": "sklearn.metrics.roc_auc_score"}, "fit and predict"), (lambda d: d, {"max_itre": 3}, "did you mean 'max_iter'"),
    (lambda d: d, {"estimator": object()}, "no fit and predict"), (lambda d: d, {"training": {"group": "quary", "patience": 3}}, "no column 'quary'")])
def test_what_cannot_be_learned(change, how, said):
    with pytest.raises(BadInput, match=said): fit(change(wine()), "target", **how)

def test_a_column_without_a_value():
    "All missing: not used, and not missed at prediction; missing only there: imputed."
    df = wine("two")
    for name in ("sklearn.ensemble.HistGradientBoostingClassifier", "sklearn.linear_model.LogisticRegression"):
        model = fit(df.assign(nothing=np.nan, void=None), "target", name)
        assert not {"nothing", "void"} & set(model[0].get_feature_names_out()) and np.isfinite(predict(model, df)).all()
        assert np.isfinite(predict(model, df.assign(ash=np.nan, kind=None))).all() and np.isfinite(predict(model, df.assign(ash=None))).all()

def test_infinite_at_prediction():
    model = fit(wine("two"), "target", "sklearn.linear_model.LogisticRegression")
    with pytest.raises(BadInput, match="'ash' of df holds infinite"): predict(model, wine("two").assign(ash=-np.inf))

def test_no_probabilities_where_the_metric_needs_them():
    model = fit(wine("two"), "target", "sklearn.svm.LinearSVC")
    with pytest.raises(BadInput, match="LinearSVC has no predict_proba"): predict(model, wine("two"), metric("roc_auc").needs)
    assert metric("f1")(wine("two")["target"], predict(model, wine("two"), metric("f1").needs)) > .9

# --- goal ---

def read(tmp_path, monkeypatch, **keys):
    write_settings(tmp_path, mlops_nb={}, **({"goal": keys} if keys else {}))
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    return goal.goal(required=True)

def test_a_goal_is_read_and_a_missing_one_told(tmp_path, monkeypatch):
    aim = read(tmp_path, monkeypatch, metric="mae", baseline="12", minimum="9", max_drop="1", min_gain="0.2", segments="origin=JFK minimum 8")
    assert goal.worst(aim, 8.5) == 9 and not goal.higher("mae")
    (tmp_path/"settings.ini").unlink()
    with pytest.raises(BadInput, match=r"no \[goal\]"): read(tmp_path, monkeypatch)

def test_the_goal_of_this_project_holds(tmp_path, monkeypatch):
    write_settings(tmp_path)
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    aim = goal.goal(required=True)
    assert 0 < worth.threshold(aim) < 1 and aim.kpi_metric

@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_of_the_values_is_the_best_one(seed):
    "No other threshold earns more on calibrated scores (up to chance), as Elkan's formula says."
    rng = np.random.default_rng(seed)
    p = rng.random(200_000)
    y, v = (rng.random(len(p)) < p).astype(int), rng.uniform(1, 20, 4)
    aim = goal.Goal(values=f"tp {v[0]:.2f}, fp -{v[1]:.2f}, fn -{v[2]:.2f}, tn {v[3]:.2f}")
    earned = {t: worth.worth(aim, y, (p >= t).astype(int)) for t in np.linspace(.02, .98, 49)}
    assert worth.worth(aim, y, worth.decide(aim, p)) > max(earned.values()) - .02

def test_several_classes_take_the_decision_worth_most():
    aim, classes = goal.Goal(metric="accuracy", costs="ill/well 100, ill/odd 100, well/ill 1, well/odd 1, odd/well 5, odd/ill 5"), ["ill", "odd", "well"]
    assert list(worth.decide(aim, [[.05, .0, .95], [.005, .0, .995]], classes)) == ["ill", "well"]
    assert worth.worth(aim, np.array(["ill", "well"]), np.array(["well", "well"])) == -50

def test_a_segment_below_its_limit_is_an_error():
    rng, n = np.random.default_rng(0), 2000
    df, y = pd.DataFrame({"origin": rng.choice(["JFK", "EWR"], n)}), rng.integers(0, 2, n)
    p = np.where(df["origin"] == "JFK", rng.random(n), .6*y + .4*rng.random(n))
    found = segment_findings(goal.Goal(segments="origin=* minimum 0.7"), df, y, p)
    assert {f.subject: f.ok for f in found} == {"origin=EWR": True, "origin=JFK": False} and found[0].level == "error"

# --- what people hand in ---

CELLS = samples.load("breast_cancer").iloc[:, [0, 1, 2, 3, -1]].set_axis(["a", "b", "c", "d", "label"], axis=1)
LOGISTIC, BOOSTED = "sklearn.linear_model.LogisticRegression", "sklearn.ensemble.HistGradientBoostingClassifier"
NESTED = {"lists": [[1, 2]]*len(CELLS), "dictionaries": [{"k": 1}]*len(CELLS), "arrays": [np.zeros(3)]*len(CELLS), "tuples": [(1, 2)]*len(CELLS)}

@pytest.mark.parametrize("kind", NESTED)
def test_a_column_of_lists_is_named_everywhere(kind):
    df, y = CELLS.assign(tags=NESTED[kind]), CELLS["label"]
    p = np.linspace(.1, .9, len(df))
    for call in (lambda: fit(df, "label", LOGISTIC), lambda: split(df, "label", "random"), lambda: folds(df, "label", 3, "random"), lambda: evaluate.baselines(df, df, "label"), lambda: evaluate.feasibility(df, "label", Goal()),
                 lambda: assessment.assess("x", Goal(), df, y, p), lambda: evaluate.slices(df, y, p, None, ["tags"]), lambda: contest.train(df, "m", Goal(), holdout=split(CELLS, "label", "random"))):
        with pytest.raises(BadInput, match="column 'tags' of .* holds .*, and a model learns numbers.*drop it"): call()

def test_a_frame_of_polars_is_taken():
    other = pl.from_pandas(CELLS)
    model = fit(other, "label", LOGISTIC)
    assert np.allclose(predict(model, other.drop("label")), predict(fit(CELLS, "label", LOGISTIC), CELLS.drop(columns="label")))
    assert (split(other, "label", "random").test == split(CELLS, "label", "random").test).all() and evaluate.feasibility(other, "label", Goal()).metrics.equals(evaluate.feasibility(CELLS, "label", Goal()).metrics)
    for bad in (CELLS.to_numpy(), None, "cells.csv", CELLS.to_dict()):
        with pytest.raises(BadInput, match="pass a frame with named columns"): fit(bad, "label", LOGISTIC)

REFUSED = [(BOOSTED, dict(max_iter="many"), "'max_iter' parameter.*Got 'many'"), (LOGISTIC, dict(C=-1), "'C' parameter.*Got -1"), ("sklearn.neighbors.KNeighborsClassifier", dict(n_neighbors=0), "n_neighbors"), ("sklearn.naive_bayes.MultinomialNB", {}, "Negative values"),
           ("lightgbm.LGBMClassifier", dict(num_leaves="many"), 'num_leaves.*got "many"'), ("xgboost.XGBClassifier", dict(max_depth="deep"), "max_depth.*'deep'")]

@pytest.mark.parametrize("estimator, params, said", REFUSED)
def test_what_an_estimator_refuses_is_said_in_its_words(estimator, params, said):
    pytest.importorskip(estimator.partition(".")[0])
    with pytest.raises(BadInput, match=f"{estimator.rpartition('.')[2]} does not learn this: .*{said}"): fit(CELLS, "label", estimator, **params)

@pytest.fixture(scope="module")
def cells(): return fit(CELLS, "label", LOGISTIC)

@pytest.mark.parametrize("rows, said", [(CELLS.drop(columns="b"), "no column 'b', which LogisticRegression has learned from"), (CELLS.head(0), "df has 0 rows"), (CELLS.astype({"a": object}).assign(a="hot"), "does not answer these rows: .*'hot'"), (CELLS.assign(a=np.inf), "column 'a' of df holds infinite")])
def test_rows_that_cannot_be_answered(cells, rows, said):
    with pytest.raises(BadInput, match=said): predict(cells, rows)

def test_a_model_that_is_none_or_not_fitted():
    with pytest.raises(BadInput, match="is not fitted yet"): predict(LogisticRegression(), CELLS)
    with pytest.raises(BadInput, match="None has no predict"): predict(None, CELLS)

DAYS = CELLS.assign(day=pd.date_range("2020", periods=len(CELLS)))
WRONG = {"seed='a'": lambda: split(CELLS, "label", "random", seed="a"), "seed=-1": lambda: folds(CELLS, "label", 3, "random", seed=-1), "seed=1.5": lambda: robustness.worsen(CELLS, "a", "noise", seed=1.5),
         "n_boot='x'": lambda: evaluate.compare(CELLS.label, DAYS.a/99, DAYS.a/99, DAYS.day, n_boot="x"), "gap='x'": lambda: split(DAYS, "label", "time", "day", gap="x"), "gap=10**9": lambda: split(DAYS, "label", "time", "day", gap=10**9),
         "size='x'": lambda: split(DAYS, "label", "time", "day", size="x"), "cut=5": lambda: time_split(DAYS, "day", 5), "time='dya'": lambda: last_days(DAYS, "dya", 5), "key='dya'": lambda: split(DAYS, "label", "random", key="dya"), "days='x'": lambda: last_days(DAYS, "day", "x"),
         "target=['label']": lambda: fit(CELLS, ["label"]), "target='labl'": lambda: evaluate.baselines(CELLS, CELLS, "labl"), "scores=5": lambda: evaluate.metrics(CELLS.label, 5), "ragged": lambda: evaluate.metrics(CELLS.label, [[1], [2, 3]]),
         "goal=None": lambda: evaluate.evaluate(LogisticRegression(), CELLS, CELLS.label), "positions": lambda: leaks(CELLS, [0], [10**6]), "groups='a'": lambda: assessment.assess("x", Goal(), CELLS, CELLS.label, CELLS.label*.5 + .2, groups="zz"),
         "costs=5": lambda: assessment.assess("x", Goal(), CELLS, CELLS.label, CELLS.label*.5 + .2, costs=5), "splits": lambda: tune.tune(CELLS, "label", "s", "three", LOGISTIC), "columns": lambda: errors.worst(CELLS, evaluate.case(CELLS.label, CELLS.label*.5 + .2), columns=["zz"]),
         "dates as answers": lambda: fit(DAYS, "day", LOGISTIC), "mixed": lambda: fit(CELLS.assign(e=np.resize(np.array([1, "a"], object), len(CELLS))), "label", LOGISTIC)}

@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments_are_no_tracebacks(what):
    with pytest.raises(BadInput): WRONG[what]()

def test_versions_and_reasons_that_are_none(tmp_path, monkeypatch, cells):
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    models.register(cells, "cells", CELLS.drop(columns="label").head(), {}, {"auc": .9})
    for call in (lambda: models.promote("cells", "x", "why"), lambda: models.promote("cells", 1.9, "why"), lambda: models.promote("cells", 1, None), lambda: models.load("cells", [1]), lambda: models.rollback("cells", "why", "x"), lambda: models.champion(5), lambda: models.leaderboard(since=[1])):
        with pytest.raises(BadInput): call()
    assert models.in_charge("cells") is None
    ledger.close()
