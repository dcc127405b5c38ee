"SHAP values against their definition, against the shap package, and against the model; and what cannot be explained."
import itertools, math, re, subprocess, sys, warnings

import numpy as np, pandas as pd, pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, GradientBoostingClassifier, GradientBoostingRegressor, HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mlops_nb.core.finding import BadInput
from mlops_nb.features.explain import _answers, explain, explain_pairs, to_shap
from mlops_nb.features.shapley import leaf_weights

@pytest.fixture(autouse=True, scope="module")
def one_thread():
    "Small predictions, many of them: threads would only wait for each other."
    from threadpoolctl import threadpool_limits
    with threadpool_limits(1): yield

rng = np.random.default_rng(0)
N = 300
FRAME = pd.DataFrame({"a": rng.normal(size=N), "b": rng.integers(0, 5, N).astype(float), "word": rng.choice(["x", "y", "z"], N), "c": rng.normal(size=N)})
FRAME.loc[rng.random(N) < .1, "c"] = np.nan
NUMBER = FRAME["a"]*FRAME["b"] + (FRAME["word"] == "y")*2 + FRAME["c"].fillna(1)
CLASS = np.where(NUMBER > 1, "late", "on time")
THREE = pd.cut(NUMBER, 3, labels=False).to_numpy()

def piped(model): return make_pipeline(make_column_transformer((OneHotEncoder(sparse_output=False), ["word"]), (SimpleImputer(add_indicator=True), ["c"]), remainder="passthrough"), model)

def by_definition(ask, row, back):
    "Every order of the columns, written out; `ask` gives the answer."
    p, out = row.shape[1], np.zeros(row.shape[1])
    value = {}
    for size in range(p + 1):
        for team in itertools.combinations(range(p), size):
            mix = back.copy()
            for j in team: mix[mix.columns[j]] = np.repeat(row.iloc[:, j].array, len(mix))
            value[team] = ask(mix).mean()
    for j in range(p):
        for team in value:
            if j not in team: out[j] += math.factorial(len(team))*math.factorial(p - len(team) - 1)/math.factorial(p)*(value[tuple(sorted((*team, j)))] - value[team])
    return out

TREES = {
    "hist": (piped(HistGradientBoostingRegressor(max_iter=15)), NUMBER, None), "hist classes": (piped(HistGradientBoostingClassifier(max_iter=10)), CLASS, None),
    "hist first class": (piped(HistGradientBoostingClassifier(max_iter=10)), CLASS, "late"), "hist three": (piped(HistGradientBoostingClassifier(max_iter=5)), THREE, 1),
    "hist poisson": (piped(HistGradientBoostingRegressor(loss="poisson", max_iter=10)), NUMBER - NUMBER.min(), None),
    "forest": (piped(RandomForestRegressor(8, random_state=0)), NUMBER, None), "forest classes": (piped(RandomForestClassifier(8, random_state=0)), THREE, 2),
    "extra": (piped(ExtraTreesClassifier(8, random_state=0)), CLASS, None), "boosting": (piped(GradientBoostingClassifier(n_estimators=10)), CLASS, None),
    "boosting number": (piped(GradientBoostingRegressor(n_estimators=10)), NUMBER, None), "tree": (piped(DecisionTreeRegressor(max_depth=6)), NUMBER, None),
    "tree classes": (piped(DecisionTreeClassifier(max_depth=6)), CLASS, "late"), "two answers": (piped(RandomForestRegressor(5, random_state=0)), np.c_[NUMBER, -NUMBER**2], 1),
    "linear": (piped(LinearRegression()), NUMBER, None), "two lines": (piped(Ridge()), np.c_[NUMBER, -NUMBER**2], 1), "logistic": (piped(LogisticRegression()), CLASS, None),
    "logistic first": (piped(LogisticRegression()), CLASS, "late"), "logistic three": (piped(LogisticRegression()), THREE, 2),
}

@pytest.mark.parametrize("name", TREES)
def test_values_are_those_of_the_definition(name):
    model, y, of = TREES[name]
    model.fit(FRAME, y)
    e = explain(model, FRAME[:3], background=FRAME[50:90], of=of)
    assert e.method == ("linear" if name.split()[0] in ("linear", "logistic") or name == "two lines" else "trees")
    from mlops_nb.features.explain import _which
    which = _which(model, FRAME, of)
    ask = lambda X: which.sign*_answers(model, X)[:, which.column]
    for i in range(3): np.testing.assert_allclose(e.values[i], by_definition(ask, FRAME[i:i+1], FRAME[50:90]), atol=1e-9)
    np.testing.assert_allclose(e.base + e.values.sum(axis=1), ask(FRAME[:3]), atol=1e-9)

def test_categories_and_missing_values_of_the_model_itself():
    X = FRAME.assign(word=FRAME["word"].astype("category"))
    model = HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=20).fit(X, NUMBER)
    e = explain(model, X[:3], background=X[50:90])
    assert e.method == "trees" and e.gap < 1e-9
    for i in range(3): np.testing.assert_allclose(e.values[i], by_definition(model.predict, X[i:i+1], X[50:90]), atol=1e-9)

def test_same_numbers_as_shap():
    shap = pytest.importorskip("shap")
    X, back = rng.normal(size=(40, 6)), rng.normal(size=(60, 6))
    model = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(rng.normal(size=(300, 6)), rng.normal(size=300))
    theirs = shap.TreeExplainer(model, shap.maskers.Independent(back, max_samples=60)).shap_values(X)
    ours = explain(model, X, background=back)
    np.testing.assert_allclose(ours.values, theirs, atol=1e-5)
    assert np.allclose(to_shap(ours).values, theirs, atol=1e-5)

def test_blocks_threads_and_deep_trees_agree():
    "More rows than one block, more background than a block, paths with more players than are remembered."
    X = rng.normal(size=(20_000, 24))
    y = X @ rng.normal(size=24) + rng.normal(size=20_000)
    model = RandomForestRegressor(2, max_depth=18, min_samples_leaf=2, random_state=0).fit(X[:2000], y[:2000])
    few = explain(model, X[:40], background=X[500:530])
    assert few.gap < 1e-9 and np.allclose(few.values, explain(model, X[:40], background=X[500:530], n_jobs=3).values)
    hist = HistGradientBoostingRegressor(max_iter=8, random_state=0).fit(X[:4000], y[:4000])
    whole = explain(hist, X, background=X[:300], n_jobs=2)
    assert whole.gap < 1e-9 and np.allclose(whole.values[19_990:], explain(hist, X[19_990:], background=X[:300]).values)

def test_weights_share_out_the_whole_leaf():
    gain, loss = leaf_weights(20)
    for a in range(20):
        for b in range(20):
            if a + b: assert np.isclose(a*gain[a, b] - b*loss[a, b], 1. if b == 0 else -1. if a == 0 else 0., atol=1e-9)

# --- any other model ---

def test_ask_handles_words_dates_and_missing_values_and_says_what_it_draws():
    X = FRAME.assign(when=pd.date_range("2024-01-01", periods=N, freq="h"))
    from sklearn.preprocessing import FunctionTransformer
    model = make_pipeline(FunctionTransformer(_with_hour), make_column_transformer((OneHotEncoder(), ["word"]), (SimpleImputer(), ["a", "c"]), sparse_threshold=0), GaussianNB()).fit(X, CLASS)
    with pytest.warns(UserWarning, match="100 of 300 background rows are drawn"): e = explain(model, X[:6], background=X)
    assert e.method == "ask" and e.of == "probability of on time" and e.background == 100 and e.note == "100 of 300 background rows drawn with seed 0" and e.gap < 1e-9
    assert {f.check for f in e.findings()} == {"additivity", "background"} and e.values[:, list(X).index("when")].any() and not e.values[:, list(X).index("b")].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = explain(model, X[:6], background=X[:100])
    np.testing.assert_allclose(quiet.values, explain(model, X[:6], background=X[:100]).values)

def _with_hour(d): return d.assign(a=d["a"] + d["when"].dt.hour)

def test_ask_is_exact_for_few_columns_and_close_for_many():
    model = piped(HistGradientBoostingRegressor(max_iter=20)).fit(FRAME, NUMBER)
    np.testing.assert_allclose(explain(model, FRAME[:10], FRAME[:60]).values, explain(model, FRAME[:10], FRAME[:60], method="ask").values, atol=1e-9)
    X = pd.DataFrame(rng.normal(size=(400, 12)))
    wide = HistGradientBoostingRegressor(max_iter=30).fit(X, X[0]*X[1] + X[2] + X[3])
    exact, asked = explain(wide, X[:20], X[:50]), explain(wide, X[:20], X[:50], method="ask")
    assert "20 random orders" in asked.note and asked.gap < 1e-9 and asked.findings()[1].note == asked.note
    assert np.abs(exact.values - asked.values).max() < .1*np.abs(exact.values).max()

def test_a_search_is_explained_by_its_best_and_a_wrong_line_falls_back_aloud():
    X = FRAME[["a", "b"]]
    found = explain(GridSearchCV(DecisionTreeRegressor(), {"max_depth": [2, 3]}).fit(X, NUMBER), X[:5], background=X)
    assert found.method == "trees"
    poisson = PoissonRegressor().fit(X, NUMBER - NUMBER.min())
    with pytest.warns(UserWarning, match="does not add up for PoissonRegressor"): e = explain(poisson, X[:5], background=X[:50])
    assert e.method == "ask" and e.gap < 1e-9

def test_path_dependent_values_are_checked():
    pytest.importorskip("shap")
    X = FRAME[["a", "b"]]
    e = explain(GradientBoostingRegressor(n_estimators=20).fit(X, NUMBER), X[:5], method="path")
    assert e.method == "path by shap" and e.background == 0 and e.gap < 1e-6
    folded = explain(piped(RandomForestRegressor(5)).fit(FRAME, NUMBER), FRAME[:5], method="path")
    assert folded.values.shape == (5, 4) and folded.gap < 1e-6
    X = FRAME.assign(word=FRAME["word"].astype("category"))
    cats = HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=20).fit(X, NUMBER)
    with pytest.raises(BadInput): explain(cats, X[:20], method="path")

def test_without_shap_the_way_out_is_said():
    code = """import sys; sys.modules["shap"] = None
import numpy as np
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeRegressor
from mlops_nb.features.explain import explain
X = np.random.default_rng(0).normal(size=(30, 2))
assert explain(DecisionTreeRegressor().fit(X, X[:, 0]), X).gap < 1e-9
assert explain(GaussianNB().fit(X, X[:, 0] > 0), X).gap < 1e-9
try: explain(DecisionTreeRegressor().fit(X, X[:, 0]), X, method="path")
except ValueError as e: print(e)"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs shap" in out.stdout and "pip install 'mlops_nb[explain]'" in out.stdout, out.stderr

# --- pairs ---

def mixtures(model, X, back):
    "(rows, columns, columns) by the definition: what a pair adds to every team of the others."
    from itertools import combinations
    from math import comb
    p, out = X.shape[1], np.zeros((len(X), X.shape[1], X.shape[1]))
    for r in range(len(X)):
        worth = {t: model.predict(back.assign(**{c: X[c].iloc[[r]*len(back)].array for c in t})).mean() for k in range(p + 1) for t in combinations(X, k)}
        ask = lambda *names: worth[tuple(c for c in X if c in names)]
        for i, j in combinations(range(p), 2):
            a, b, rest = X.columns[i], X.columns[j], [c for k, c in enumerate(X) if k not in (i, j)]
            out[r, i, j] = sum((ask(a, b, *t) - ask(a, *t) - ask(b, *t) + ask(*t))/(2*(p - 1)*comb(p - 2, k)) for k in range(p - 1) for t in combinations(rest, k))
    return out + out.transpose(0, 2, 1)

@pytest.mark.parametrize("last", [HistGradientBoostingRegressor(max_iter=15), RandomForestRegressor(4, max_depth=6, random_state=0), GradientBoostingRegressor(n_estimators=10), DecisionTreeRegressor(max_depth=8)], ids=lambda m: type(m).__name__)
def test_pairs_are_those_of_the_definition(last):
    model = piped(last).fit(FRAME, NUMBER)
    e = explain_pairs(model, FRAME[:4], FRAME[50:80])
    off = e.values*(1 - np.eye(FRAME.shape[1]))
    np.testing.assert_allclose(off, mixtures(model, FRAME[:4], FRAME[50:80]), atol=1e-9)
    np.testing.assert_allclose(e.values.sum(axis=2), explain(model, FRAME[:4], FRAME[50:80]).values, atol=1e-9)
    assert e.gap < 1e-9 and all(f.ok for f in e.findings()) and len(e.to_frame()) == 6

def test_pairs_agree_with_shap_where_the_game_is_the_same():
    shap = pytest.importorskip("shap")
    grid = pd.DataFrame(np.array(np.meshgrid(*[[0., 1., 2.]]*4)).reshape(4, -1).T, columns=list("abcd"))     # a full grid: what the nodes counted is what independent columns give
    tree = DecisionTreeRegressor().fit(grid, grid.a*grid.b + grid.c*(grid.d > 0) + grid.a)
    np.testing.assert_allclose(explain_pairs(tree, grid[:20], grid).values, shap.TreeExplainer(tree).shap_interaction_values(grid[:20].to_numpy()), atol=1e-9)

def test_pairs_of_classes_many_players_lines_and_anything_small():
    X = pd.DataFrame(rng.normal(size=(400, 14)))
    deep = ExtraTreesRegressor(3, random_state=0).fit(X, X[0]*X[1] + X.iloc[:, 2:].sum(axis=1))      # more players on a path than the memo keeps
    np.testing.assert_allclose(explain_pairs(deep, X[:5], X[:40], n_jobs=2).values.sum(axis=2), explain(deep, X[:5], X[:40]).values, atol=1e-9)
    model = piped(HistGradientBoostingClassifier(max_iter=5)).fit(FRAME, NUMBER > 0)
    np.testing.assert_allclose(explain_pairs(model, FRAME[:5], FRAME[:40], of=False).values, -explain_pairs(model, FRAME[:5], FRAME[:40], of=True).values)
    from sklearn.neighbors import KNeighborsRegressor
    near = KNeighborsRegressor(5).fit(FRAME[["a", "b"]], NUMBER)
    found = explain_pairs(near, FRAME[["a", "b"]][:6], FRAME[["a", "b"]][:30])
    np.testing.assert_allclose(found.values*(1 - np.eye(2)), mixtures(near, FRAME[["a", "b"]][:6], FRAME[["a", "b"]][:30]), atol=1e-9)
    assert not (explain_pairs(Ridge().fit(FRAME[["a", "b"]], NUMBER), FRAME[["a", "b"]]).values*(1 - np.eye(2))).any()
    with pytest.raises(BadInput, match="512 mixtures"): explain_pairs(KNeighborsRegressor().fit(X.iloc[:, :9], X[0]), X.iloc[:, :9][:3], X.iloc[:, :9][:20])
    with pytest.raises(BadInput, match=r"take 4\.3 GB; pass fewer rows, such as X.sample\(69,444"): explain_pairs(deep, pd.DataFrame(np.zeros((600_000, 30), dtype="int8")))

# --- bad input ---

MODEL = piped(HistGradientBoostingClassifier(max_iter=5)).fit(FRAME, THREE)

@pytest.mark.parametrize("change, words", [
    (dict(X=FRAME.drop(columns="word")), "no column 'word'"), (dict(X=FRAME.rename(columns={"word": "wrod"})), "did you mean 'wrod'"),
    (dict(X=FRAME[:0]), "X has 0 rows"), (dict(X=pd.concat([FRAME, FRAME[["a"]]], axis=1)), "'a' of X comes twice"), (dict(X=np.zeros(4)), "give rows and columns"),
    (dict(X=np.zeros((3, 9))), "9 columns, and 4 names are known"), (dict(of=None), "which of the 3 classes? pass of=0, of=1, of=2"), (dict(of="late"), "of='late' is none of the 3 classes"),
    (dict(method="magic"), "unknown method 'magic'"), (dict(method="linear"), "cannot read HistGradientBoostingClassifier"), (dict(background=FRAME[:0]), "the background has 0 rows"),
    (dict(X=FRAME[:1], background=None), "one row compared with itself")])
def test_bad_input_is_named(change, words):
    given = dict(X=FRAME[:5], background=FRAME[:40], of=1) | change
    with pytest.raises(BadInput, match=re.escape(words)): explain(MODEL, **given)

def test_models_that_cannot_answer():
    from scipy.sparse import csr_matrix
    X = FRAME[["a", "b"]]
    with pytest.raises(BadInput, match="no predict"): explain(StandardScaler().fit(X), X)
    with pytest.raises(BadInput, match="NotFittedError"): explain(Ridge(), X)
    hole = X.assign(a=X["a"].mask(X.index == 7), b=X["b"].where(X["b"] > 1, np.inf))
    for given in (dict(X=hole), dict(X=X, background=hole)):
        with pytest.raises(BadInput, match=r"Ridge does not answer for (X|the background) \(ValueError: Input X contains .* 'a' \(1\), 'b' \(.*put a SimpleImputer before it"): explain(Ridge().fit(X, NUMBER), **given)
    with pytest.raises(BadInput, match="pass rows like those"): explain(Ridge().fit(X, NUMBER), X.assign(a="word"))
    assert explain(Ridge().fit(X, NUMBER), csr_matrix(X.to_numpy())).gap < 1e-9
    with pytest.raises(BadInput, match="pass of=0 to of=1"): explain(Ridge().fit(X, np.c_[NUMBER, NUMBER]), X)
    with pytest.raises(BadInput, match="2 answers at once"): explain(DecisionTreeClassifier().fit(X, np.c_[THREE, THREE]), X)
    with pytest.raises(BadInput, match="row 9 is not among the 5"): explain(MODEL, FRAME[:5], FRAME[:40], of=1).row(9)

def test_one_row_a_constant_column_and_another_order_are_fine():
    X = FRAME.assign(same=1.)[["same", "a", "b"]]
    model = HistGradientBoostingRegressor(max_iter=10).fit(X, NUMBER)
    one = explain(model, X[7:8][["b", "a", "same"]], background=X)
    assert list(one.X) == list(X) and one.values[0, 0] == 0 and one.gap < 1e-9 and len(one.to_frame()) == 3 and one.to_frame()["lo"].notna().all()
    assert np.allclose(one.values, explain(model, X, background=X).values[7])

def test_pictures_are_still_and_safe():
    from mlops_nb.pages import effects
    X = FRAME.rename(columns={"word": "<script>alert(1)</script>"}).assign(when=pd.date_range("2024-01-01", periods=N, freq="h"))
    X.loc[5, "when"] = pd.NaT
    from mlops_nb.features.build import pipeline
    e = explain(pipeline(X, HistGradientBoostingRegressor(max_iter=10)).fit(X, NUMBER), X)
    drawn = [effects.bar(e), effects.bar(e, top=2), effects.beeswarm(e, most=50), effects.waterfall(e, 5), effects.waterfall(explain(MODEL, FRAME[:2], FRAME, of=1), 0, top=2)]
    drawn += [effects.dependence(e, c, colour_by="a") for c in X] + [effects.dependence(e, "when", by=b) for b in ("hour", "weekday", "month")]
    assert all(d.startswith("<svg") and "<script" not in d and "nan" not in d and len(d) < 50_000 for d in drawn)
    import xml.dom.minidom
    for d in drawn: xml.dom.minidom.parseString(d)
    for wrong in (dict(column="wrod"), dict(column="a", by="hour"), dict(column="when", by="year")):
        with pytest.raises(BadInput): effects.dependence(e, **wrong)
    together = explain_pairs(pipeline(X, HistGradientBoostingRegressor(max_iter=10)).fit(X, NUMBER), X[:50])
    for heat in (effects.pairs(together), effects.pairs(together, top=2), effects.pairs(explain_pairs(Ridge().fit(FRAME[["a", "b"]], NUMBER), FRAME[["a", "b"]])), effects.pairs(explain_pairs(Ridge().fit(FRAME[["a"]], NUMBER), FRAME[["a"]]))):
        xml.dom.minidom.parseString(heat)
        assert "<script" not in heat and "nan" not in heat
    assert "No two columns work together" in heat
    still = DecisionTreeRegressor().fit(FRAME[["a"]], np.ones(N))
    nothing = explain(still, FRAME[["a"]])
    assert all(d.startswith("<svg") and "nan" not in d for d in (effects.bar(nothing), effects.beeswarm(nothing), effects.waterfall(nothing), effects.dependence(nothing, "a")))
