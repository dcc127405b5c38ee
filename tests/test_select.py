"Fewer columns with proof: the right ones go, the wrong ones stay, chance is not taken for proof, bad input is told."
import numpy as np, pandas as pd, pytest
from sklearn.datasets import make_friedman1
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from mlops_nb.core.finding import BadInput
from mlops_nb.features.build import pipeline
from mlops_nb.features.relevance import mrmr, mutual_information
from mlops_nb.features.select import may_go, narrow, paired_folds, select

def linear(n=400, seed=0):
    "Three columns that matter, a copy, four of noise."
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, 8)), columns=["a", "b", "c", "copy", "n1", "n2", "n3", "n4"])
    X["copy"] = X["a"] + .01*rng.normal(size=n)
    return X, (3*X["a"] + 2*X["b"] + X["c"] + rng.normal(size=n)).to_numpy()

def shuffled(model, X, y):
    r = permutation_importance(model, X, y, n_repeats=5, random_state=0)
    return pd.DataFrame({"feature": X.columns, "importance": r.importances_mean, "lo": r.importances_mean - 2*r.importances_std})

# --- selection ---

@pytest.mark.parametrize("how", ["findings", "recursive", "mrmr"])
def test_noise_goes_and_what_matters_stays(how):
    X, y = linear()
    found = select(Ridge(), X, y, shuffled, how=how)
    assert {"b", "c"} < set(found.kept) and {"a", "copy"} & set(found.kept) and len(found.kept) <= 6 and found.proof["ok"].iloc[0]
    assert set(found.kept) | set(found.dropped["column"]) == set(X) and found.findings()[0].ok
    assert select(Ridge(), X, y, shuffled, how=how).scores.equals(found.scores)
    found.model(Ridge(), X.columns).fit(X[found.kept], y)

def test_a_loss_is_never_taken_for_nothing():
    "Over 40 tables, a set without a column that matters (loss beyond the limit) is accepted in at most the promised share."
    taken = 0
    for seed in range(40):
        X, y = linear(150, seed)
        table = pd.DataFrame({"feature": X.columns, "importance": 1., "decision": ["needed" if c not in ("c", "copy") else "not shown to help" for c in X]})
        loss = 1/15
        taken += "c" not in select(Ridge(), X, y, table, max_loss=.9*loss).kept
    assert taken <= 6

def test_copies_never_go_together():
    table = pd.DataFrame({"feature": list("abc"), "importance": [.2, .1, .3], "decision": ["redundant with b", "redundant with a", "redundant with a"]})
    assert list(may_go(table, list("abc"))) == ["b"] or set(may_go(table, list("abc"))) < set("abc")
    kept = set("abc") - set(may_go(table, list("abc")))
    assert kept and all(d.removeprefix("redundant with ") in kept for d in may_go(table, list("abc")).values())

def test_a_needed_cluster_keeps_one():
    class Told(pd.DataFrame):
        clusters = pd.DataFrame({"members": [["a", "b"], ["n", "m"]], "decision": ["needed", "not shown to help"]})
        def to_frame(self): return self
    told = Told({"feature": list("abcnm"), "importance": [.2, .1, .3, 0, 0], "decision": ["redundant with c", "not shown to help", "needed", "not shown to help", "redundant with a"]})
    assert set(may_go(told, list("abcnm"))) == {"b", "n", "m"}
    assert len(may_go(told.assign(decision="not shown to help"), list("abcnm"))) == 4      # one column always stays

def test_days_time_and_a_scorer_of_ones_own():
    X, y = linear()
    table = shuffled(Ridge().fit(X, y), X, y)
    assert "beforehand" in select(Ridge(), X, y, table, groups=np.arange(400)//20).note
    assert len(select(Ridge(), X, y, table, cv=TimeSeriesSplit(5), scoring="neg_mean_absolute_error").scores) == 5
    assert len(select(Ridge(), X, y, table, cv=3, scoring=lambda m, X, y: m.score(X, y), n_jobs=2).scores) == 3

def test_pipelines_are_narrowed():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"at": pd.date_range("2013", periods=300, freq="h"), "a": rng.choice(["x", "y"], 300), "b": rng.choice(["u", "v"], 300), "n": rng.normal(size=300), "m": rng.normal(size=300)})
    y = (X["n"] + (X["a"] == "x") > 0).to_numpy()
    for estimator in (HistGradientBoostingClassifier(max_iter=5), LogisticRegression()):
        model = pipeline(X, estimator, interactions=[("a", "b"), ("n", "m")])
        small = narrow(model, ["a", "n"], X.columns).fit(X[["a", "n"]], y)
        assert "a_x_b" not in small[:-1].get_feature_names_out() and "n_x_m" not in small[:-1].get_feature_names_out() and small.score(X[["a", "n"]], y) > .8
    assert narrow(make_pipeline(PolynomialFeatures(2), LinearRegression()), ["n"], ["n", "m"]).fit(X[["n"]], y).n_features_in_ == 1
    with pytest.raises(BadInput, match="keep at least one"): narrow(LinearRegression(), [], ["n"])
    with pytest.raises(BadInput, match="by position"): narrow(HistGradientBoostingClassifier(categorical_features=[0]), ["n"], ["n", "m"])

# --- the test over folds (Nadeau and Bengio 2003) ---

def test_corrected_test_holds_its_level():
    "Two equal models over ten overlapping folds of 200 tables."
    rng, said = np.random.default_rng(0), 0
    for seed in range(200):
        d = .45*rng.normal() + rng.normal(size=10)
        said += paired_folds(d, .25)[3] < .05
    assert said <= 18
    mean, lo, hi, p = paired_folds([.1, .2, .3], .25)
    assert lo < mean < hi and paired_folds([0, 0, 0], .25)[3] == 1 and paired_folds([1, 1, 1], .25)[3] == 0
    with pytest.raises(BadInput): paired_folds([1.], .25)

# --- mutual information and mRMR ---

@pytest.mark.parametrize("rho", [0., .3, .6, .9])
def test_information_of_normal_columns(rho):
    a, b = np.random.default_rng(0).multivariate_normal([0, 0], [[1, rho], [rho, 1]], 50_000).T
    truth = -np.log(1 - rho**2)/2
    assert mutual_information(a, b) == pytest.approx(truth, rel=.12, abs=.002) and mutual_information(b, a) == pytest.approx(mutual_information(a, b))

def test_information_of_any_type():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 3000)
    text, date = np.array(["u", "v", "w"])[y], pd.Timestamp("2013") + pd.to_timedelta(y, "D")
    assert mutual_information(text, y) == pytest.approx(np.log(3), abs=.01) == mutual_information(pd.Series(date), y)
    holes = pd.Series(rng.normal(size=3000)).where(y > 0)
    assert mutual_information(holes, y == 0) == pytest.approx(.6365, abs=.03)                 # being missing tells
    assert mutual_information(pd.Series(rng.normal(size=3000)).replace({0: np.inf}), y) == pytest.approx(0, abs=.01)
    assert abs(mutual_information([f"i{k}" for k in rng.integers(0, 300, 3000)], y)) < .03    # ten rows each: chance is taken off
    assert mutual_information(np.ones(3000), y) == 0
    with pytest.raises(BadInput): mutual_information([1, 2], [1])

def test_mrmr_order_on_friedman():
    X, y = make_friedman1(3000, n_features=8, random_state=0)
    X = pd.DataFrame(X).add_prefix("x").assign(copy=X[:, 3])
    order = mrmr(X, y)["feature"].tolist()
    assert order[0] in ("x3", "copy") and {"x0", "x1", "x4"} <= set(order[:5]) and order.index("copy") + order.index("x3") > 5
    assert mrmr(X, y, k=2)["feature"].tolist() == order[:2]

# --- bad input ---

def test_bad_input():
    X, y = linear()
    table = shuffled(Ridge().fit(X, y), X, y)
    noise = np.random.default_rng(0).normal(size=400)
    for said, case in {"no better than a dummy": dict(y=noise), "one answer per row": dict(y=y[:5]), "is not a column": dict(importances=table.replace("a", "z")), "no column 'zz'": dict(keep=["zz"]),
                       "is unknown": dict(how="guess"), "give the function": dict(how="recursive"), "comes twice": dict(X=pd.concat([X, X["a"]], axis=1)),
                       "not one number": dict(scoring=lambda m, X, y: {"r2": 1.})}.items():
        with pytest.raises(BadInput, match=said): select(**dict(model=Ridge(), X=X, y=y, importances=table) | case)

def test_one_class_in_a_fold():
    X, y = linear()
    with pytest.raises(BadInput, match="one class"): select(LogisticRegression(), X, np.arange(400) < 200, shuffled, groups=np.arange(400)//80)

def test_nothing_to_drop_is_fine():
    X, y = linear()
    found = select(Ridge(), X[["a", "b"]], y, shuffled)
    assert found.kept == ["a", "b"] and found.dropped.empty

@pytest.mark.parametrize("wrong, said", [(dict(cv=1), "2 to 60"), (dict(cv=99), "2 to 60"), (dict(max_loss=-1), "below 0"), (dict(groups=np.arange(60) % 3), "3 groups; pass 2 to 3")])
def test_folds_and_losses_that_make_no_sense(wrong, said):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    with pytest.raises(BadInput, match=said): select(LinearRegression(), X, X["a"] + rng.normal(size=60)/9, **wrong)

def test_progress_counts_fits():
    rng, seen = np.random.default_rng(0), []
    X = pd.DataFrame(rng.normal(size=(120, 3)), columns=list("abc"))
    select(LinearRegression(), X, X["a"] + rng.normal(size=120)/9, how="mrmr", cv=4, progress=lambda done, of, left: seen.append((done, of)))
    assert [d for d, _ in seen] == list(range(len(seen))) and len(seen) > 12 and seen[-1][0] <= seen[-1][1]
