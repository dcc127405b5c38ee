"Agreement against published values, crowds against the truth, suspected errors against planted ones, and every bad input of a person."
import numpy as np, pandas as pd, pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, cohen_kappa_score
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput
from mlops_nb.data.samples import digits
from mlops_nb.label import agree, crowd, errors, log, queue, schema
from conftest import load_bench

bench = load_bench("crowd")

def coded(*rows):
    "A row for each person, a column for each item; None is a gap."
    return pd.DataFrame([(i, f"p{j}", x) for j, row in enumerate(rows) for i, x in enumerate(row) if x is not None], columns=["item", "annotator", "label"])

# --- published values ---

N = None
BOOK = coded([1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3], [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N])

def test_alpha_of_krippendorffs_book():
    "Content Analysis, chapter 12: four observers, twelve units, gaps."
    assert [round(agree.krippendorff_alpha(BOOK, level), 3) for level in agree.LEVELS] == [.743, .815, .849]

def test_alpha_of_text_labels():
    text = BOOK.assign(label=BOOK.label.astype(int).astype(str))
    assert agree.krippendorff_alpha(text, "interval") == pytest.approx(agree.krippendorff_alpha(BOOK, "interval"))
    tens = BOOK.assign(label=(BOOK.label*9 + 1).astype(int).astype(str))       # "10" < "19" < "28": as text and as numbers; 100 would not be
    assert agree.krippendorff_alpha(tens, "ordinal") == pytest.approx(agree.krippendorff_alpha(BOOK, "ordinal"))
    far = BOOK.assign(label=BOOK.label.map({1: "9", 2: "10", 3: "11", 4: "100", 5: "101"}))
    assert agree.krippendorff_alpha(far, "ordinal") == pytest.approx(agree.krippendorff_alpha(BOOK, "ordinal"))

@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_cohen_is_scikit_learns(weights):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, 300)
    b = np.where(rng.random(300) < .6, a, rng.integers(0, 5, 300))
    assert agree.cohen_kappa(a, b, weights) == pytest.approx(cohen_kappa_score(a, b, weights=weights))

def test_luck_is_zero_and_full_agreement_one():
    "The limits; the example of Fleiss (1971) is in the lesson."
    rng = np.random.default_rng(1)
    said = coded(*rng.integers(0, 3, (3, 4000)))
    assert abs(agree.fleiss_kappa(said)) < .03 and abs(agree.krippendorff_alpha(said)) < .03
    same = coded([1, 2, 3], [1, 2, 3], [1, 2, 3])
    assert agree.fleiss_kappa(same) == agree.krippendorff_alpha(same) == agree.percent(same) == 1

def test_one_label_only_is_not_a_number():
    one = coded([1, 1], [1, 1])
    assert agree.percent(one) == 1 and np.isnan(agree.krippendorff_alpha(one)) and np.isnan(agree.fleiss_kappa(one)) and np.isnan(agree.cohen_kappa([1, 1], [1, 1]))
    assert not agree.agreement(one).ok

def test_wilson_is_the_published_interval():
    "Textbook values for 0 of 20 and 19 of 20."
    assert np.allclose(agree.wilson(0, 20), (0, .1611), atol=1e-3) and np.allclose(agree.wilson(19, 20), (.7639, .9911), atol=1e-3)
    assert agree.wilson(0, 0)[1] == pytest.approx(1)

def test_per_person_counts_the_others_only():
    table = agree.by_annotator(coded([1, 1, 2], [1, 1, 1], [1, 2, 1]), {0: 1, 2: 2})
    assert table.agreement.tolist() == [pytest.approx(3/6), pytest.approx(4/6), pytest.approx(3/6)]
    assert table.right.tolist() == [2, 1, 1] and table.checks.tolist() == [2, 2, 2]

@pytest.mark.parametrize("call, words", [
    (lambda: agree.percent(BOOK.drop(columns="item")), "'item'"), (lambda: agree.percent(BOOK.assign(label=None)), "holds a label"),
    (lambda: agree.percent(pd.concat([BOOK, BOOK.head(1)])), "twice"), (lambda: agree.percent(BOOK.drop_duplicates("item")), "overlap"),
    (lambda: agree.krippendorff_alpha(BOOK, "ratio"), "unknown level"), (lambda: agree.krippendorff_alpha(BOOK.assign(label="x"), "interval"), "numbers"),
    (lambda: agree.fleiss_kappa(BOOK), "krippendorff_alpha"), (lambda: agree.cohen_kappa([1], [1, 2]), "equal length"), (lambda: agree.cohen_kappa([1, None], [1, 2]), "missing"),
    (lambda: agree.cohen_kappa([1, 2], [1, 2], "cubic"), "unknown weights"), (lambda: agree.by_annotator(BOOK, {"x": 1}), "gold")])
def test_bad_answers(call, words):
    with pytest.raises(BadInput, match=words): call()

def test_answers_of_the_log(tmp_path):
    with settings_for(tmp_path):
        log.append(*[log.Event("t", i, lab, annotator=who) for who, labs in (("ana", "aab"), ("ben", "abb")) for i, lab in enumerate(labs)], log.Event("t", 3, kind="skip", annotator="ana"))
        assert agree.percent(log.current("t")) == pytest.approx(2/3)

# --- crowds ---

@pytest.mark.parametrize("name", bench.SETS)
def test_dawid_skene_beats_the_majority(name):
    df, truth = bench.SETS[name]()
    found = crowd.dawid_skene(df)
    assert bench.share(found, truth) > bench.share(crowd.majority(df), truth) + .02 and not found.notes
    assert np.allclose(found.proba.sum(axis=1), 1) and found.labels.confidence.between(0, 1).all()

def test_dawid_skene_needs_no_numbers_and_minds_gold():
    df, truth = bench.simulated(300, 10, 1500, 3, (6, 3))
    text, names = df.assign(label=df.label.map({0: "a", 1: "b", 2: "c"})), truth.map({0: "a", 1: "b", 2: "c"})
    plain, gold = crowd.dawid_skene(df), crowd.dawid_skene(text, names[:30].to_dict())
    assert bench.share(crowd.dawid_skene(text), names) == bench.share(plain, truth)
    known = gold.labels.set_index("item").label.reindex(range(30)).dropna()
    assert (known == names[known.index]).all()

def test_one_answer_each_and_one_person():
    single = coded(["a", "b", "a"])
    for found in (crowd.majority(single), crowd.dawid_skene(single)): assert found.labels.label.tolist() == ["a", "b", "a"]

def test_majority_leaves_ties_open():
    found = crowd.majority(coded(["a", "a"], ["b", "a"]))
    assert found.labels.label.isna().tolist() == [True, False] and "tied" in found.notes[0]

def test_crowdlab_wins_with_mediocre_people(capsys):
    bench.crowdlab()
    majority, ds, lab = (float(part.split()[-1]) for part in capsys.readouterr().out.strip().split(":")[1].split(","))
    assert lab > .93 and lab > ds > majority

@pytest.mark.parametrize("change, words", [(lambda p: p.head(2), "no probabilities"), (lambda p: p*np.inf, "sum to 1"), (lambda p: p.rename(columns={1: 9}), "not the label"), (lambda p: p.to_numpy(), "frame"), (lambda p: pd.concat([p, p]), "twice")])
def test_crowdlab_refuses(change, words):
    df, _ = bench.simulated(50, 5, 200, 3, (6, 3))
    proba = pd.DataFrame(np.full((50, 3), 1/3)).rename_axis("item")
    with pytest.raises(BadInput, match=words): crowd.crowdlab(df, change(proba))

# --- errors ---

def test_planted_errors_are_found():
    df, rng = digits(), np.random.default_rng(1)
    X, truth = df.drop(columns="target"), df.target.to_numpy()
    wrong = rng.random(len(truth)) < .1
    given = np.where(wrong, (truth + rng.integers(1, 10, len(truth))) % 10, truth)
    found = errors.suspects(given, errors.cross_proba(RandomForestClassifier(100, random_state=0), X, given))
    caught = wrong[found.item[found.suspect]]
    assert average_precision_score(wrong[found.item], -found.quality) > .99 and caught.mean() > .9 and caught.sum()/wrong.sum() > .9

def test_folds_keep_groups_together():
    rng = np.random.default_rng(0)
    X, groups = pd.DataFrame(rng.normal(size=(120, 3)), columns=list("abc")), np.repeat(np.arange(40), 3)
    y = rng.integers(0, 2, 40)[groups].astype(str)
    X = X.assign(leak=groups)[["leak"]]
    proba = errors.cross_proba(RandomForestClassifier(30, random_state=0), X, y, groups=groups)
    open_ = errors.cross_proba(RandomForestClassifier(30, random_state=0), X, y)
    right = lambda p: float((p.columns.to_numpy()[p.to_numpy().argmax(axis=1)] == y).mean())
    assert right(open_) > right(proba) + .2

def test_labels_outside_the_schema(tmp_path):
    rows = pd.DataFrame(dict(item=range(4), label=["car", "Car", "truck", "car"]))
    bad = errors.check_labels(rows, ["car", "bus"])
    assert not bad[0].ok and bad[0].value == 2 and not bad[3].ok and bad[3].level == "warn"
    with settings_for(tmp_path):
        task = queue.create("cars", pd.DataFrame(dict(id=range(4))), key="id", classes=["car", "bus"], kind="multi")
        assert errors.check_labels(rows.assign(label='["car"]'), task)[0].ok and not errors.check_labels(rows, task)[0].ok

def test_review_is_idempotent_and_reaches_a_reviewer(tmp_path):
    found = pd.DataFrame(dict(item=["a", "b", "c"], label=["1", "2", "1"], suggestion=["2", "1", "1"], quality=[.1, .2, .9], suspect=[True, True, False]))
    with settings_for(tmp_path):
        queue.create("t", pd.DataFrame(dict(id=["a", "b", "c"])), key="id", classes=["1", "2"])
        log.append(*[log.Event("t", i, lab, annotator="ana") for i, lab in zip("abc", "121")])
        assert [errors.review("t", found), errors.review("t", found)] == [2, 0]
        assert {i.item for i in queue.take_disagreements("t", "eva", 5)} == {"a", "b"}

def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cleanlab.filter", None)
    with pytest.raises(BadInput, match=r"mlops_nb\[label\]"): errors.suspects([0, 1], pd.DataFrame([[.5, .5], [.5, .5]]))
