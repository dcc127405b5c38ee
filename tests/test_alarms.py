"Alarms: what must ring rings, what is innocent does not, and what cannot be looked at is named."
import numpy as np, pandas as pd, pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor

from mlops_nb.core.finding import BadInput
from mlops_nb.features.alarms import alarms, copies, counters, infinite, interactions, leakage, marginal, periods, too_late, training_only, unstable

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
    (X, Y[:-1], "2000 rows and answers of the shape"), (X, Y*0, "all 2000 answers are 0"), (X, Y.where(Y == 1), "answers are missing"), (X[:5], Y[:5], "5 rows; give at least 20"),
    (pd.concat([X, X[["a"]]], axis=1), Y, "'a' of X comes twice"), (X, np.where(Y == 1, np.inf, NUMBER), "answers are infinite"), (X, np.c_[Y, Y], "one answer per row")])
def test_bad_input_is_named(table, y, words):
    for look in (leakage, copies, alarms):
        with pytest.raises(BadInput, match=words): look(table, y)

def test_sparse_is_made_dense_and_arrays_are_named(caplog):
    from scipy.sparse import csr_matrix
    assert {f.subject for f in leakage(csr_matrix(X[["a", "b"]].to_numpy()), Y)} == {"x0", "x1"} and "made dense" in caplog.text
    assert {f.subject for f in leakage(X[["a", "b"]].to_numpy(), Y)} == {"x0", "x1"}

# --- copies, times, counters ---

def test_copies_under_other_names_and_in_other_units():
    disguised = X.assign(text=np.where(Y == 1, "j", "n"), flag=Y.astype(bool), near=np.where(rng.random(N) < .01, 1 - Y, Y))
    assert {f.subject for f in copies(disguised, Y)} == {"text", "flag"}
    assert [(f.subject, f.value) for f in copies(X.assign(f=NUMBER*1.8 + 32, g=NUMBER + .01*rng.normal(size=N)), NUMBER)] == [("f", "rescaled")]
    assert not copies(X, NUMBER)

DISGUISES = dict(duration=lambda v: pd.to_timedelta(v, unit="min"), text=lambda v: v.map("{:.2f} min".format), comma=lambda v: v.map("{:.3f}".format).str.replace(".", ","), negative=lambda v: -v, linear=lambda v: 3*v - 7,
                 negative_text=lambda v: (-v).map("{:.3f}".format), date=lambda v: pd.Timestamp("2020-01-01") + pd.to_timedelta(v, unit="min"), whole=lambda v: (v*100).round().astype(int), bent=lambda v: np.exp(v/50))

@pytest.mark.parametrize("how", DISGUISES)
def test_a_copied_number_is_found_in_any_disguise(how):
    number = 30*NUMBER
    found = copies(X.assign(copy=DISGUISES[how](number)), number)
    assert [(f.subject, f.value) for f in found] == [("copy", "bent" if how == "bent" else "rescaled")]
    assert not copies(X.assign(near=DISGUISES[how](number + 3*rng.normal(size=N))), number)

def test_a_copied_class_is_found_in_any_disguise():
    disguised = dict(text=np.where(Y == 1, "1", "0"), negative=-Y, linear=3*Y + 1, duration=pd.to_timedelta(Y, unit="h"), flag=Y == 1, category=pd.Categorical(np.where(Y == 1, "late", "on time")), date=pd.Timestamp("2020-01-01") + pd.to_timedelta(Y, unit="D"))
    assert {f.subject for f in copies(X.assign(**disguised), Y)} == set(disguised)
    for y in (NUMBER.round(1).astype("Float64"), pd.to_timedelta(NUMBER.round(1), unit="h"), (NUMBER*10).round().astype(int)):
        assert [f.subject for f in copies(X.assign(copy=y), y)] == ["copy"]

def test_one_odd_column_does_not_stop_the_others():
    odd = X.assign(wild=X["a"].where(X["a"] < 2, np.inf), imaginary=X["a"] + 1j, lists=[[i % 3] for i in range(N)], mixed=[1 if i % 2 else "s" for i in range(N)], period=pd.period_range("2000-01-01", periods=N, freq="h"), leak=Y*2.,
                   big=[2**70 + i for i in range(N)], nullable=pd.array(np.where(np.arange(N) % 9 == 0, None, np.arange(N) % 50), dtype="Int64"), when=pd.date_range("2020-01-01", periods=N, freq="h"))
    found = alarms(odd, Y, predict_at="when")
    assert {("infinite", "wild", "warn"), ("leakage", "leak", "error"), ("copy", "leak", "error"), ("leakage", "imaginary", "warn"), ("leakage", "lists", "warn"), ("leakage", "mixed", "warn")} <= rung(found)
    assert "20" not in infinite(odd)[0].subject and infinite(odd)[0].value == int((X["a"] >= 2).sum()) and "could not be looked at" in next(f for f in found if f.subject == "lists").note
    assert not infinite(X) and infinite(odd[["wild"]].to_numpy())[0].subject == "x0"
    line, holes = Ridge().fit(X[["a", "b"]], NUMBER), X[["a", "b"]].assign(a=X["a"].where(X["a"] < 2, np.inf))
    assert not [f for f in alarms(holes, Y, line) if f.check == "interaction" and f.value is None]      # rows with infinities are left out
    refused = [f for f in alarms(holes.replace(np.inf, np.nan), Y, line) if f.check == "interaction"]
    assert len(refused) == 1 and refused[0].level == "info" and "SimpleImputer" in refused[0].note

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

def test_words_that_only_identify_ring_and_sentences_and_dates_do_not():
    table = X.assign(code=[f"{h:08x}" for h in rng.permutation(N)], category=pd.Categorical([f"c{i}" for i in range(N)]), sentence=[f"we wait at gate {i}" for i in range(N)],
                     day=pd.date_range("2001-01-01", periods=N, freq="h").astype(str), when=pd.date_range("2001-01-01", periods=N, freq="h"), tail=rng.choice([f"N{i}" for i in range(300)], N))
    assert {(f.subject, f.check) for f in counters(table)} == {("code", "id"), ("category", "id")}

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

def test_marginal_and_periods_are_those_of_importance():
    from mlops_nb.features.importance import importance
    table = X[["a", "b"]].assign(when=pd.date_range("2024-01-01", periods=N, freq="20min"))
    model = Ridge().fit(X[["a", "b"]][:1000], NUMBER[:1000])
    quick, whole = marginal(model, X[["a", "b"]], NUMBER, seed=3).set_index("feature"), importance(model, X[["a", "b"]], NUMBER, n_repeats=2, seed=3).to_frame().set_index("feature")
    pd.testing.assert_frame_equal(quick, whole.loc[quick.index, ["importance", "lo", "hi"]])
    parts = periods(model, X[["a", "b"]], NUMBER, table["when"], n=3)
    assert list(parts)[0] == "01 Jan to 10 Jan" and len(parts) == 3 and not rung(unstable(parts))
    for wrong in (dict(n=1), dict(n=99), dict(when=table["when"][:5])):
        with pytest.raises(BadInput): periods(**dict(model=model, X=X[["a", "b"]], y=NUMBER, when=table["when"], n=3) | wrong)

# --- interactions ---

def test_an_additive_model_has_no_interaction_and_a_product_has():
    U = pd.DataFrame(rng.uniform(-1, 1, (1500, 5)), columns=list("abcde"))
    assert not rung(interactions(LinearRegression().fit(U, U.a + U.b - U.c), U))
    assert all(f.value < 1e-6 for f in interactions(LinearRegression().fit(U, U.a + U.b - U.c), U, columns=["a", "b", "c"]))
    product = interactions(HistGradientBoostingRegressor(max_iter=60).fit(U, U.a*U.b + U.c + U.d), U)
    assert rung(product) == {("interaction", product[0].subject, "info")} and set(product[0].subject.split(" x ")) == {"a", "b"}
    near = interactions(KNeighborsRegressor(10).fit(U[["a", "b"]], U.a*U.b), U[["a", "b"]])
    assert rung(near) and "coloured by" in near[0].action

def test_hints_are_those_of_the_heat_table_and_agree_with_partial_dependence():
    from mlops_nb.features.alarms import _by_asking, _raw
    from mlops_nb.features.explain import _asked_for, explain_pairs
    U = pd.DataFrame(np.random.default_rng(7).uniform(-1, 1, (1500, 5)), columns=list("abcde"))
    model = HistGradientBoostingRegressor(max_iter=80, random_state=0).fit(U, 2*U.a*U.b + 2*U.c*(U.d > 0) + U.e)
    found, table = interactions(model, U), explain_pairs(model, U.sample(200, random_state=0)).to_frame()
    for f in found: assert f.value == pytest.approx(table[(table["feature"] + " x " + table["other"]) == f.subject]["share"].iloc[0])
    _, _, _, which = _asked_for(model, U, None, None)
    asked = {f"{min(a, b)} x {max(a, b)}": share for a, b, share, _ in _by_asking(lambda t: _raw(model, t, which), U, U.sample(200, random_state=0), None, 6, 40, 0)}
    assert {f.subject for f in found if not f.ok} == {"a x b", "c x d"} == set(sorted(asked, key=asked.get)[-2:])

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
