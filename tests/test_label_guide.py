"Guided picks: every strategy, every bad score, fewer labels than by chance, a loop that orders the queue in the background, and statements about it that hold."
import os, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput
from mlops_nb.data.samples import digits
from mlops_nb.label import curve, guide, log, loop, queue
from conftest import load_bench

bench = load_bench("label_guide")

P = np.random.default_rng(0).dirichlet([.5]*4, 300)
X = np.random.default_rng(1).normal(size=(300, 5))

# --- the pure function ---

@pytest.mark.parametrize("strategy", guide.STRATEGIES)
@pytest.mark.parametrize("k", [1, 7, 299, 300])
def test_k_different_items_the_same_for_a_seed(strategy, k):
    got = guide.select(P, X, k, strategy, random_state=3)
    assert len(got) == len({*got.tolist()}) == k and 0 <= got.min() and got.max() < 300
    assert (got == guide.select(P, X, k, strategy, random_state=3)).all()

@pytest.mark.parametrize("strategy", ["margin", "entropy", "least confident"])
def test_the_most_unsure_come_first(strategy):
    doubt = guide.uncertainty(P, strategy)
    got = guide.select(P, None, 20, strategy)
    assert (np.diff(doubt[got]) <= 0).all() and doubt[got].min() >= np.delete(doubt, got).max()

def test_clusters_spread_the_picks():
    "Six far groups, all unsure: one pick in each, where the margin alone may take all from one."
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(6), 50)
    places = rng.normal(size=(6, 3))[group]*100 + rng.normal(size=(300, 3))
    lead = .5 + .001*(np.arange(300) >= 6)
    proba = np.c_[lead, 1 - lead]
    assert {*group[guide.select(proba, places, 6, random_state=0)]} == {*range(6)} and len({*group[guide.select(proba, None, 6, "margin", random_state=0)]}) == 1

def test_equal_scores_are_drawn_not_taken_in_order():
    got = np.concatenate([guide.select(np.full((1000, 2), .5), None, 10, "margin", random_state=s) for s in range(30)])
    assert 350 < got.mean() < 650

@pytest.mark.parametrize("proba, words", [
    (np.where(np.arange(4) == 1, np.nan, P), "row 0"), (np.r_[P[:5], [[np.inf, 0, 0, 0]]], "row 5"), (P*3, "sum to 1"), (P - .5, "0..1"), (np.ones((9, 1)), "one class"), (P[0], "items x classes"),
    (np.empty((0, 4)), "items x classes"), ([["a", "b"]], "numbers")])
@pytest.mark.parametrize("strategy", guide.STRATEGIES)
def test_bad_scores(proba, words, strategy):
    with pytest.raises(BadInput, match=words): guide.select(proba, None if len(np.shape(proba)) < 2 else np.zeros((len(proba), 2)), 1, strategy)

@pytest.mark.parametrize("more, words", [(dict(k=301), "more than the 300"), (dict(k=0), "whole number"), (dict(k=2.5), "whole number"), (dict(k=True), "whole number"), (dict(strategy="margn"), "did you mean 'margin'"),
                                         (dict(X=X[:9]), "same items"), (dict(X=None), "needs X"), (dict(X=np.where(X > 2, np.inf, X)), "infinite"), (dict(X=X.astype(str).astype(object) + "x"), "numbers")])
def test_bad_calls(more, words):
    with pytest.raises(BadInput, match=words): guide.select(**{"proba": P, "X": X, "k": 5, **more})

def test_places_of_all_kinds():
    df = pd.DataFrame(dict(x=X[:, 0], word=np.where(X[:, 1] > 0, "a", None), day=pd.date_range("2020", periods=300), flag=X[:, 2] > 0, big=pd.array([1, None]*150, dtype="Int64")))
    wide = sparse.random(300, 5000, .01, random_state=0, format="csr")
    for places in (df, wide, sparse.csr_matrix(X), [[float(i)] for i in range(300)], np.zeros((300, 2)), X.reshape(300, 5, 1)):
        assert len({*guide.select(P, places, 12, random_state=0).tolist()}) == 12 and len({*guide.spread(places, 12, 0).tolist()}) == 12
    assert guide.placed(wide).shape == (300, 50) and np.isfinite(guide.placed(df)).all()

# --- with an estimator ---

def test_rank_keeps_a_share_by_lot_and_says_what_it_skipped():
    df, y = bench.digit_set()
    model = LogisticRegression(max_iter=200).fit(df[:100]/16, y[:100])
    got = guide.rank(model, df/16, 30, labeled=range(100), explore=.2, limit=400, random_state=0)
    assert got.random.sum() == 6 and got.index.min() >= 100 and got.scanned == 406 and got.pool == 1697 and "406 of 1,697" in got.note
    assert np.array_equal(got.confidence, model.predict_proba(df.iloc[got.index]/16).max(axis=1)) and not guide.rank(model, df/16, 30, random_state=0).note

def test_rank_refuses():
    y = X[:, 0] > 0
    for estimator, more, words in ((RidgeClassifier().fit(X, y), {}, "no predict_proba"), (LogisticRegression(), {}, "not fitted"), (None, dict(labeled=range(300)), "nothing to choose"),
                                   (None, dict(labeled=[-1]), "outside"), (None, dict(labeled=range(290)), "more than the 10"), (None, dict(explore=-.1), "0..1")):
        with pytest.raises(BadInput, match=words): guide.rank(estimator, X, 20, **more)

def test_guided_needs_fewer_labels():
    "Small version of bench/label_guide.py: three seeds; 95 % of the full score after at most 90 labels, and never after more than by chance."
    df, y = bench.digit_set()
    model = lambda: LogisticRegression(max_iter=200)
    found = {s: [bench.needed(bench.curve(df/16, y, model, s, seed, enough=.95, until=160), .95) for seed in range(3)] for s in ("random", "margin+cluster")}
    assert np.median(found["margin+cluster"]) <= 90 < np.median(found["random"]) and all(a <= b for a, b in zip(found["margin+cluster"], found["random"])), found

def test_a_large_pool_is_thinned_and_learns_as_well(monkeypatch):
    rows, y = bench.pool_set(60_000)
    ends = []
    for limit in (60_000, 3_000):
        labeled = [*range(50)]
        for _ in range(3): labeled += [*guide.rank(LogisticRegression().fit(rows[labeled], y[labeled]), rows, 50, labeled=labeled, limit=limit, random_state=0).index]
        ends.append(LogisticRegression().fit(rows[labeled], y[labeled]).score(rows[-10_000:], y[-10_000:]))
    assert abs(ends[0] - ends[1]) < .02, ends

# --- curve ---

def test_the_lot_is_fair_and_needs_no_register():
    ids = [f"i{n}" for n in range(5000)]
    order = curve.lot(ids)
    assert sorted(order) == [*range(5000)] and abs(np.mean(order[:500]) - 2500) < 250 and not (curve.lot(ids, 1) == order).all()
    part = curve.lot(ids[:100])
    assert [i for i in order if i < 100] == part.tolist()
    assert len(curve.drawn(ids, ids)) == 5000 and len(curve.drawn(ids, [])) == 0

def test_random_labels_save_nothing():
    "Labels drawn by lot from start to end: not shown, with few and with many."
    df, y = bench.digit_set()
    order = curve.lot(range(len(y)))
    for seed in range(3):
        got = curve.saved(LogisticRegression(max_iter=100), df.iloc[order[:150]]/16, y[order[:150]], np.arange(150) < 50, repeats=1, draws=200, seed=seed)
        assert not got.shown and "not shown" in got.note
    assert "takes 40" in curve.saved(LogisticRegression(), X, P.argmax(axis=1), np.arange(300) < 9).note and "nothing was guided" in curve.saved(LogisticRegression(), X, P.argmax(axis=1), np.ones(300, bool)).note
    with pytest.raises(BadInput, match="marks"): curve.saved(LogisticRegression(), X, P.argmax(axis=1), [True])

def test_settled_of_models_that_know_one_class():
    assert curve.settled([np.zeros(9)]*4).ok and not curve.settled([np.zeros(9)]*3).ok
    with pytest.raises(BadInput, match="same items"): curve.accuracy([1, 2], [1])
    assert curve.accuracy([], []).value is None

# --- the loop, through the real queue and log ---

@pytest.fixture
def task(tmp_path):
    df = digits().set_axis([f"d{i}" for i in range(1797)])
    with settings_for(tmp_path):
        queue.create("digits", pd.DataFrame(dict(id=df.index)), key="id", classes=map(str, range(10)))
        yield df.drop(columns="target")/16, df.target.astype(str)

def click(truth, n, task="digits"):
    return queue.answer(*[log.Event(task, i.item, truth[i.item], annotator="ana") for i in queue.take(task, "ana", n)])

def test_steps_order_the_queue_and_measure_by_lot(task):
    places, truth = task
    model, step = LogisticRegression(max_iter=200), None
    for _ in range(6):
        step = loop.step("digits", model, places, 25, explore=.2, before=step)
        click(truth, 25)
    last = loop.step("digits", model, places, 25, explore=.2, before=step)
    assert last.labels == 150 and last.asked == 25 and last.left == 1647 and len(last.foretold) == 4
    assert last.accuracy.value > .6 and int(last.accuracy.note.split("from ")[1].split()[0]) >= 30
    shown = queue.take("digits", "ana", 25)
    assert sum(i.reason == "drawn by lot" for i in shown) == 5 and all(i.suggestion for i in shown if i.reason != "drawn by lot")

def test_production_comes_before_the_guide(task):
    places, truth = task
    loop.step("digits", LogisticRegression(), places, 20)
    queue.propose("digits", ["d5", "d6"], "drift in the scanner")
    assert {i.item for i in queue.take("digits", "ana", 2)} == {"d5", "d6"}

def test_loop_to_the_last_item(task):
    places, truth = task
    few = places[:30]
    queue.create("few", pd.DataFrame(dict(id=few.index)), key="id", classes=map(str, range(10)))
    model = LogisticRegression(max_iter=100)
    loop.step("few", model, few, 100)
    assert click(truth, 29, "few") == 29
    assert loop.step("few", model, few, 100).asked == 1 and click(truth, 9, "few") == 1
    assert loop.step("few", model, few, 100).notes == ("all items have a label",)
    for wrong, said in ((dict(k=0), "whole number"), (dict(explore=2), "outside 0..1"), (dict(strategy="margn"), "did you mean 'margin'")):
        with pytest.raises(BadInput, match=said): loop.step("few", model, few, **{**dict(k=5), **wrong})

def test_one_class_so_far_is_a_cold_start(task):
    places, truth = task
    log.append(*[log.Event("digits", i, "1", annotator="ana") for i in truth.index[truth == "1"][:5]])
    assert "no model yet" in loop.step("digits", LogisticRegression(), places, 10).notes[0]

def test_loop_refuses_before_it_starts(task):
    places, _ = task
    queue.create("boxes", ["a"], key=None, kind="value")
    for call, words in ((lambda: loop.start("digits", RidgeClassifier(), places), "no predict_proba"), (lambda: loop.start("boxes", LogisticRegression(), places), "one class"), (lambda: loop.start("digitz", LogisticRegression(), places), "digits"),
                        (lambda: loop.start("digits", LogisticRegression(), places.to_numpy()), "index"), (lambda: loop.start("digits", LogisticRegression(), places, every=0), "1 or more"), (lambda: loop.start("digits", LogisticRegression(), pd.concat([places, places])), "twice")):
        with pytest.raises(BadInput, match=words): call()

def waited(ok, seconds=60):
    end = time.monotonic() + seconds
    while not ok() and time.monotonic() < end: time.sleep(.1)
    return ok()

def test_background_loop_follows_the_log_and_stops(task):
    places, truth = task
    work = loop.start("digits", LogisticRegression(max_iter=100), places, every=10, k=20, pause=.05)
    try:
        assert waited(lambda: loop.state(work).get("labels") == 0)
        click(truth, 20)
        assert waited(lambda: loop.state(work).get("labels") == 20), loop.state(work)
        assert "learned from 20 labels" in repr(work) and queue.take("digits", "ana", 1)[0].reason
    finally: loop.stop(work)
    assert work.process.returncode == 0 and not work.folder.exists() and not loop.state(work)["running"]

def test_background_loop_says_what_went_wrong(task):
    places, truth = task
    click(truth, 40)
    work = loop.start("digits", LogisticRegression(), places.assign(gap=np.nan), every=10, pause=.05)
    try: assert waited(lambda: "NaN" in loop.state(work).get("error", "")), loop.state(work)
    finally: loop.stop(work)

def test_background_loop_ends_with_its_kernel(task):
    places, _ = task
    places.to_pickle(Path(os.environ["MLOPS_NB_ROOT"])/"x.pkl")
    code = "import os, pandas as pd; from sklearn.linear_model import LogisticRegression; from mlops_nb.label import loop; l = loop.start('digits', LogisticRegression(), pd.read_pickle(os.environ['MLOPS_NB_ROOT'] + '/x.pkl')); print(l.process.pid, flush=True); os.kill(os.getpid(), 9)"
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    assert waited(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
