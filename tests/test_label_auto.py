"Labels nobody clicked: labeling functions, label models on one-sided votes, thresholds that keep their promise, neighbours, synthetic rows that stay out of tests."
import numpy as np, pandas as pd, pytest
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from mlops_nb.core.finding import BadInput
from mlops_nb.data.samples import digits, load
from mlops_nb.label import auto, functions, prelabel, synthetic
from mlops_nb.label.functions import labeling_function

# --- labeling functions ---

DF = pd.DataFrame(dict(text=["a http", "b", "c http"], n=[1, 2, 3]), index=[10, 20, 30])

def test_functions_stay_plain_and_keep_the_index():
    @labeling_function(classes=["spam"])
    def link(df): return ["spam" if "http" in t else None for t in df.text]
    @labeling_function(each_row=True)
    def big(row): return "fine" if row.n > 1 else None
    votes = auto.apply(DF, [link, big])
    assert votes.index.tolist() == [10, 20, 30] and votes.notna().sum().tolist() == [2, 2] and link.__name__ == "link"

@pytest.mark.parametrize("f, words", [
    (labeling_function(lambda row: 1/0, each_row=True, name="f"), "row 10: ZeroDivisionError"), (labeling_function(lambda df: 1/0, name="f"), "failed: ZeroDivisionError"),
    (labeling_function(lambda df: "spam", name="f"), "gave a str"), (labeling_function(lambda df: None, name="f"), "gave a NoneType"), (labeling_function(lambda df: [{}, 1, 2], name="f"), "one label"),
    (labeling_function(lambda df: ["spam"], name="f"), "1 labels for 3 rows"), (labeling_function(lambda df: ["spma"]*3, name="f", classes=["spam"]), "did you mean 'spam'")])
def test_functions_that_raise_or_answer_nonsense(f, words):
    with pytest.raises(BadInput, match=words): auto.apply(DF, {"f": f})

def test_two_functions_of_one_name():
    f = labeling_function(lambda df: [1]*3, name="f")
    with pytest.raises(BadInput, match="its own name"): auto.apply(DF, [f, f])

def test_summary_counts():
    votes = pd.DataFrame(dict(a=[1, 1, np.nan, 0], b=[1, 0, np.nan, np.nan], c=[np.nan]*4))
    table = functions.summary(votes, pd.Series([1, 1, 0, 0]))
    assert table.coverage.tolist() == [.75, .5, 0] and table.overlap.tolist() == [.5, .5, 0] and table.conflict.tolist() == [.25, .25, 0]
    assert table.accuracy["a"] == 1 and table.accuracy["b"] == .5 and np.isnan(table.accuracy["c"])

def one_sided(seed, n=2000):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < .5).astype(int)
    hit, slip = rng.uniform(.08, .5, 9), rng.uniform(.01, .12, 9)
    votes = {f"s{j}": np.where(rng.random(n) < np.where(y == 1, hit[j], slip[j]), 1., np.nan) for j in range(9)}
    return pd.DataFrame({**votes, "fine": np.where(rng.random(n) < np.where(y == 1, .15, .7), 0., np.nan)}), pd.Series(y)

def test_weighted_vote_is_robust_on_one_sided_functions():
    "Median of ten crowds: better than the majority, and Dawid-Skene, which collapses on some, is not what one gets by default."
    got = []
    for seed in range(10):
        votes, y = one_sided(seed)
        checked, voted = y.sample(50, random_state=seed), votes.notna().any(axis=1)
        got.append([float((functions.label_model(votes, c, m).label == y)[voted].mean()) for m, c in (("majority", None), ("weighted", checked), ("dawid_skene", None))])
    majority, weighted, ds = np.median(got, axis=0)
    assert weighted > majority and min(g[1] for g in got) > .75 and min(g[2] for g in got) < min(g[1] for g in got)

def test_a_bad_function_loses_its_say():
    rng = np.random.default_rng(0)
    y = pd.Series(rng.integers(0, 2, 1000).astype(float))
    liar = 1 - y
    votes = pd.DataFrame(dict(good=y.where(rng.random(1000) < .9, 1 - y), liar=liar, liar2=liar))
    assert (functions.label_model(votes, y[:60]).label == y).mean() > .95 and (auto.vote(votes).label == y).mean() < .2

def test_label_model_of_words_and_abstainers():
    votes = pd.DataFrame(dict(a=["x", None, "y", None], b=["x", "y", None, None]))
    found = functions.label_model(votes, pd.Series(["x", "y"], index=[0, 1]))
    assert found.label.tolist()[:3] == ["x", "y", "y"] and pd.isna(found.label[3]) and found.confidence[3] == 0
    with pytest.raises(BadInput, match="no function answers"): functions.label_model(votes, pd.Series(["x"], index=[3]))
    with pytest.raises(BadInput, match="did you mean 'weighted'"): functions.label_model(votes, method="weigted")

# --- thresholds ---

def test_threshold_keeps_its_promise():
    "Of 300 samples, those whose threshold breaks the promise are 5 % at most (with the luck of 300 draws)."
    rng, broken, given = np.random.default_rng(0), 0, 0
    sure = lambda n: .5 + .5*rng.beta(4, 1, n)
    big = sure(200_000)
    for _ in range(300):
        s = sure(400)
        t = prelabel.threshold(np.c_[s, 1 - s], (rng.random(400) >= s).astype(int), precision=.92)
        given += t.value is not None
        broken += t.value is not None and big[big >= t.value].mean() < .92
    assert given > 100 and broken <= binom.ppf(.999, 300, .05)

def test_threshold_at_its_edges():
    sure = np.tile([.99, .01], (100, 1))
    perfect = prelabel.threshold(sure, np.zeros(100))
    assert perfect.value == pytest.approx(.99) and perfect.coverage == 1 and perfect.low > .95
    assert prelabel.threshold(sure, np.ones(100)).value is None
    assert "59 random rows" in prelabel.threshold(sure[:20], np.zeros(20)).note
    for bad in (dict(precision=1.), dict(confidence=0), dict(truth=np.zeros(99)), dict(truth=[None]*100), dict(proba=sure*np.nan)):
        with pytest.raises(BadInput): prelabel.threshold(**{"proba": sure, "truth": np.zeros(100), **bad})

def test_prelabels_above_the_threshold_only():
    p = pd.DataFrame([[.9, .1], [.3, .7], [.01, .99]], index=list("abc"), columns=["no", "yes"])
    limit = prelabel.Threshold(.8, .99, .95, 100, .5)
    assert prelabel.prelabel(p, limit).to_dict("list") == dict(item=["c", "a"], label=["yes", "no"], confidence=[.99, .9])

def test_neighbours_do_not_jump_gaps():
    X = np.r_[np.random.default_rng(0).normal(size=(50, 2)), np.random.default_rng(1).normal(size=(50, 2)) + 50, [[1000., 1000.]]]
    labels = pd.Series([None]*101, dtype=object)
    labels[:20], labels[50:70] = "a", "b"
    found = prelabel.propagate(X, labels).set_index("item").label
    assert (found[found.index < 50] == "a").all() and (found[found.index >= 50] == "b").all() and 100 not in found.index and len(found) > 20
    with pytest.raises(BadInput, match="neighbours must agree"): prelabel.propagate(X, labels.where(labels.index < 2))
    assert prelabel.propagate(X[:40], labels[:40].fillna("a")).empty

# --- synthetic rows ---

def test_synthetic_rows_are_marked_and_stay_between_real_ones():
    df = load("wine").rename(columns={"target": "label"})
    rare = pd.concat([df[df.label != 2], df[df.label == 2].head(8)]).assign(kind=lambda d: np.where(d.alcohol > 13, "strong", "light"))
    more = synthetic.oversampled(rare, share=.5, seed=1)
    made = more[more.synthetic]
    assert more[~more.synthetic].drop(columns="synthetic").reset_index(drop=True).equals(rare.reset_index(drop=True)) and set(made.label) == {2} and set(made.kind) <= {"strong", "light"}
    assert made.alcohol.between(*rare[rare.label == 2].alcohol.agg(["min", "max"])).all() and more.equals(synthetic.oversampled(rare, share=.5, seed=1))

def test_synthetic_rows_never_judge():
    df = load("wine").rename(columns={"target": "label"})
    more = synthetic.oversampled(pd.concat([df[df.label != 2], df[df.label == 2].head(8)]))
    with pytest.raises(BadInput, match="real rows only"): synthetic.real_only(more)
    assert len(synthetic.real_only(more[~more.synthetic])) + more.synthetic.sum() == len(more)

@pytest.mark.parametrize("change, words", [(lambda d: d.assign(gap=np.nan), "gaps"), (lambda d: d.assign(label=1), "one class"), (lambda d: pd.concat([d[d.label != 2], d[d.label == 2].head(1)]), "single row"),
                                           (lambda d: d.assign(synthetic=True), "synthetic already"), (lambda d: d.drop(columns="label"), "no column 'label'"), (lambda d: d[["label"]].assign(w="x").iloc[40:135], "move along")])
def test_synthetic_refuses(change, words):
    with pytest.raises(BadInput, match=words): synthetic.oversampled(change(load("wine").rename(columns={"target": "label"})), share=.9)

def test_made_up_rows_are_learned_from_and_never_judged_on():
    from mlops_nb.train import evaluate, fit
    from mlops_nb.train.goal import Goal
    from sklearn.datasets import make_classification
    X, y = make_classification(400, 4, weights=[.95], random_state=0)
    df = pd.DataFrame(X, columns=list("abcd")).assign(label=y)
    more = synthetic.oversampled(df[:300])
    model = fit.fit(more, "label", "sklearn.linear_model.LogisticRegression")
    assert more[synthetic.MARK].any() and synthetic.MARK not in model.feature_names_in_
    assert evaluate.evaluate(model, df[300:].drop(columns="label"), df[300:].label, goal=Goal(minimum=.5))
    with pytest.raises(BadInput, match="are synthetic"): evaluate.evaluate(model, more.drop(columns="label"), more.label, goal=Goal(minimum=.5))

def test_dawid_skene_says_when_it_may_have_swapped_classes():
    "Functions that hardly overlap: nothing ties what one calls late to what another does."
    rng = np.random.default_rng(0)
    truth = rng.choice(["late", "fine"], 400)
    says = pd.DataFrame({f: pd.Series(np.where(rng.random(400) < p, truth, np.where(truth == "late", "fine", "late"))).where(rng.random(400) < .5) for f, p in dict(a=.35, b=.4, c=.9, d=.35).items()})
    with pytest.warns(UserWarning, match="contradicts the majority on .* gold answers"): functions.label_model(says, method="dawid_skene")
