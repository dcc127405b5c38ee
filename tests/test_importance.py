"Honest importance: truth found, intervals that cover, refusals, every bad input of a person, and Ctrl-C."
import warnings
import numpy as np, pandas as pd, pytest
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import make_classification, make_friedman1
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer, make_scorer
from mlops_nb.core.finding import BadInput
from mlops_nb.features import refits
from mlops_nb.features.clusters import association, cluster_columns, one_hot_groups
from mlops_nb.features.evidence import estimate, row_scorer
from mlops_nb.features.importance import importance
from mlops_nb.features.permutation import _shuffles, permutation_importance
from mlops_nb.features.ranking import question
from mlops_nb.features.stability import changed, stability
from conftest import load_bench

bench = load_bench("importance")

def linear(n=600, seed=0):
    "A Ridge of three columns: x twice (`copy` with a little error), and noise; held-out rows and answers."
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, 2*n))
    X = pd.DataFrame(dict(x=x, copy=x + .3*rng.normal(size=2*n), z=z, noise=rng.normal(size=2*n)))
    y = x + z + rng.normal(size=2*n)
    return Ridge(30.).fit(X[:n], y[:n]), X[n:].reset_index(drop=True), y[n:], (X[:n], y[:n])

# --- the truth ---

@pytest.mark.parametrize("design", bench.DESIGNS)
def test_truth_is_found(design, monkeypatch):
    "Two tables of each design at the size from which the conditional draws learn a bent dependence; the bench has twenty."
    monkeypatch.setattr(bench, "ROWS", 1500)
    got = np.mean([bench.found(design, seed, ["ours"])["ours"][:2] for seed in range(2)], axis=0)
    assert got[0] <= .25 and got[1] >= .7, got

def test_copy_is_redundant_and_named():
    model, X, y, _ = linear()
    table = importance(model, X, y).to_frame().set_index("feature")
    assert table.loc["copy", "lo"] > 0 and table["decision"].to_dict() == {"x": "needed", "z": "needed", "copy": "redundant with x", "noise": "not shown to help"}

def test_few_rows_are_said():
    model, X, y, _ = linear(200)
    assert "below 700" in " ".join(importance(model, X, y, n_repeats=2).notes)

def test_exact_copies_are_needed_as_a_pair():
    rng = np.random.default_rng(0)
    x = rng.normal(size=1200)
    X, y = pd.DataFrame(dict(a=x, b=x, c=rng.normal(size=1200))), x + .5*rng.normal(size=1200)
    found = importance(Ridge().fit(X[:600], y[:600]), X[600:], y[600:])
    assert found.to_frame().set_index("feature")["decision"][["a", "b"]].tolist() == ["redundant with b", "redundant with a"]
    assert found.clusters["decision"].tolist() == ["needed"] and found.clusters["members"][0] == ["a", "b"]

def test_a_copy_the_model_ignores_is_no_partner():
    "Trees take the first of two equal columns and never the other: the first is needed, and dropping it for the other's sake would cost everything."
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(1200, 3)), columns=["x", "z", "noise"])
    X["twin"], y = X["x"], X["x"] + X["z"] + rng.normal(size=1200)
    found = importance(HistGradientBoostingRegressor(max_iter=30, random_state=0).fit(X[:600], y[:600]), X[600:], y[600:])
    assert found.to_frame().set_index("feature")["decision"].to_dict() == {"x": "needed", "z": "needed", "noise": "not shown to help", "twin": "not shown to help"}
    assert "does not use twin" in " ".join(found.notes) and found.clusters["decision"].tolist() == ["needed"]

class Sum(RegressorMixin, BaseEstimator):
    "Half of the parts, half of their sum, and next to nothing of its echo."
    def fit(self, X, y): return self
    def predict(self, X): return .5*(X["a"] + X["b"] + X["sum"]).to_numpy() + .01*X["echo"].to_numpy()

def test_the_partner_is_the_one_without_which_it_would_be_missed():
    "An echo looks more like the sum than its parts do; but it is the parts that tell the sum."
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(800, 2)), columns=["a", "b"])
    X["sum"] = X["a"] + X["b"]
    X["echo"], y = X["sum"] + .8*rng.normal(size=800), X["sum"] + rng.normal(size=800)
    told = association(X)
    assert told.loc["sum", "echo"] > told.loc["sum", ["a", "b"]].max()
    assert importance(Sum(), X, y).to_frame().set_index("feature").loc["sum", "decision"] in ("redundant with a", "redundant with b")

def test_conditional_test_holds_its_level():
    "A column that is null given the others is called needed in about 5 % of tables, not more."
    p = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=300)
        X, y = pd.DataFrame(dict(x=x, copy=x + .5*rng.normal(size=300))), x + rng.normal(size=300)
        from mlops_nb.features.conditional import conditional_importance
        model = Ridge(500.).fit(*(lambda r: (pd.DataFrame(dict(x=(a := r.normal(size=300)), copy=a + .5*r.normal(size=300))), a))(np.random.default_rng(1000 + seed)))
        D = conditional_importance(model, X, y, scoring=row_scorer(model, "r2", y).scorer, groups={"copy": ["copy"]}, random_state=seed, sampler="regression").importances
        p.append(estimate(D).p[0])
    assert np.mean(np.array(p) < .05) < .15

# --- intervals ---

def test_interval_covers(monkeypatch):
    X, y, _ = bench.friedman(0, 1000)
    model = HistGradientBoostingRegressor(max_iter=30, random_state=0).fit(X, y)
    true = bench.truth(model, 1, rows=20_000)
    got = np.mean([bench.covered(model, true, s, 300) for s in range(25)], axis=0)[:5].mean(axis=0)
    assert got[0] > .85 and got[1] < .75, got

def test_partner_is_that_of_the_permutation():
    "The lender whose rows the interval uses is the one whose value was borrowed."
    model, X, y, _ = linear(100)
    D = permutation_importance(model, X, y, scoring=row_scorer(model, "neg_mean_squared_error", y).scorer, n_repeats=3, random_state=7).importances
    rows, partner = _shuffles(np.random.RandomState(7).randint(np.iinfo(np.int32).max + 1), 100, 3, 100)
    moved = X.assign(x=X["x"].to_numpy()[partner[1]])
    assert rows is None and np.allclose(D[0, 1], (y - model.predict(moved))**2 - (y - model.predict(X))**2)

def test_days_widen_the_interval():
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(30), 40)
    D = (rng.normal(size=30)[day] + rng.normal(size=1200))[None, None]
    rows, days = estimate(D), estimate(D, units=day)
    assert days.se[0] > 3*rows.se[0]

@pytest.mark.parametrize("name", ["roc_auc", "accuracy", "neg_log_loss", "f1", "balanced_accuracy", "average_precision"])
def test_rows_add_up_to_the_score(name):
    X, y = make_classification(300, 5, random_state=0)
    model = LogisticRegression().fit(X, np.where(y == 1, "yes", "no"))
    y = np.where(y == 1, "yes", "no")
    if name in ("f1", "average_precision"): scoring = make_scorer(getattr(__import__("sklearn.metrics", fromlist=["x"]), name + "_score"), pos_label="yes", response_method="predict" if name == "f1" else "decision_function")
    else: scoring = name
    want = scoring(model, X, y) if callable(scoring) else get_scorer(name)(model, X, y)
    assert np.isclose(row_scorer(model, scoring, y).scorer(model, X, y).mean(), want, rtol=1e-9)

@pytest.mark.parametrize("name", ["roc_auc", "accuracy", "neg_log_loss", "neg_brier_score", "f1"])
def test_weights_of_a_score(name):
    "The weighted score, and a row of weight 2 acts as the row twice: the same error of the mean, of half as many rows."
    X, y = make_classification(400, 5, flip_y=.3, random_state=0)
    model, w = LogisticRegression().fit(X[:200], y[:200]), np.repeat([0., 1., 2.5], [50, 100, 50])
    rows = row_scorer(model, name, y[200:], sample_weight=w).scorer(model, X[200:], y[200:])
    assert np.isclose(rows.mean(), get_scorer(name)(model, X[200:], y[200:], sample_weight=w), rtol=1e-9)
    if name != "f1":
        left, kept = estimate(rows[None, None]), row_scorer(model, name, y[250:], sample_weight=w[50:]).scorer(model, X[250:], y[250:])
        assert np.allclose(rows[:50], rows.mean()) and np.isclose(left.se[0], estimate(kept[None, None]).se[0], rtol=.02)

def test_weights_decide():
    "Where only the rows of one half count, only the column of that half is needed."
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(2000, 2)), columns=["left", "right"]).assign(side=np.arange(2000) % 2)
    y = np.where(X["side"] == 0, X["left"], X["right"]) + .5*rng.normal(size=2000)
    model = HistGradientBoostingRegressor(max_iter=60, random_state=0).fit(X[:1000], y[:1000])
    held, w = X[1000:], (X[1000:]["side"] == 0).astype(float)
    table = importance(model, held, y[1000:], sample_weight=w, n_repeats=3).to_frame().set_index("feature")
    assert table.loc["left", "decision"] == "needed" and table.loc["right", "decision"] != "needed" and table.loc["left", "importance"] > .5 > .02 > table.loc["right", "importance"]
    refit = importance(model, held, y[1000:], sample_weight=w, train=(X[:1000], y[:1000], (X[:1000]["side"] == 0).astype(float)), method="drop-column").to_frame().set_index("feature")
    assert refit.loc["left", "decision"] == "needed" and refit.loc["right", "decision"] == "not shown to help"
    assert "not; pass train=(X, y, weights)" in " ".join(importance(model, held, y[1000:], sample_weight=w, train=(X[:1000], y[:1000]), method="drop-column").notes)

def test_heavy_tails_widen_the_interval():
    "A loss that comes from few rows is known from few rows."
    rng = np.random.default_rng(0)
    few, many = np.where(np.arange(400) < 4, 10., 0.) + rng.normal(size=400)*1e-3, rng.normal(size=400) + .1
    e = estimate(np.stack([few, many])[:, None])
    wide = (e.hi - e.value)/e.se
    assert wide[0] > 2.2 and 1.96 < wide[1] < 1.98 and e.p[0] > .03

# --- refusals and bad input ---

def test_no_better_than_a_dummy():
    model, X, y, _ = linear()
    for known_nothing in (DummyRegressor().fit(X, y), Ridge(1e12).fit(X, np.random.default_rng(0).normal(size=len(y)))):
        with pytest.raises(BadInput, match="no better than a dummy"): importance(known_nothing, X, y)

def test_training_rows():
    model, X, y, train = linear()
    with pytest.raises(BadInput, match="rows='training'"): importance(model, *train, train=train)
    found = importance(model, *train, train=train, rows="training", n_repeats=2)
    assert found.rows == "training" and "TRAINING ROWS" in found.title() and found.probe is not None

def test_training_beside_held_out():
    "A tree learns the noise by heart: worth a lot where it was learned, nothing elsewhere; the held-out numbers stay as they are."
    _, X, y, train = linear()
    model = HistGradientBoostingRegressor(max_iter=100, min_samples_leaf=2, random_state=0).fit(*train)
    both, held = importance(model, X, y, train=train, rows="both", n_repeats=2), importance(model, X, y, train=train, n_repeats=2)
    table = both.to_frame().set_index("feature")
    assert table.loc["noise", "training_lo"] > 0 and table.loc["noise", "decision"] == "not shown to help" and both.rows == "held-out" and "TRAINING ROWS" in " ".join(both.notes)
    assert both.to_frame()[list(held.to_frame())].equals(held.to_frame())

class Own(RegressorMixin, BaseEstimator):
    "A model that looks at places, not names."
    def fit(self, X, y): return self
    def predict(self, X): return np.asarray(X)[:, 0] + np.asarray(X)[:, 2]

class Bare:
    "Predicts, and knows nothing of scikit-learn."
    def predict(self, X): return np.asarray(X)[:, 0]

def bad():
    model, X, y, train = linear(100)
    yes = LogisticRegression().fit(X, y > 0)
    def raises(model, X, y): raise RuntimeError("no licence")
    return {
        "one row": (model, X[:1], y[:1], {}, "at least 20"), "one answer": (model, X, y*0, {}, "at least two different"), "other length": (model, X, y[:-1], {}, "one answer per row"),
        "NaN in y": (model, X, np.where(np.arange(100) == 3, np.nan, y), {}, "answers are missing"), "inf in y": (model, X, np.where(np.arange(100) == 3, np.inf, y), {}, "infinite"),
        "NaN in X": (model, X.mask(X > 2), y, {}, "cannot predict"), "inf in X": (model, X.assign(z=np.inf), y, {}, "cannot predict"),
        "twice": (model, X.rename(columns={"copy": "x"}), y, {}, "comes twice"), "lacks": (model, X.drop(columns="z"), y, {}, "lacks"), "too many": (model, X.assign(w=1), y, {}, "not trained on"),
        "order": (model, X[["z", "x", "copy", "noise"]], y, {}, "another order"), "not fitted": (Ridge(), X, y, {}, "not fitted"), "no predict": (object(), X, y, {}, "no predict"), "no estimator": (Bare(), X, y, {}, "no scikit-learn estimator"),
        "one inf": (model, X.assign(z=np.where(X.index == 7, np.inf, X["z"])), y, {}, "cannot predict"), "one inf, read": (Own(), X.assign(z=np.where(X.index == 7, np.inf, X["z"])), y, {}, "infinite|finite"),
        "weights length": (model, X, y, dict(sample_weight=[1, 2]), "one weight per row"), "weights below 0": (model, X, y, dict(sample_weight=-np.ones(100)), "negative"), "weights NaN": (model, X, y, dict(sample_weight=np.full(100, np.nan)), "negative, missing"),
        "weights 0": (model, X, y, dict(sample_weight=np.zeros(100)), "zeros only"), "weights are text": (model, X, y, dict(sample_weight=["a"]*100), "no list of numbers"),
        "weights unknown to the score": (model, X, y, dict(sample_weight=np.ones(100), scoring=lambda m, X, y: 1.), "weights it does not take"), "median and weights": (model, X, y, dict(sample_weight=np.ones(100), method="loco", train=train), "knows no weights"),
        "both without train": (model, X, y, dict(rows="both"), "pass train="), "both and refits": (model, X, y, dict(rows="both", train=train, method="null"), "rows='both'"), "train is a frame": (model, X, y, dict(train=train[0]), r"pass train=\(X, y\)"),
        "one column shape": (model, X["x"], y, {}, "rows and columns"), "unknown score": (model, X, y, dict(scoring="r3"), "did you mean"), "several scores": (model, X, y, dict(scoring=["r2"]), "several scores"),
        "score is a dict": (model, X, y, dict(scoring=lambda m, X, y: {"a": 1.}), "one finite number"), "score raises": (model, X, y, dict(scoring=raises), "no licence"),
        "score is NaN": (model, X, y, dict(scoring=lambda m, X, y: np.nan), "one finite number"), "auc of one class in a part": (yes, X, y > np.sort(y)[-2], dict(scoring="f1", cluster=np.arange(100)//20), "rows|dummy"),
        "cluster length": (model, X, y, dict(cluster=[1, 2]), "one per row"), "cluster of one": (model, X, y, dict(cluster=np.zeros(100)), "at least 3"), "cluster NaN": (model, X, y, dict(cluster=np.r_[np.nan, np.ones(99)]), "misses"),
        "group": (model, X, y, dict(groups={"g": ["x", "zz"]}), "no column 'zz'"), "two groups": (model, X, y, dict(groups={"g": ["x"], "h": ["x"]}), "in two groups"),
        "groups are a list": (model, X, y, dict(groups=[1, 2]), "name them"), "option": (model, X, y, dict(n_repeat=3), "did you mean 'n_repeats'"), "option of another method": (model, X, y, dict(n_refits=3), "no option 'n_refits'"),
        "text for a regressor": (model, X, np.where(y > 0, "late", "fine"), {}, "'late' is text|'fine' is text"), "yes and no for 0 and 1": (yes, X, np.where(y > 0, "yes", "no"), {}, "no class of the model"),
        "method": (model, X, y, dict(method="lofo"), "did you mean 'loco'"), "fdr": (model, X, y, dict(fdr=5), "outside 0..1"), "no repeats": (model, X, y, dict(n_repeats=0), "at least one shuffle"),
        "no train": (model, X, y, dict(method="boruta"), "pass train="), "no impurity": (model, X, y, dict(method="mdi"), "feature_importances_")}

@pytest.mark.parametrize("name", bad())
def test_bad_input_is_refused(name):
    model, X, y, options, match = bad()[name]
    with pytest.raises(BadInput, match=match): importance(model, X, y, **options)

def test_frames_arrays_and_strangers():
    "Constant column, categorical dtype, arrays, sparse, a model that is no estimator, a RandomState."
    model, X, y, train = linear(200)
    assert importance(Ridge().fit(X.assign(c=1), y), X.assign(c=1), y, n_repeats=2).to_frame().set_index("feature").loc["c", ["importance", "decision"]].tolist() == [0, "not shown to help"]
    plain = Ridge(30.).fit(train[0].to_numpy(), train[1])
    a, b = importance(plain, X.to_numpy(), y, n_repeats=2).to_frame(), importance(model, X, y, n_repeats=2).to_frame()
    assert np.allclose(a["importance"], b["importance"]) and set(a["feature"]) == {0, 1, 2, 3}
    assert importance(Own(), X, y, n_repeats=2).to_frame().set_index("feature").loc["z", "decision"] == "needed"
    state = np.random.RandomState(3)
    first, second = importance(model, X, y, n_repeats=2, seed=state), importance(model, X, y, n_repeats=2, seed=np.random.RandomState(3))
    assert first.to_frame().equals(second.to_frame()) and state.get_state()[2] == 1
    cats = X.assign(kind=pd.Categorical(np.where(X["z"] > 0, "up", "down")))
    boosted = HistGradientBoostingRegressor(max_iter=20).fit(cats[["x", "kind"]], y)
    assert importance(boosted, cats[["x", "kind"]], y, n_repeats=2).to_frame().set_index("feature").loc["kind", "decision"] == "needed"

def test_sparse_rows_are_made_dense_and_it_is_said(caplog):
    model, X, y, train = linear(200)
    plain = Ridge(30.).fit(sparse.csr_matrix(train[0].to_numpy()), train[1])
    found = importance(plain, sparse.csr_matrix(X.to_numpy()), y, n_repeats=2, train=(sparse.csr_matrix(train[0].to_numpy()), train[1]))
    assert np.allclose(found.to_frame()["importance"], importance(plain, X.to_numpy(), y, n_repeats=2).to_frame()["importance"]) and "X is sparse and was made dense" in found.notes and "made dense, 0 MB" in caplog.text

def test_one_class_in_a_fold_is_told():
    X, y = make_classification(300, 4, random_state=0)
    y = (np.arange(300) < 3).astype(int)
    with pytest.raises(BadInput, match="parts could be asked"): stability(LogisticRegression().fit(X, y), X, y, over="folds", n=5)

def test_one_hot_columns_are_one():
    rng = np.random.default_rng(0)
    city, x = rng.choice(["Rome", "Oslo", "Lima"], 800), rng.normal(size=800)
    X, y = pd.get_dummies(pd.DataFrame(dict(city=city, x=x))), 2*(city == "Rome") + x + rng.normal(size=800)
    found = importance(Ridge().fit(X[:400], y[:400]), X[400:], y[400:], n_repeats=2)
    assert set(found.to_frame()["feature"]) == {"city", "x"} and "3 one-hot columns count as city" in found.notes
    assert not one_hot_groups(pd.DataFrame(dict(a_x=[1, 1], a_y=[1, 0])))

def test_unread_columns_tell_nothing_and_keep_the_fast_way(caplog):
    "An id that would tell every other column is not read, so it must not make them redundant."
    from mlops_nb.features.build import pipeline
    rng = np.random.default_rng(0)
    X = pd.DataFrame(dict(id=[f"k{i}" for i in range(3000)], x=rng.normal(size=3000), town=rng.choice(list("abc"), 3000)))
    y = X["x"] + (X["town"] == "a") + rng.normal(size=3000)
    model = pipeline(X, HistGradientBoostingRegressor(max_iter=20, random_state=0)).fit(X[:1500], y[:1500])
    found = importance(model, X[1500:], y[1500:], n_repeats=2)
    assert found.to_frame()["decision"].tolist() == ["needed", "needed"] and found.notes == ("the model does not read id",) and "no fast way" not in caplog.text

# --- cost, stop ---

def test_ctrl_c_keeps_what_is_done(monkeypatch):
    from mlops_nb.features import importance as own
    model, X, y, _ = linear(200)
    monkeypatch.setattr(own, "_BYTES", 16*200*5*2)
    told = []
    def progress(done, of, left):
        told.append((done, of))
        if done == stop: raise KeyboardInterrupt
    whole = importance(model, X, y).to_frame()
    for stop, measured, decided in ((1, {"x", "copy"}, set()), (3, set(X), {"x", "copy"}), (4, set(X), set(X))):
        told.clear()
        part = importance(model, X, y, progress=progress)
        table = part.to_frame()
        assert told == [(k, 5) for k in range(stop + 1)] and part.partial == (len(decided) < 4) and set(table["feature"]) == measured and set(table["feature"][table["decision"] != "not decided"]) == decided
        both = table.merge(whole, on="feature")
        assert np.array_equal(both["importance_x"], both["importance_y"]) and (both["q_alone_x"] >= both["q_alone_y"]).all()
        assert part.clusters is None and ("not measured are z, noise" in " ".join(part.notes)) == (stop == 1) and ("measured alone only, and not decided, are z, noise" in " ".join(part.notes)) == (stop == 3)
        assert table.set_index("feature")["decision"].get("copy") == {1: "not decided", 3: "redundant with x", 4: "redundant with x"}[stop]

def test_same_seed_same_table(monkeypatch):
    "And the marginal part does not depend on how the work is cut."
    from mlops_nb.features import importance as own
    model, X, y, _ = linear(200)
    whole = importance(model, X, y, seed=4).to_frame()
    assert importance(model, X, y, seed=4).to_frame().equals(whole) and not importance(model, X, y, seed=5).to_frame().equals(whole)
    monkeypatch.setattr(own, "_BYTES", 16*200*5)
    alone = ["feature", "importance", "lo", "hi", "q_alone"]
    assert importance(model, X, y, seed=4).to_frame()[alone].equals(whole[alone])

# --- refits ---

@pytest.mark.parametrize("method, options", [("drop-column", {}), ("loco", {}), ("null", dict(n_refits=8)), ("boruta", dict(n_refits=8))])
def test_refits(method, options):
    model, X, y, train = linear(300)
    table = importance(Ridge().fit(*train), X, y, method=method, train=train, n_repeats=2, **options).to_frame().set_index("feature")
    assert table.loc["z", "decision"] == "needed" and table.loc["noise", "decision"] == "not shown to help" and (table["lo"] <= table["hi"]).all()

@pytest.mark.parametrize("method, options", [("permutation", {}), ("drop-column", {}), ("loco", {}), ("null", dict(n_refits=5)), ("boruta", dict(n_refits=5))])
def test_what_it_will_cost_is_said_before(method, options):
    _, X, y, train = linear(200)
    told = []
    importance(RandomForestRegressor(30, max_depth=4, random_state=0).fit(*train), X, y, method=method, train=train, n_repeats=2, progress=lambda *now: told.append(now), **options)
    assert told[0][0] == 0 and told[0][2] > 0 and told[-1][0] == told[-1][1]

def test_folds_keep_clusters_whole():
    "Every person's rows are alike and their answers too: split over folds, a column of who it is would look like knowledge."
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(60), 10)
    X = pd.DataFrame(dict(x=rng.normal(size=600), who=rng.permutation(60)[who].astype(float)))
    y = 2*X["x"] + 1.5*rng.normal(size=60)[who] + .5*rng.normal(size=600)
    model = RandomForestRegressor(30, min_samples_leaf=2, random_state=0).fit(X, y)
    whole, split = (stability(model, X, y, over="folds", n=3, n_repeats=2, **more).table.set_index("feature")["mean"] for more in (dict(cluster=who), {}))
    assert split["who"] > .1 and whole["who"] < .03 and whole["x"] > .5
    with pytest.raises(BadInput, match="folds of 600 rows, 4 clusters"): stability(model, X, y, over="folds", n=5, cluster=who//15)

def test_impurity_likes_many_values_and_decides_nothing():
    X, y, _ = bench.cardinality(0, 800)
    forest = RandomForestClassifier(30, random_state=0).fit(X[:400], y[:400])
    found = importance(forest, X[400:], y[400:], method="mdi")
    assert found.rows == "training" and set(found.to_frame()["decision"]) == {"not decided"} and "many values" in found.notes[-1]

# --- stability and change ---

def test_stability_and_change():
    model, X, y, train = linear(400)
    over = stability(model, X, y, over="time", by=pd.date_range("2024-01-01", periods=400, freq="h"), n=2, n_repeats=2)
    assert over.parts.shape == (4, 2) and over.agreement > .5 and set(over.table.query("needed == 1")["feature"]) >= {"z"}
    forest = RandomForestClassifier(10, max_depth=4, random_state=0).fit(train[0], train[1] > 0)
    assert stability(forest, X, y > 0, over="seeds", train=(train[0], train[1] > 0), n=2, n_repeats=2).agreement > .5
    with pytest.raises(BadInput, match="no random_state|every seed"): stability(Own(), X, y, over="seeds", train=train)
    before = importance(model, X, y)
    same, less = changed(before, before), changed(before, importance(Ridge(30.).fit(train[0].assign(z=0), train[1]), X, y))
    assert (same["change"] == 0).all() and (same["q"] == 1).all() and less.loc[0, "feature"] == "z" and less.loc[0, "q"] < 1e-6
    with pytest.raises(BadInput, match="scoring was"): changed(before, importance(model, X, y, scoring="neg_mean_absolute_error"))

def test_association_of_every_kind():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(dict(x=rng.normal(size=500), c=rng.choice(list("abc"), 500), t=pd.date_range("2020", periods=500), flag=rng.random(500) > .5, cat=pd.Categorical(rng.choice(list("uv"), 500)), gap=[np.nan]*500, one=1))
    told = association(X)
    assert np.isfinite(told.to_numpy()).all() and (told.to_numpy() >= 0).all() and max(map(len, cluster_columns(told))) == 1

def test_more_that_is_refused():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 3)), columns=list("abc"))
    y = X.a + X.b
    model = Ridge().fit(X, y)
    for bad, said in ((dict(X=sparse.csr_matrix((10_000_000, 1_000_000))), "sparse .* fewer rows"), (dict(seed="x"), "no RandomState"), (dict(train=(X[["a", "b"]], y), method="drop-column"), "lack column 'c'")):
        with pytest.raises(BadInput, match=said): importance(model, **{"X": X, "y": y, **bad})
    plain = importance(Ridge().fit(X.to_numpy(), y), X.to_numpy().tolist(), list(y), n_repeats=2).to_frame()
    assert set(plain.loc[plain["decision"] == "needed", "feature"]) == {0, 1}

def test_an_array_gets_the_names_of_the_training():
    X, y, _ = bench.friedman(0, 400)
    model = Ridge().fit(X[:200], y[:200])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = importance(model, X[200:].to_numpy(), y[200:])
    assert set(found.table["feature"]) == set(X.columns)
