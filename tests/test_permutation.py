"Permutation importance: the very same numbers as scikit-learn's, whatever the model, the data and the scorer."
import logging, sys, types
import numpy as np, pandas as pd, pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import (ExtraTreesClassifier, ExtraTreesRegressor, GradientBoostingClassifier, GradientBoostingRegressor, HistGradientBoostingClassifier,
                              HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor)
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance as theirs
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, PolynomialFeatures, StandardScaler, TargetEncoder
from mlops_nb.core.finding import BadInput
from mlops_nb.features import permutation
from mlops_nb.features.permutation import permutation_importance as ours

N = 400
X, Y3 = make_classification(N, 8, n_informative=5, n_classes=3, random_state=0)
Y2, NUMBER = (Y3 == 1).astype(int), np.exp(.5*X[:, 0] + .2*X[:, 1])
GAPS = np.where(np.random.RandomState(0).rand(*X.shape) < .1, np.nan, X)
WEIGHT = np.random.RandomState(1).rand(N)
MIXED = pd.DataFrame(GAPS[:, :5], columns=list("abcde"), index=np.arange(N)[::-1]).assign(
    kind=pd.Categorical(np.random.RandomState(2).choice(list("xyzwv"), N)), place=pd.Categorical(np.random.RandomState(3).choice(30, N)),
    day=pd.to_datetime("2013-01-01") + pd.to_timedelta(np.arange(N), "D"))
MIXED.loc[::7, "kind"] = None
TREES = {"hgb": HistGradientBoostingClassifier(max_iter=8), "forest": RandomForestClassifier(6, random_state=0), "extra": ExtraTreesClassifier(6, random_state=0),
         "boosted": GradientBoostingClassifier(n_estimators=6, random_state=0)}

@pytest.fixture(autouse=True)
def always_fast(monkeypatch, caplog):
    "Small tasks would take the plain way; and a fast way that gave up must not pass unseen."
    for name in ("_COMPILE", "_LOAD", "_WORTH"): monkeypatch.setattr(permutation, name, 0)
    permutation._said.clear()

@pytest.fixture
def walked(monkeypatch):
    "Which calls were answered by the fast way."
    seen, fast = [], permutation._fast
    monkeypatch.setattr(permutation, "_fast", lambda *a: seen.append(r := fast(*a)) or r)
    return seen

def same(model, X, y, fast=None, **how):
    how = dict(n_repeats=3, random_state=7) | how
    a, b = theirs(model, X, y, **{k: v for k, v in how.items() if k != "n_jobs"}), ours(model, X, y, **how)
    for one, two in ([(a, b)] if "importances" in a else [(a[k], b[k]) for k in a]):
        assert set(one) == set(two)
        for name in one: np.testing.assert_array_equal(one[name], two[name])
    if fast is not None: assert bool(fast[-1] is not None) and not permutation._said

@pytest.mark.parametrize("how", [{}, dict(scoring="neg_log_loss"), dict(scoring=["accuracy", "roc_auc_ovr"], sample_weight=WEIGHT), dict(max_samples=.5), dict(max_samples=50, n_jobs=2),
                                 dict(n_jobs=2, scoring="roc_auc_ovo"), dict(n_repeats=40, max_samples=60), dict(random_state=123)], ids=" ".join)
@pytest.mark.parametrize("kind", TREES)
def test_trees(kind, how, walked): same(clone(TREES[kind]).fit(X, Y3), X, Y3, walked, **how)

@pytest.mark.parametrize("kind", TREES)
def test_two_classes_frames_and_words(kind, walked):
    frame, words = pd.DataFrame(X, columns=list("abcdefgh")), np.where(Y2 == 1, "late", "fine")
    same(clone(TREES[kind]).fit(frame, words), frame, words, walked, scoring="roc_auc")
    same(clone(TREES[kind]).fit(np.asfortranarray(X), words), np.asfortranarray(X), words, walked)

@pytest.mark.parametrize("kind", ["hgb", "forest", "extra"])
def test_missing_values(kind, walked):
    same(clone(TREES[kind]).fit(GAPS, Y3), GAPS, Y3, walked)
    same(clone(TREES[kind]).fit(X, Y3), GAPS if kind == "hgb" else X, Y3, walked)         # missing only now

@pytest.mark.parametrize("model", [HistGradientBoostingRegressor(loss="poisson", max_iter=8), HistGradientBoostingRegressor(loss="quantile", quantile=.3, max_iter=8),
                                   RandomForestRegressor(6), ExtraTreesRegressor(6), GradientBoostingRegressor(n_estimators=6, loss="huber")], ids=str)
def test_regressions(model, walked):
    same(model.fit(X, NUMBER), X, NUMBER, walked)
    same(model, X, NUMBER, walked, scoring=["r2", "neg_mean_absolute_error"], sample_weight=WEIGHT)

def test_several_answers(walked):
    both = np.c_[NUMBER, X[:, 2]*X[:, 3]]
    for model in (RandomForestRegressor(5), ExtraTreesRegressor(5)): same(model.fit(GAPS, both), GAPS, both, walked)
    labels = np.c_[Y2, Y3 > 0].astype(int)
    same(RandomForestClassifier(5).fit(X, labels), X, labels, walked)

@pytest.mark.parametrize("early", [False, True])
def test_categories_of_a_histogram_model(early, walked):
    frame = MIXED.drop(columns="day")[["place", "a", "b", "kind", "c"]]
    model = HistGradientBoostingClassifier(max_iter=15, categorical_features="from_dtype", early_stopping=early, random_state=0).fit(frame, Y3)
    same(model, frame, Y3, walked)
    numbers = frame.assign(place=frame.place.cat.codes, kind=frame.kind.cat.codes.replace(-1, np.nan)).to_numpy(float)
    model = HistGradientBoostingClassifier(max_iter=15, categorical_features=[0, 3]).fit(numbers[:300], Y3[:300])
    numbers[350:, 0] = 77                                                                   # a category nobody has seen
    same(model, numbers, Y3, walked)

def columns(kind):
    dense = kind != "sparse"
    parts = ((make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), list("abc")), (FunctionTransformer(np.cbrt), ["d", "e"]), (TargetEncoder(), ["place"]),
             (OneHotEncoder(handle_unknown="ignore", sparse_output=not dense), ["kind"]), (FunctionTransformer(lambda d: d.apply(lambda s: s.dt.dayofweek).astype(float)), ["day"]))
    made = make_column_transformer(*parts, sparse_threshold=0 if dense else 1)
    return made.set_output(transform="pandas") if kind == "frame" else made

@pytest.mark.parametrize("kind", ["dense", "sparse", "frame"])
@pytest.mark.parametrize("last", [LogisticRegression(), SGDClassifier(random_state=0), RidgeClassifier(), RandomForestClassifier(5, random_state=0), KNeighborsClassifier(),
                                  GradientBoostingClassifier(n_estimators=5)], ids=lambda m: type(m).__name__)
def test_behind_a_column_transformer(last, kind, walked):
    frame, y = MIXED.assign(**{c: MIXED[c].fillna(0) for c in "de"})[:240], Y3[:240]
    model = make_pipeline(columns(kind), last).fit(frame, y)
    same(model, frame, y, walked, n_repeats=2)
    if hasattr(model, "predict_proba"): same(model, frame, y, walked, scoring=["neg_log_loss", "accuracy"], max_samples=.6, n_jobs=2, n_repeats=2)

@pytest.mark.parametrize("last", [LinearRegression(), Ridge(), HistGradientBoostingRegressor(max_iter=5)], ids=lambda m: type(m).__name__)
def test_pipelines_of_numbers(last, walked):
    for data in (GAPS, np.asfortranarray(GAPS), pd.DataFrame(GAPS).add_prefix("x"), GAPS.astype(np.float32)):
        same(make_pipeline(SimpleImputer(), StandardScaler(), last).fit(data, NUMBER), data, NUMBER, walked)
    same(make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), "passthrough", last)).fit(X, NUMBER), X, NUMBER, walked, scoring="neg_median_absolute_error")

@pytest.mark.parametrize("library, names", [("lightgbm", "LGBM"), ("xgboost", "XGB")])
def test_boosters_within_a_millionth(library, names, walked):
    made = pytest.importorskip(library)
    quiet = dict(n_estimators=10, n_jobs=1) | (dict(verbose=-1) if library == "lightgbm" else {})
    for data in (X, GAPS):
        for kind, y, scoring in (("Classifier", Y3, "neg_log_loss"), ("Classifier", Y2, None), ("Classifier", Y2, "roc_auc"), ("Regressor", NUMBER, None)):
            model = getattr(made, names + kind)(**quiet).fit(data, y)
            how = dict(scoring=scoring, random_state=0, n_repeats=2)
            np.testing.assert_allclose(ours(model, data, y, **how).importances, theirs(model, data, y, **how).importances, rtol=0, atol=1e-6)
            assert walked[-1] is not None and not permutation._said

def test_own_scorers_see_the_shuffled_rows(walked):
    def by_group(model, X, y): return {"left": model.score(X[X[:, 0] < 0], y[X[:, 0] < 0]), "all": model.predict_proba(X)[:, 1].mean() + X[:, 2] @ np.arange(len(X))}
    for model in (TREES["hgb"], TREES["forest"], make_pipeline(StandardScaler(), LogisticRegression())): same(clone(model).fit(X, Y2), X, Y2, walked, scoring=by_group)

def test_unused_columns_are_exactly_zero(walked):
    wide = np.c_[X, np.zeros(N), np.random.RandomState(0).rand(N)]
    model = RandomForestClassifier(3, max_depth=1, random_state=0).fit(wide, Y2)
    unused = [c for c in range(10) if not any(c in t.tree_.feature for t in model.estimators_)]
    assert len(unused) > 3 and (ours(model, wide, Y2, random_state=0).importances[unused] == 0).all()
    same(model, wide, Y2, walked)

def test_buffers_in_pieces_change_nothing(monkeypatch, walked):
    from mlops_nb.features import replay, spill
    for sums, rows, memory, disk in ((1, 100, (0, 0), 8*N*3*4), (10_000, 150, (0, 0), 10**9), (1, 7, (10**9, 10**9), 10**9)):
        for name, value in dict(_MEMORY=memory, _DISK=disk).items(): monkeypatch.setattr(spill, name, value)
        for name, value in dict(_SUMS=sums, _PIECE=rows).items(): monkeypatch.setattr(replay, name, value)
        for kind in ("hgb", "forest"): same(TREES[kind].fit(GAPS, Y3), GAPS, Y3, walked, n_repeats=5, n_jobs=2)

def test_tables_in_pieces_keep_every_bit(monkeypatch, walked):
    from mlops_nb.features import replay, spill
    wide = np.c_[np.repeat([0., 255], 200), np.r_[np.zeros(300), np.full(100, .5)], np.r_[np.ones(399), np.nan], np.full(N, -0.), np.full(N, 256.), np.arange(N) % 7]
    for order, rows, memory in (("C", 150, 0), ("F", 90, 10**9), ("C", 1, 10**9)):
        monkeypatch.setattr(spill, "_MEMORY", (memory, memory))
        table = spill.Table(N, np.asarray(wide[:rows], order=order), wide.nbytes)
        for a in range(0, N, rows): table.put(a, wide[a:a + rows])
        assert table.small.tolist() == [True, False, False, False, False, True] and table.rows().tobytes() == wide.tobytes() and table.rows().flags[f"{order}_CONTIGUOUS"]
        assert table.rows(np.array([399, 3])).tobytes() == wide[[399, 3]].tobytes() and np.asarray(table, float).shape == wide.shape
        monkeypatch.setattr(replay, "_PIECE", rows)
        frame = MIXED[:240].assign(**{c: MIXED[c].fillna(0) for c in "de"})
        for last in (LogisticRegression(), KNeighborsClassifier()):
            same(make_pipeline(columns("dense"), last).fit(frame, Y3[:240]), frame, Y3[:240], walked if rows > 1 else None, scoring=["accuracy", "neg_log_loss"], n_repeats=2, n_jobs=2)
    with pytest.raises(ValueError, match="5 columns"): table.put(0, wide[:, 1:])

def test_groups_move_together(walked):
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    for model in (TREES["forest"], TREES["hgb"], make_pipeline(StandardScaler(), LogisticRegression()), KNeighborsClassifier()):
        model = clone(model).fit(frame, Y3)
        found = ours(model, frame, Y3, groups={"pair": ["a", "b"], "c": "c", "overlap": ["b", 3]}, random_state=0)
        want = permutation._plainly(model, frame, Y3, None, np.random.RandomState(0).randint(2**31), 5, lambda m, X, y: m.score(X, y), N, [[0, 1], [2], [1, 3]], None)
        assert found.groups == ["pair", "c", "overlap"] and np.array_equal(found.importances, model.score(frame, Y3) - np.array(want))
    alone = ours(model, frame, Y3, groups=[[c] for c in frame], random_state=0)
    np.testing.assert_array_equal(alone.importances, ours(model, frame, Y3, random_state=0).importances)

@pytest.mark.parametrize("groups", [{}, {"p": []}, {"p": ["z"]}, {"p": [99]}])
def test_groups_that_are_not_there(groups):
    with pytest.raises(BadInput): ours(LinearRegression().fit(X, NUMBER), X, NUMBER, groups=groups)
    with pytest.raises(BadInput, match="twice"): ours(LinearRegression().fit(X, NUMBER), pd.DataFrame(X, columns=list("aabcdefg")), NUMBER, groups={"p": ["b"]})

class Odd(ClassifierMixin, BaseEstimator):
    "Mean of the batch in every answer, and blind to the order of columns."
    def fit(self, X, y): self.classes_ = np.unique(y); return self
    def predict(self, X): return (np.asarray(X).sum(axis=1) > np.asarray(X).mean()).astype(int)

class Shifted(HistGradientBoostingClassifier):
    def _raw_predict(self, X, n_threads=None): return super()._raw_predict(X, n_threads) + .1

def test_everything_else_goes_the_plain_way(walked):
    for model in (Odd(), KNeighborsClassifier(), Shifted(max_iter=5), make_pipeline(PCA(3), RandomForestClassifier(3, random_state=0)),
                  make_pipeline(PolynomialFeatures(), LogisticRegression()), make_pipeline(FunctionTransformer(lambda X: X - X.mean()), HistGradientBoostingClassifier(max_iter=5)),
                  make_pipeline(FunctionTransformer(np.sort), LogisticRegression()), GradientBoostingClassifier(n_estimators=3, init=LogisticRegression())):
        same(model.fit(X, Y2), X, Y2)
        assert walked[-1:] in ([], [None]), model

def test_a_wrong_reader_is_found_out_and_said_once(monkeypatch, caplog):
    from mlops_nb.features import replay, trees
    import dataclasses
    wrong = dataclasses.replace(replay._HIST, read=lambda m, Z: dataclasses.replace(e := trees._hist(m, Z), values=e.values + 1e-15))
    monkeypatch.setitem(replay._FAMILIES, "HistGradientBoostingClassifier", wrong)
    model = TREES["hgb"].fit(X, Y3)
    with caplog.at_level(logging.WARNING): same(model, X, Y3); same(model, X, Y3)
    assert sum("differs from predict" in r.message for r in caplog.records) == 1

def test_without_numba(monkeypatch):
    for name in [m for m in sys.modules if m == "mlops_nb.features._walk"]: monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sys.modules["mlops_nb.features"], "_walk", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    same(TREES["forest"].fit(X, Y3), X, Y3)
    assert any("scikit-learn's own way" in s for s in permutation._said)

@pytest.mark.parametrize("change", [dict(max_samples=N + 1), dict(max_samples=0), dict(n_repeats=0), dict(scoring="nonsense"), dict(random_state="x"), dict(estimator=object()),
                                    dict(X=X[:, :3]), dict(y=Y3[:-1]), dict(X=np.where(X > 2, np.inf, X)), dict(scoring=lambda m, X, y: 1/0)], ids=" ".join)
def test_errors_are_scikit_learns(change):
    good = dict(estimator=RandomForestClassifier(3).fit(X, Y3), X=X, y=Y3) | change
    with pytest.raises(Exception) as one: theirs(**good)
    with pytest.raises(Exception) as two: ours(**good)
    assert type(one.value) is type(two.value) and str(one.value).split(" object at")[0] == str(two.value).split(" object at")[0]

@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_and_constant_columns(rows, walked):
    flat = np.c_[X[:, :7], np.ones(N)]
    for model in (RandomForestRegressor(3), HistGradientBoostingRegressor(max_iter=3)): same(model.fit(flat, NUMBER), flat[:rows], NUMBER[:rows], scoring="neg_mean_absolute_error")

def test_duplicate_names_and_one_class(walked):
    model = RandomForestClassifier(3).fit(X, Y3)
    for f in (theirs, ours):
        with pytest.raises(Exception, match="unique"): f(model, pd.DataFrame(X, columns=list("aabcdefg")), Y3)
    same(model, X, np.zeros(N, int), walked)

def test_a_random_state_moves_on_as_there():
    one, two, model = np.random.RandomState(5), np.random.RandomState(5), TREES["forest"].fit(X, Y3)
    for _ in range(2): np.testing.assert_array_equal(theirs(model, X, Y3, random_state=one).importances, ours(model, X, Y3, random_state=two).importances)
    assert one.randint(1 << 30) == two.randint(1 << 30)

def test_nothing_given_is_changed():
    frame, y = MIXED.drop(columns="day"), Y3.copy()
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(frame, y)
    before, kind, known = frame.copy(), type(model), set(model.__dict__)
    ours(model, frame, y, random_state=0)
    pd.testing.assert_frame_equal(before, frame)
    assert type(model) is kind and set(model.__dict__) == known and (y == Y3).all()

def test_sparse_rows_are_refused_as_there():
    import scipy.sparse as sp
    for f in (theirs, ours):
        with pytest.raises(TypeError, match="[Ss]parse"): f(LinearRegression().fit(X, NUMBER), sp.csr_matrix(X), NUMBER)

def _theirs():
    "Scikit-learn's own tests as installed, with only the import changed; they run here under `always_fast`."
    import inspect, sklearn.inspection.tests.test_permutation_importance as home
    text = inspect.getsource(home)
    assert text.count("from sklearn.inspection import permutation_importance") == 1
    space = {"__name__": "theirs", "__file__": home.__file__}
    exec(compile(text.replace("from sklearn.inspection import", "from mlops_nb.features.permutation import"), home.__file__, "exec"), space)
    return {k.replace("test_", "test_scikit_learns_", 1): f for k, f in space.items() if k.startswith("test_")}

globals().update(_theirs())

def test_all_of_scikit_learns_tests_are_here():
    assert sum(k.startswith("test_scikit_learns_") for k in globals()) >= 13
