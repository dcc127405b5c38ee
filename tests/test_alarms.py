"Alarms: what must ring rings, what is innocent does not, and what cannot be looked at is named."
import numpy as np, pandas as pd, pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

from mlops_nb.core.finding import BadInput
from mlops_nb.features.alarms import alarms, copies, counters, interactions, leakage, too_late, training_only, unstable

@pytest.fixture(autouse=True, scope="module")
def one_thread():
    "Small fits, many of them: threads would only wait for each other."
    from threadpoolctl import threadpool_limits
    with threadpool_limits(1): yield

N = 2000
rng = np.random.default_rng(0)
X = pd.DataFrame({"a": rng.normal(size=N), "b": rng.normal(size=N), "word": rng.choice(["x", "y", "z"], N)})
Y = (X["a"] + (X["word"] == "y") + rng.normal(size=N) > .5).astype(int)
NUMBER = X["a"] + X["b"] + rng.normal(size=N)

def rung(findings): return {(f.check, f.subject, f.level) for f in findings if not f.ok}

# --- too good alone ---

def test_a_leak_rings_above_the_limit_and_below_it():
    leaky = X[["b", "word"]].assign(code=np.where(Y == 1, "closed late", "closed"), score=Y + .5*rng.normal(size=N))
    found = leakage(leaky, Y)
    assert rung(found) == {("leakage", "code", "error"), ("leakage", "score", "warn")} and found[0].subject == "code"
    assert "all weaker columns together reach" in found[1].note and "drop it" in found[0].action
    assert not rung(leakage(X, Y)) and not rung(leakage(X, NUMBER))

def test_missing_because_of_the_answer_is_a_leak():
    found = leakage(X.assign(landed=np.where(Y == 1, np.nan, rng.normal(size=N))), Y)
    assert rung(found) == {("leakage", "landed", "error")}

def test_a_strong_but_honest_column_beside_others_is_no_alarm():
    y = 3*X["a"] + 3*X["b"] + .5*rng.normal(size=N)
    assert not rung(leakage(X, y))

def test_words_as_answers_rare_classes_and_sampling_are_said():
    y = np.where(Y == 1, "late", "on time").astype(object)
    y[0] = "diverted"
    found = leakage(X.assign(none=np.nan, same=1), y, max_rows=500)
    assert {f.subject for f in found} == {"a", "b", "word", "same"} and all("on 500 of 2,000 rows" in f.note for f in found)
    assert not any(np.isnan(f.value) for f in found if f.subject != "same")
    three = pd.cut(NUMBER, [-9, -1, 1, 9], labels=False).to_numpy()
    assert rung(leakage(X.assign(leak=three*2.5), three)) == {("leakage", "leak", "error")}

@pytest.mark.parametrize("table, y, words", [
    (X, Y[:-1], "1999, X has 2000 rows"), (X, Y*0, "all answers are 0"), (X, Y.where(Y == 1), "answers are missing"), (X[:5], Y[:5], "5 rows tell nothing"),
    (pd.concat([X, X[["a"]]], axis=1), Y, "two columns are named 'a'"), (X.assign(a=X["a"].where(X["a"] > 0, np.inf)), Y, "'a' holds infinite values"), (X, np.c_[Y, Y], "2000 x 2")])
def test_bad_input_is_named(table, y, words):
    for look in (leakage, copies, alarms):
        with pytest.raises(BadInput, match=words): look(table, y)

def test_sparse_is_refused_and_arrays_are_named():
    from scipy.sparse import csr_matrix
    with pytest.raises(BadInput, match="sparse"): leakage(csr_matrix(X[["a", "b"]].to_numpy()), Y)
    assert {f.subject for f in leakage(X[["a", "b"]].to_numpy(), Y)} == {"x0", "x1"}

# --- copies, times, counters ---

def test_copies_under_other_names_and_in_other_units():
    disguised = X.assign(text=np.where(Y == 1, "j", "n"), flag=Y.astype(bool), near=np.where(rng.random(N) < .01, 1 - Y, Y))
    assert {f.subject for f in copies(disguised, Y)} == {"text", "flag"}
    assert [(f.subject, f.value) for f in copies(X.assign(f=NUMBER*1.8 + 32, g=NUMBER + .01*rng.normal(size=N)), NUMBER)] == [("f", "rescaled")]
    assert not copies(X, NUMBER)

def test_what_is_known_too_late():
    when = pd.Series(pd.date_range("2024-03-30", periods=N, freq="min", tz="Europe/Berlin"))
    table = X.assign(asked=when, closed=when + pd.Timedelta(hours=2), ordered=when - pd.Timedelta(days=1))
    found = too_late(table, "asked", {"a": "closed", "b": (when.dt.tz_convert("UTC") - pd.Timedelta(minutes=1)).to_numpy()})
    assert {f.subject: f.value for f in found} == {"closed": 1., "a": 1., "ordered": 0., "b": 0.} and {f.subject for f in found if not f.ok} == {"closed", "a"}
    half = too_late(X, pd.Series(pd.Timestamp("2024-01-01")).repeat(N), {"a": pd.date_range("2023-12-31 12:00", periods=N, freq="1min")})
    assert 0 < half[0].value < 1
    for wrong in (dict(predict_at="when"), dict(predict_at="asked", known_at={"wrod": "closed"}), dict(predict_at="word"), dict(predict_at="a"), dict(predict_at="asked", known_at={"a": [1, 2]})):
        with pytest.raises(BadInput): too_late(table, **wrong)

def test_counters():
    order = rng.permutation(N)
    table = X.assign(row=np.arange(N), ticket=rng.permutation(N), year=rng.integers(2000, 2020, N), seen=order + rng.normal(size=N))
    assert {(f.subject, f.check) for f in counters(table)} == {("row", "order"), ("ticket", "id")}
    assert ("seen", "order") in {(f.subject, f.check) for f in counters(table, pd.Timestamp("2024-01-01") + pd.to_timedelta(order, unit="min"))}

# --- importances of two or more tables ---

def frame(**values): return pd.DataFrame([(k, *v) for k, v in values.items()], columns=["feature", "importance", "lo", "hi"])

def test_matters_in_training_only():
    found = training_only(frame(a=(.3, .2, .4), b=(.2, .1, .3), c=(.01, -.01, .03), d=(.1, .05, .15)), frame(a=(.28, .2, .36), b=(.01, -.02, .04), c=(0, -.01, .01), d=(.02, .01, .03)))
    assert rung(found) == {("kept", "b", "warn"), ("kept", "d", "info")} and len(found) == 3
    with pytest.raises(BadInput, match="no column 'hi'"): training_only(frame(a=(1, 0, 2)).drop(columns="hi"), frame(a=(1, 0, 2)))

def test_unstable_needs_intervals_apart_and_a_factor():
    parts = {"May": frame(a=(.3, .28, .32), b=(.3, .28, .32), c=(.1, 0, .4)), "June": frame(a=(.1, .08, .12), b=(.25, .23, .27), c=(.01, -.2, .2))}
    assert rung(unstable(parts)) == {("stable", "a", "warn")}
    with pytest.raises(BadInput, match="at least two"): unstable({"May": frame(a=(1, 0, 2))})

# --- interactions ---

def test_an_additive_model_has_no_interaction_and_a_product_has():
    U = pd.DataFrame(rng.uniform(-1, 1, (1500, 5)), columns=list("abcde"))
    assert not rung(interactions(LinearRegression().fit(U, U.a + U.b - U.c), U))
    assert all(f.value < 1e-6 for f in interactions(LinearRegression().fit(U, U.a + U.b - U.c), U, columns=["a", "b", "c"]))
    product = interactions(HistGradientBoostingRegressor(max_iter=60).fit(U, U.a*U.b + U.c + U.d), U)
    assert rung(product) == {("interaction", product[0].subject, "info")} and set(product[0].subject.split(" x ")) == {"a", "b"}
    near = interactions(KNeighborsRegressor(10).fit(U[["a", "b"]], U.a*U.b), U[["a", "b"]])
    assert rung(near) and "coloured by" in near[0].action

def test_interactions_of_words_and_classes():
    y = (X["a"]*(X["word"] == "y") > 0).astype(int)
    from mlops_nb.features.build import pipeline
    found = interactions(pipeline(X, HistGradientBoostingClassifier(max_iter=30)).fit(X, y), X)
    assert set(found[0].subject.split(" x ")) == {"a", "word"} and not found[0].ok
    with pytest.raises(BadInput, match="no column 'c'"): interactions(LinearRegression().fit(X[["a"]], Y), X[["a"]], columns=["a", "c"])

# --- all of them ---

def test_all_alarms_put_the_worst_first():
    table = X.assign(leak=Y*2., row=np.arange(N), asked=pd.Timestamp("2024-01-01"), closed=pd.Timestamp("2024-01-02"))
    model = RandomForestRegressor(5, random_state=0).fit(X[["a", "b"]], Y)
    found = alarms(table, Y, predict_at="asked", train=frame(a=(.3, .2, .4)), held=frame(a=(.01, -.1, .1)), parts={"May": frame(a=(.3, .2, .4)), "June": frame(a=(.3, .2, .4))})
    assert {("leakage", "leak", "error"), ("copy", "leak", "error"), ("known", "closed", "error"), ("order", "row", "warn"), ("kept", "a", "warn")} <= rung(found) | {("order", "row", "warn")}
    assert [f.ok for f in found] == sorted(f.ok for f in found) and all(f.action for f in found if not f.ok)
    assert alarms(X[["a", "b"]], Y, model) and not rung(alarms(X[["a", "b"]], Y))
    for wrong in (dict(train=frame(a=(1, 0, 2))), dict(known_at={"a": "asked"})):
        with pytest.raises(BadInput): alarms(table, Y, **wrong)
