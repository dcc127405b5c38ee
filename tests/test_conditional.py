"Conditional importance: the fast way and the model itself say the same to the last bit; draws follow the other columns; bad input says what to do."
import numpy as np, pandas as pd, pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from mlops_nb.core.finding import BadInput
from mlops_nb.features import conditional, permutation
from mlops_nb.features.conditional import conditional_importance
from mlops_nb.features.draws import draws
from mlops_nb.features.permutation import permutation_importance

N, rng = 600, np.random.default_rng(0)
X, Y = make_classification(N, 6, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
NUMBER = X[:, 0] + np.sin(X[:, 1])
FRAME = pd.DataFrame(np.where(rng.random(X.shape) < .05, np.nan, X), columns=list("abcdef"), index=np.arange(N)[::-1]).assign(
    kind=pd.Categorical(rng.choice(list("xyz"), N)), place=rng.choice([f"D{i}" for i in range(40)], N), hour=rng.integers(0, 24, N), flag=rng.random(N) < .3,
    day=pd.to_datetime("2013-01-01", utc=True) + pd.to_timedelta(rng.integers(0, 3000, N), "h"))
FRAME.loc[FRAME.index[::9], "kind"] = None
FRAME.loc[FRAME.index[5:30], "day"] = pd.NaT
PARTS = make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), [*"abcdef", "hour"]), (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["kind", "place"]),
                                (FunctionTransformer(lambda d: d.apply(lambda s: s.dt.dayofweek).astype(float).fillna(0)), ["day"]), ("passthrough", ["flag"]))

@pytest.fixture(autouse=True)
def always_fast(monkeypatch):
    for name in ("_COMPILE", "_LOAD", "_WORTH"): monkeypatch.setattr(permutation, name, 0)
    permutation._said.clear()

def ways(monkeypatch, model, X, y, fast=True, **how):
    "What the fast way finds, after it was compared with the model asked itself, and with two threads."
    seen, way = [], conditional._way
    how = dict(random_state=0, n_repeats=3) | how
    with monkeypatch.context() as m:
        m.setattr(conditional, "_way", lambda *a: seen.append(r := way(*a)) or r)
        found = [conditional_importance(model, X, y, **how), conditional_importance(model, X, y, n_jobs=2, **how)]
        assert all(w is not None for w in seen) == fast and not permutation._said
        m.setattr(conditional, "_way", lambda *a: None)
        want = conditional_importance(model, X, y, **how)
    for one, two in [(f, want) for f in found] if "importances" in want else [(f[k], want[k]) for f in found for k in want]:
        for name in ("importances", "row_differences", "explained"): np.testing.assert_array_equal(one[name], two[name])
    return want

@pytest.mark.parametrize("how", [{}, dict(scoring="neg_log_loss", groups={"p": [0, 1], "q": [1, 2], "r": 3}), dict(scoring=["accuracy", "roc_auc_ovr"], sampler="marginal"), dict(sampler="regression"),
                                 dict(scoring=lambda m, X, y: m.predict_proba(X)[:, 0].mean() + np.asarray(X)[:, 1].sum())], ids=["plain", "groups", "marginal", "regression", "own scorer"])
@pytest.mark.parametrize("model", [HistGradientBoostingClassifier(max_iter=8), RandomForestClassifier(6, random_state=0)], ids=["hgb", "forest"])
def test_trees_to_the_last_bit(model, how, monkeypatch): ways(monkeypatch, model.fit(X, Y), X, Y, **how)

@pytest.mark.parametrize("last", [LogisticRegression(), RandomForestClassifier(5, random_state=0), HistGradientBoostingClassifier(max_iter=5)], ids=["linear", "forest", "hgb"])
def test_behind_a_pipeline_of_any_types(last, monkeypatch):
    model = make_pipeline(PARTS, last).fit(FRAME, Y)
    before = FRAME.copy()
    ways(monkeypatch, model, FRAME, Y, scoring="accuracy")
    ways(monkeypatch, model, FRAME, Y, sampler="marginal", scoring="roc_auc_ovr", groups={"both": ["kind", "place"], "day": "day"})
    pd.testing.assert_frame_equal(before, FRAME)

def test_models_without_a_fast_way(monkeypatch):
    ways(monkeypatch, make_pipeline(PCA(3), LinearRegression()).fit(X, NUMBER), X, NUMBER, fast=False)

def test_marginal_is_permutation_importance():
    model = HistGradientBoostingRegressor(max_iter=8).fit(X, NUMBER)
    for how in (dict(scoring="neg_mean_squared_error"), dict(groups={"p": [0, 1]}), dict(sample_weight=rng.random(N))):
        a, b = conditional_importance(model, X, NUMBER, sampler="marginal", random_state=5, **how), permutation_importance(model, X, NUMBER, random_state=5, **how)
        np.testing.assert_array_equal(a.importances, b.importances)

@pytest.mark.parametrize("scoring, loss", [("accuracy", "zero-one"), ("neg_log_loss", "log loss"), ("roc_auc_ovr", "log loss"), (None, "log loss")])
def test_rows_of_a_classifier_add_up(scoring, loss):
    found = conditional_importance(RandomForestClassifier(5, random_state=0).fit(X[:300], Y[:300]), X, Y, scoring=scoring, random_state=0)
    assert found.row_loss == loss and found.row_differences.shape == (6, N)
    if scoring in ("accuracy", "neg_log_loss"): np.testing.assert_allclose(found.row_differences.mean(axis=1), found.importances_mean, atol=1e-10)

def test_rows_of_a_regression_add_up():
    model = RandomForestRegressor(5).fit(X, NUMBER)
    for scoring in ("neg_mean_squared_error", "neg_mean_absolute_error"):
        found = conditional_importance(model, X, NUMBER, scoring=scoring, random_state=0)
        np.testing.assert_allclose(found.row_differences.mean(axis=1), found.importances_mean, atol=1e-10)
    both = np.c_[NUMBER, X[:, 2]]
    assert conditional_importance(RandomForestRegressor(3).fit(X, both), X, both, random_state=0).row_differences is None

def chamma(X, j, n_repeats, state):
    "Imputation by least squares of one column on the others, residuals shuffled (Chamma, Thirion & Engemann 2023)."
    rest = np.delete(X, j, axis=1)
    mean = LinearRegression().fit(rest, X[:, j]).predict(rest)
    return np.stack([mean + state.permutation(X[:, j] - mean) for _ in range(n_repeats)])

def test_own_draws_give_the_numbers_of_the_definition():
    model, kept = HistGradientBoostingRegressor(max_iter=8).fit(X, NUMBER), {}
    found = conditional_importance(model, X, NUMBER, scoring="neg_mean_squared_error", sampler=lambda X, c, r, s: kept.setdefault(c[0], chamma(X, c[0], r, s)[:, :, None]), random_state=0)
    for j, values in kept.items():
        for r, v in enumerate(values):
            moved = X.copy()
            moved[:, j] = v[:, 0]
            assert found.importances[j, r] == ((model.predict(moved) - NUMBER)**2).mean() - ((model.predict(X) - NUMBER)**2).mean()

@pytest.mark.parametrize("noise", [0, 1.])
def test_more_columns_than_rows_as_hidimstat_tests_it(noise):
    "150 x 200, ten columns that count: linear model, linear imputers of the training rows, ten draws."
    wide, state, error = np.random.default_rng(42).normal(size=(150, 200)), np.random.RandomState(5), np.random.default_rng(0).normal(size=150)
    y = wide[:, :10] @ np.ones(10) + noise*error
    model, test = LinearRegression().fit(wide[:112], y[:112]), wide[112:]
    def imputed(X, c, r, s):
        rest = np.delete(wide, c, axis=1)
        mean = LinearRegression().fit(rest[:112], wide[:112, c]).predict(rest[112:])[:, 0]
        return np.stack([mean + state.permutation(X[:, c[0]] - mean) for _ in range(r)])[:, :, None]
    found = conditional_importance(model, test, y[112:], scoring="neg_mean_squared_error", sampler=imputed, n_repeats=10)
    assert set(range(10)) <= set(np.argsort(found.importances_mean)[-25:]) and found.importances_mean[:10].mean() > 5*np.abs(found.importances_mean[10:]).mean()

def test_copies_are_not_needed_and_the_lone_column_is():
    x, lone, noise = rng.normal(size=(3, 3000))
    bent, product, city = lone**2 + .05*rng.normal(size=3000), x*lone + .05*rng.normal(size=3000), np.where(x > 0, np.where(lone > 0, "NE", "SE"), "W")
    T = pd.DataFrame(dict(x=x, copy=x + .02*rng.normal(size=3000), lone=lone, noise=noise, bent=bent, product=product, city=city))
    y = x + lone + bent + product + (city == "W") + .2*rng.normal(size=3000)
    model = make_pipeline(make_column_transformer((OneHotEncoder(sparse_output=False), ["city"]), remainder="passthrough"), HistGradientBoostingRegressor(max_iter=60)).fit(T[:1500], y[:1500])
    found, plain = (conditional_importance(model, T[1500:], y[1500:], random_state=0, sampler=s) for s in (None, "marginal"))
    found, plain = pd.Series(found.importances_mean, list(T)), pd.Series(plain.importances_mean, list(T))
    assert (found[["copy", "noise"]] < .01).all() and found["lone"] > .05
    assert (found[["bent", "product", "city"]] < .2*plain[["bent", "product", "city"]]).all(), (found, plain)

def test_a_category_that_stands_for_another():
    code = rng.integers(0, 60, 3000)
    T = pd.DataFrame(dict(dest=[f"D{c}" for c in code], distance=rng.permutation(60)[code]*10., city=[f"C{c//2}" for c in code], free=rng.normal(size=3000)))
    found = draws(T, [[0], [1], [2], [3]])
    assert (found.explained[:3] > .6).all() and found.explained[3] < .02
    assert (T["city"].to_numpy()[found.values[2, 2][0]] == T["city"]).mean() > .9

def test_draws_keep_gaps_whole_numbers_and_spread():
    x = rng.normal(size=4000)
    T = pd.DataFrame(dict(x=x, count=np.round(5*x + rng.normal(size=4000)).astype(int), wide=x + np.where(x > 0, 2., .1)*rng.normal(size=4000), gap=np.where((x > 1) & (rng.random(4000) < .8), np.nan, x)))
    found = draws(T, [[0], [1], [2], [3]], n_repeats=1, seed=3)
    count, wide, gap = (found.values[c, c][0] for c in (1, 2, 3))
    assert np.isin(np.round(count), T["count"]).all() and abs(np.isnan(gap).mean() - T["gap"].isna().mean()) < .001 and np.isnan(gap[x > 1]).mean() > .4
    low, high = x < -.7, x > .7
    assert (wide - x)[high].std() > 4*(wide - x)[low].std()

def test_dummies_of_one_category_stay_dummies():
    kind = rng.integers(0, 3, 2000)
    T = np.c_[kind == 0, kind == 1, kind == 2, rng.normal(size=2000) + kind].astype(float)
    found = draws(T, [[0, 1, 2], [3]])
    drawn = np.stack([T[found.values[0, c][0], c] for c in range(3)], axis=1)
    assert (drawn.sum(axis=1) == 1).all()

def test_the_same_seed_the_same_numbers_and_a_state_moves_on():
    model, state = RandomForestRegressor(3, random_state=0).fit(X, NUMBER), np.random.RandomState(0)
    one, two = (conditional_importance(model, X, NUMBER, random_state=4).importances for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (conditional_importance(model, X, NUMBER, random_state=state).importances != conditional_importance(model, X, NUMBER, random_state=state).importances).any()

def test_what_was_sampled_is_said():
    big = rng.normal(size=(20_100, 2))
    assert "20,000 of 20,100" in conditional_importance(LinearRegression().fit(big, big[:, 0]), big, big[:, 0], n_repeats=1).note
    assert conditional_importance(LinearRegression().fit(X, NUMBER), X, NUMBER).note == ""

@pytest.mark.parametrize("change, match", [(dict(sampler="margnal"), "marginal"), (dict(row_loss="log los"), "log loss"), (dict(X=X[:3], y=Y[:3]), "too few"), (dict(groups={"p": ["z"]}), "no column"),
                                           (dict(groups={}), "empty"), (dict(X=pd.DataFrame(X, columns=list("aabcde"))), "unique"), (dict(y=np.where(Y == 2, 7, Y)), "7"),
                                           (dict(sampler=lambda *a: np.zeros((1, 2))), "must give"), (dict(row_loss="squared error", y=Y.astype(str)), "squared error")], ids=lambda c: str(c)[:30] if isinstance(c, str) else "")
def test_bad_input_says_what_to_do(change, match):
    with pytest.raises((BadInput, ValueError), match=match): conditional_importance(**dict(model=RandomForestClassifier(3).fit(X, Y), X=X, y=Y, scoring="accuracy" if "y" not in change else None) | change)

def test_odd_tables():
    odd = pd.DataFrame(np.c_[X, np.ones(N), np.full(N, np.nan), np.where(X[:, 0] > 1, np.inf, X[:, 1]), np.arange(N)]).add_prefix("x")
    model = HistGradientBoostingClassifier(max_iter=5).fit(odd.fillna(0), Y)
    found = conditional_importance(model, odd, Y, random_state=0)
    assert np.isfinite(found.importances).all() and (found.importances[6:8] == 0).all()
    one = conditional_importance(RandomForestRegressor(3).fit(X[:, :1], NUMBER), X[:, :1], NUMBER, random_state=0)    # nothing else to tell it by
    assert one.importances_mean[0] > .1 and one.explained[0] < .05
    assert (conditional_importance(model, odd, np.zeros(N, int), random_state=0).row_differences.shape == (10, N))        # one class

@pytest.mark.filterwarnings("ignore:Only one class")
@pytest.mark.parametrize("scoring", ["roc_auc", ["accuracy", "roc_auc"]])
def test_a_score_of_one_class_is_refused(scoring):
    two = RandomForestClassifier(3, random_state=0).fit(X, Y > 0)
    with pytest.raises(BadInput, match="one class only .*neg_log_loss"): conditional_importance(two, X, np.zeros(N, bool), scoring=scoring, random_state=0)
    assert np.isfinite(conditional_importance(two, X, np.zeros(N, bool), scoring="accuracy", random_state=0).importances).all()
    several = conditional_importance(two, X, Y > 0, scoring=lambda m, X, y: np.array([m.score(X, y), np.nan]), random_state=0)
    assert several.importances.shape == (6, 5, 2) and np.isfinite(several.importances[..., 0]).all()
    with pytest.raises(BadInput, match="another scorer"): conditional_importance(two, X, Y > 0, scoring=lambda m, X, y: np.nan)

@pytest.mark.parametrize("model", [HistGradientBoostingClassifier(max_iter=4), make_pipeline(StandardScaler(), LogisticRegression()), make_pipeline(PCA(3), LogisticRegression())], ids=["trees", "linear", "plain"])
def test_little_room_changes_nothing(model, monkeypatch):
    from mlops_nb.features import replay, spill
    how = dict(groups={"p": [0, 1], "q": [2], "r": [3], "s": [1, 4]}, random_state=0)
    want = conditional_importance(model.fit(X, Y), X, Y, **how)
    for name, value in dict(_MEMORY=(0, 0), _DISK=8*N*5*2).items(): monkeypatch.setattr(spill, name, value)
    for name, value in dict(_SUMS=8_000, _PIECE=100).items(): monkeypatch.setattr(replay, name, value)
    monkeypatch.setattr(conditional, "_AT_ONCE", 1)
    room = conditional.capacity
    monkeypatch.setattr(conditional, "capacity", lambda: 10**9)
    found = conditional_importance(model, X, Y, **how, n_jobs=2)
    for name in ("importances", "row_differences"): np.testing.assert_array_equal(found[name], want[name])
    monkeypatch.setattr(conditional, "capacity", room)                            # draws in rounds: another order of sums
    np.testing.assert_allclose(conditional_importance(model, X, Y, **how).importances, want.importances, atol=.005)
    assert conditional_importance(model, X, Y, **how, rows=False).row_differences is None

def test_unhashable_and_sparse_and_errors_of_scorers():
    lists = pd.DataFrame(dict(a=X[:, 0], b=[[1]]*N))
    with pytest.raises(BadInput, match="list"): draws(lists, [[0], [1]])
    with pytest.raises(ValueError, match="inf"): conditional_importance(LinearRegression().fit(X, NUMBER), np.where(X > 2, np.inf, X), NUMBER)
    import scipy.sparse as sp
    with pytest.raises(BadInput, match="toarray"): conditional_importance(LinearRegression().fit(X, NUMBER), sp.csr_matrix(X), NUMBER)
    with pytest.raises(ValueError, match="of conditional_importance"): conditional_importance(LinearRegression().fit(X, NUMBER), X, NUMBER, n_repeats=0)
    with pytest.raises(ZeroDivisionError): conditional_importance(LinearRegression().fit(X, NUMBER), X, NUMBER, scoring=lambda m, X, y: 1/0)
