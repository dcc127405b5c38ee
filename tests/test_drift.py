"Drift: distances equal to scipy's, alarms that are rare when nothing moved and come when something did, and input nobody wants."
from html.parser import HTMLParser

import numpy as np, pandas as pd, pytest
from scipy import stats
from scipy.spatial import distance as spatial

from conftest import load_bench
from mlops_nb.core.finding import BadInput, Finding
from mlops_nb.data.samples import flights
from mlops_nb.monitor import bins, distance, drift, joint, profile, signals, significance, skew

def frame(n, seed=0, move=0.): return load_bench("drift").frame(np.random.default_rng(seed), n, move)

def failing(report): return {(f.check, f.subject) for f in report.findings if not f.ok and f.level != "info"}

@pytest.fixture(scope="module")
def winter(): return flights(until="2013-04-01")

# --- distances and tests against scipy ---

LAWS = {"normal": lambda r, n: r.normal(.1, 1, n), "skewed": lambda r, n: r.lognormal(.1, 1.5, n), "heavy": lambda r, n: r.standard_cauchy(n) + .2, "counts": lambda r, n: r.poisson(3, n).astype(float)}

@pytest.mark.parametrize("law", LAWS)
def test_distances_equal_scipy_within_the_binning(law):
    rng = np.random.default_rng(3)
    before, after = LAWS[law](rng, 20_000), LAWS[law](np.random.default_rng(4), 15_000)*(1 if law == "counts" else 1.1)
    b, = bins.bins(pd.DataFrame({"x": before}))
    p, q = (profile.profile(pd.DataFrame({"x": x}), (b,)).of("x")[0][:-1] for x in (before, after))
    full = distance.shares(p).max()
    exact = stats.ks_2samp(before, after).statistic
    assert -1e-12 <= exact - distance.kolmogorov_smirnov(p, q) <= full
    assert abs(distance.mann_whitney(p, q)[0] - (1 - stats.mannwhitneyu(before, after).statistic/(20_000*15_000))) < full/2
    inner = [x.clip(b.cuts[0], b.cuts[-1]) for x in (before, after)]
    assert abs(distance.wasserstein(p[1:-1], q[1:-1], b.cuts, steps=law == "counts") - stats.wasserstein_distance(*inner)) <= np.diff(b.cuts).max()*full
    assert np.isclose(distance.jensen_shannon(p, q), spatial.jensenshannon(p, q, base=2))

def test_the_classical_tests_are_scipys():
    rng = np.random.default_rng(0)
    for k in (2, 3, 10, 60):
        p, q = rng.integers(1, 60, k), rng.integers(1, 60, k)
        assert np.allclose(distance.chi_square(p, q), np.array(stats.chi2_contingency([p, q], correction=False)[:3], float)[[0, 2, 1]])
        assert np.isclose(distance.cramers_v(p, q), stats.contingency.association([p, q]))
        rows = [np.repeat(np.arange(k), x) for x in (p, q)]
        exact = stats.mannwhitneyu(rows[1], rows[0], use_continuity=False, method="asymptotic")
        assert np.allclose(distance.mann_whitney(p, q), (exact.statistic/(p.sum()*q.sum()), exact.pvalue))
        assert np.isclose(distance.psi(p*1e6, q*1e6), stats.entropy(p, q) + stats.entropy(q, p), rtol=1e-4)

def test_the_statistic_is_scholz_and_stephens():
    rng = np.random.default_rng(1)
    for x, y in ((rng.normal(size=90), rng.normal(.2, 1, 70)), (rng.poisson(2, 200), rng.poisson(2.2, 150))):
        values = np.unique(np.r_[x, y])
        p, q = (np.searchsorted(values, v) for v in (x, y))
        p, q = (np.bincount(v, minlength=len(values)).astype(float) for v in (p, q))
        w, n = significance._weights(p + q, True), len(x) + len(y)
        a2 = (w*(significance._curve(p, True)/len(x) - significance._curve(q, True)/len(y))**2).sum()*len(x)*len(y)/n*(n - 1)/n
        m, h = 1, [1/np.arange(1, n).astype(float)]
        published = stats.anderson_ksamp([x, y], variant="midrank", method=stats.PermutationMethod(n_resamples=9)).statistic if hasattr(stats, "PermutationMethod") else None
        H, hh = 1/len(x) + 1/len(y), (1/np.arange(1, n)).sum()
        g = sum(1/((n - i)*j) for i in range(1, n - 1) for j in range(i + 1, n))
        a, b = (4*g - 6)*(m) + (10 - 6*g)*H, (2*g - 4)*4 + 8*hh*2 + (2*g - 14*hh - 4)*H - 8*hh + 4*g - 6
        c, d = (6*hh + 2*g - 2)*4 + (4*hh - 4*g + 6)*2 + (2*hh - 6)*H + 4*hh, (2*hh + 6)*4 - 4*hh*2
        sd = np.sqrt((a*n**3 + b*n**2 + c*n + d)/((n - 1)*(n - 2)*(n - 3)))
        assert np.isclose((a2 - 1)/sd, published, atol=.01), ((a2 - 1)/sd, published)

@pytest.mark.parametrize("shares, ordered", [([.3, .7], True), ([.5, .2, .15, .1, .05], True), ([.6, *[.01]*40], True), ([.6, .3, .1], False), ([.985, .01, .005], False), (list(1/np.arange(1, 41)/sum(1/np.arange(1, 41))), False)])
def test_p_values_are_what_they_say_also_with_ties(shares, ordered):
    rng = np.random.default_rng(7)
    p = np.array([significance.p_value(rng.multinomial(1_000, shares), rng.multinomial(700, shares), ordered) for _ in range(3_000)])
    for level in (.05, .01): assert stats.binomtest(int((p <= level).sum()), 3_000, level).pvalue > 1e-3 or (p <= level).mean() < level

def test_p_values_hold_when_days_vary():
    rng = np.random.default_rng(2)
    def days(n):
        F = stats.norm.cdf(np.linspace(-3, 3, 63) - rng.normal(0, .3, n)[:, None])
        return np.array([rng.multinomial(200, f) for f in np.diff(F, prepend=0, append=1)])
    pairs = [(days(15), days(16)) for _ in range(1_000)]
    p, rows = (np.array([significance.p_value(*(x if keep else x.sum(0) for x in pair)) for pair in pairs]) for keep in (True, False))
    assert (p <= .05).mean() < .06 and (p <= .01).mean() < .018 and (rows <= .01).mean() > .4

def test_the_order_of_rows_and_the_merging_of_windows_change_nothing():
    a, b = frame(3_000), frame(2_000, 1, .2)
    by = bins.bins(a)
    parts = profile.merge([profile.profile(b[:700], by), profile.profile(b[700:], by)])
    one, other = (drift.judge({"": (profile.profile(a, by), x)}).table for x in (parts, profile.profile(b.sample(frac=1, random_state=0), by)))
    pd.testing.assert_frame_equal(one, other)

# --- alarms ---

def test_false_alarms_are_rare_and_power_is_near_the_ceiling():
    trials = [drift.compare(frame(1_000, 2*s), frame(1_000, 2*s + 1), cluster=False).alarm for s in range(100)]
    assert sum(trials) <= 4                                           # P(more | 1 %) < .004
    moved = [("drift", "x0") in failing(drift.compare(frame(1_000, 2*s), frame(1_000, 2*s + 1, .1), cluster=False)) for s in range(100)]
    assert sum(moved) >= 4                                            # .116 is the most that any test can have; P(fewer | .105) < .01

def test_a_tenth_of_a_standard_deviation_is_always_found_in_ten_thousand_rows():
    for s in range(10): assert failing(drift.compare(frame(10_000, s), frame(10_000, s + 100, .1), cluster=False)) == {("drift", "x0")}

def test_a_sure_but_tiny_move_is_no_alarm():
    a, b = np.random.default_rng(0).normal(size=400_000), np.random.default_rng(1).normal(.02, 1, 400_000)
    report = drift.compare(pd.DataFrame({"x": a}), pd.DataFrame({"x": b}))
    assert report.table.p[0] < .01 and not report.alarm

def test_one_sentinel_hides_nothing_and_half_a_column_missing_is_an_alarm():
    a, b = frame(100_000)[["x0", "x1"]], frame(20_000, 1)[["x0", "x1"]]
    a.loc[0, "x0"] = -999999
    report = drift.compare(a, b.assign(x0=b.x0 + 1, x1=b.x1.where(np.arange(len(b)) % 2 == 0)))
    assert failing(report) == {("drift", "x0"), ("null_rate", "x1")}
    assert abs(report.table.set_index("feature").effect["x0"] - (2*stats.norm.cdf(.5) - 1)) < .02

def test_a_sentinel_that_is_new_is_said_at_once():
    a, b = frame(10_000)[["x0"]], frame(2_000, 1)[["x0"]]
    b.loc[3, "x0"] = -999999
    assert failing(drift.compare(a, b)) == {("range", "x0")}

def test_quiet_days_of_march_are_quiet(winter):
    first, second = winter[winter.scheduled.between("2013-03-01", "2013-03-16", inclusive="left")], winter[winter.scheduled >= "2013-03-16"]
    assert not drift.compare(first, second).alarm
    for day, rows in second.groupby(second.scheduled.dt.normalize()): assert not drift.compare(first, rows).alarm, day

def test_a_short_stretch_of_weather_is_no_alarm_where_rows_would_shout(winter):
    january, week = winter[winter.scheduled < "2013-02-01"], winter[winter.scheduled.between("2013-02-01", "2013-02-08")]
    by_day, by_row = (drift.compare(january, week, ["temp", "wind_speed", "pressure", "humid"], cluster=c) for c in ("scheduled", False))
    assert not by_day.alarm and by_row.table.drifted.sum() >= 3

def test_what_breaks_is_named():
    a, b = frame(4_000), frame(1_000, 5)
    hurt = b.drop(columns="x1").assign(x2="n/a", x3=1., c1=b.c1.where(np.arange(1_000) % 10 > 0, "nobody"), added=1, x4=np.nan, x5=b.x5*1e9)
    report = drift.compare(a, hurt, cluster=False)
    assert {("vanished_column", "x1"), ("type", "x2"), ("constant", "x3"), ("unseen_category", "c1"), ("null_rate", "x4"), ("range", "x5"), ("drift", "x5")} <= failing(report)
    assert ("new_column", "added") in {(f.check, f.subject) for f in report.findings if not f.ok}
    assert all(f.action for f in report.findings if not f.ok) and isinstance(report.findings[0], Finding)

def test_importance_orders_and_the_words_say_which_bins():
    a, b = frame(5_000), frame(5_000, 1, .5).assign(x1=lambda d: d.x1 + 1)
    report = drift.compare(a, b, cluster=False, importance={"x0": 1, "x1": .01})
    assert report.table.feature[:2].tolist() == ["x0", "x1"] and "importance 1" in next(f for f in report.findings if f.subject == "x0").note and "->" in report.table.moved[0]

def test_predictions_are_a_column_too():
    a, b = frame(5_000), frame(5_000, 1)
    rng = np.random.default_rng(0)
    a["score"], b["score"] = rng.beta(2, 5, 5_000), rng.beta(3, 5, 5_000)
    found = next(f for f in drift.compare(a, b, cluster=False, score="score").findings if f.check == "prediction_drift")
    assert not found.ok and "score" in found.note

def test_slices_are_judged_with_the_whole():
    a, b = frame(20_000), frame(20_000, 1)
    b.loc[b.c0 == "v1", "x0"] += .5
    report = drift.compare(a, b, ["x0", "x1"], slices="c0", cluster=False)
    assert set(report.table[report.table.drifted & (report.table.slice != "")].slice) == {"c0 == 'v1'"}
    assert not drift.compare(a, frame(20_000, 2), ["x0", "x1"], slices=["c0 == 'v1'", "x1 > 0"], cluster=False).alarm

def test_profiles_leave_times_out_as_frames_do():
    a, b = (frame(500, k)[["x0"]].assign(at=pd.date_range("2013-01-01", periods=500, freq="h")) for k in (0, 1))
    pair = [profile.profile(df, bins.bins(a), "at") for df in (a, b)]
    report = drift.compare(*pair)
    assert [*report.table.feature] == ["x0"] and "Left out as times: at." in report.notes
    assert {*drift.compare(*pair, ["x0", "at"]).table.feature} == {"x0", "at"}

@pytest.mark.parametrize("frames", ["polars", "arrow", "profiles"])
def test_other_frames_say_the_same(frames):
    a, b = frame(3_000), frame(3_000, 1, .3)
    expected = drift.compare(a, b, cluster=False).table
    if frames == "profiles":
        by = bins.bins(a)
        found = drift.compare(profile.profile(a, by), profile.profile(b, by)).table
    else:
        import pyarrow as pa
        to = pytest.importorskip("polars").from_pandas if frames == "polars" else pa.Table.from_pandas
        found = drift.compare(to(a), to(b), cluster=False).table
    pd.testing.assert_frame_equal(found[["feature", "effect", "p", "drifted"]], expected[["feature", "effect", "p", "drifted"]], check_dtype=False)

# --- bad input ---

def test_no_rows_and_wrong_words_are_clear_errors():
    a = frame(100)
    for bad, word in ((lambda: drift.compare(a, a.head(0)), "0 rows"), (lambda: drift.compare(a.head(0), a), "0 rows"), (lambda: drift.compare(a, a, ["xx0"]), "did you mean"), (lambda: drift.compare(a, a, cluster="dya"), "not there"),
                      (lambda: drift.compare(a, a, floor=2), "0..1"), (lambda: drift.compare(a, a, alpha=0), "0..1"), (lambda: drift.compare(a, 3), "not a frame"), (lambda: drift.compare(a, a, slices=["x0 >"]), "cannot be read"),
                      (lambda: drift.compare(a, a, slices="x0"), "conditions"), (lambda: drift.compare(profile.profile(a, bins.bins(a)), a), "cannot be compared"),
                      (lambda: drift.compare(profile.profile(a, bins.bins(a)), profile.profile(a, bins.bins(a.assign(x0=0)))), "different bins"), (lambda: significance.holm([2]), "outside")):
        with pytest.raises(BadInput, match=word): bad()

ODD = {"all missing": [None]*60, "one value": [1]*60, "infinite": [np.inf, -np.inf, 1.]*20, "mixed": [1, "a", None]*20, "booleans": [True, False]*30, "nought and one": [0, 1]*30, "huge": [1e308, -1e308, 0]*20, "text": [f"row {i}" for i in range(60)],
       "dates": list(pd.date_range("2013-03-09", periods=60, freq="h", tz="America/New_York")), "lists": [[1], [2], [1]]*20, "bytes": [b"a", b"b"]*30, "category": list("ab")*30}

@pytest.mark.parametrize("before", ODD)
def test_any_column_against_any_other_gives_a_report(before):
    for now in ODD:
        for rows in (60, 1):
            report = drift.compare(pd.DataFrame({"c": pd.Series(ODD[before])}), pd.DataFrame({"c": pd.Series(ODD[now][:rows])}), ["c"], cluster=False)
            assert len(report._repr_html_()) < 20_000 and np.isfinite(report.table[["effect", "limit", "p", "psi"]].to_numpy(float)).all(), (before, now)
            assert before != now or not report.alarm, (before, rows, failing(report))

def test_a_single_row_is_never_sure():
    for n in (1, 2, 5): assert not drift.compare(frame(1_000), frame(n, 3)).alarm and not drift.compare(frame(n, 4), frame(1_000)).alarm

def test_ten_thousand_columns_fit_in_a_report():
    rng = np.random.default_rng(0)
    a, b = (pd.DataFrame(rng.normal(size=(60, 10_000)), columns=[f"x{i}" for i in range(10_000)]) for _ in range(2))
    report = drift.compare(a, b.assign(x7=b.x7 + 3), cluster=False)
    assert failing(report) >= {("drift", "x7")} and len(failing(report)) <= 3 and len(report.table) == 10_000 and len(report._repr_html_()) < 150_000

# --- the page ---

def test_the_page_is_small_and_holds_no_script():
    a, b = frame(2_000), frame(2_000, 1, 1.)
    evil = '"><script>alert(1)</script>'
    page = drift.compare(a.rename(columns={"x0": evil}), b.rename(columns={"x0": evil}).assign(c1=evil), cluster=False)._repr_html_()
    tags, style = [], []
    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs): tags.append(tag); style.extend(k for k, _ in attrs if k.startswith("on"))
    Reader().feed(page)
    assert "script" not in tags and not style and {"table", "caption", "th", "svg", "title"} <= set(tags) and len(page.encode()) < 100_000

# --- joint drift and skew ---

def test_a_relation_that_broke_is_found_by_the_joint_tests_alone():
    rng = np.random.default_rng(1)
    def pair(n, r):
        x = rng.normal(size=n)
        return pd.DataFrame({"x": x, "y": r*x + np.sqrt(1 - r*r)*rng.normal(size=n), "z": rng.normal(size=n)})
    before, now, same = pair(3_000, .8), pair(1_500, 0), pair(1_500, .8)
    assert joint.classifier(before, now).alarm and joint.reconstruction(before, now).alarm and not drift.compare(before, now).alarm
    assert not joint.classifier(before, same).alarm and not joint.reconstruction(before, same).alarm
    assert set(joint.classifier(before, now).top.feature[:2]) == {"x", "y"}

def test_days_are_held_out_whole():
    rng = np.random.default_rng(0)
    days = np.repeat(pd.date_range("2013-01-01", periods=40), 50)
    df = pd.DataFrame({"day": days, "storm": np.repeat(rng.normal(size=40), 50) + .01*rng.normal(size=2_000)})
    assert joint.classifier(df[:1000], df[1000:], cluster=False).auc > .9 and not joint.classifier(df[:1000], df[1000:], cluster="day").alarm

def test_small_windows_are_told_in_words():
    with pytest.raises(BadInput, match="at least 50"): joint.classifier(frame(10), frame(100))
    with pytest.raises(BadInput, match="at least 20"): joint.reconstruction(frame(10), frame(100))

def test_skew_finds_the_value_and_the_example():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": np.arange(500), "a": rng.normal(size=500), "b": rng.choice(["x", "y"], 500), "t": pd.date_range("2013-03-10", periods=500, freq="h")})
    log = table.sample(300, random_state=1).assign(t=lambda d: d.t.dt.tz_localize("UTC").dt.tz_convert("America/New_York"))
    assert not skew.compare(table, log, "id").alarm
    wrong = log.assign(a=np.where(log.id == 7, 99, log.a) if 7 in set(log.id) else log.a + np.r_[99, np.zeros(299)])
    found = skew.compare(table, wrong, "id")
    assert found.alarm and found.table.different.tolist()[0] == 1 and {f.subject for f in found.findings if not f.ok and f.check == "training_serving_skew"} == {"a"}

def test_skew_says_what_is_wrong_with_ids():
    table = pd.DataFrame({"id": [1, 2, 2, None], "a": [1., 2, 3, 4]})
    found = skew.compare(table, pd.DataFrame({"id": ["1", "2", "9"], "a": [1., 3., 5.]}), "id")
    assert {f.check for f in found.findings if not f.ok} == {"duplicate_id", "unmatched_id"} and found.table.different.sum() == 0
    with pytest.raises(BadInput, match="did you mean"): skew.compare(table, table, "idd")
    with pytest.raises(BadInput, match="0 rows"): skew.compare(table, table.head(0), "id")

# --- days that resemble their neighbours ---

def spells(rng, n, k, move=0., rows=200):
    "Counts of n days whose levels are an AR(1) with correlation k."
    level = np.zeros(n)
    for i in range(n): level[i] = (k*level[i - 1] if i else 0) + rng.normal(0, .3*np.sqrt(1 - k*k) if i else .3)
    return np.array([rng.multinomial(rows, f) for f in np.diff(stats.norm.cdf(np.linspace(-3, 3, 63) - (level + move)[:, None]), prepend=0, append=1)])

def alarmed(seed, n, m, k, move=0., columns=20):
    rng = np.random.default_rng(seed)
    parts = [(x[:n], x[n:], True, 0) for x in (spells(rng, n + m, k) for _ in range(columns))]
    if move: parts[0] = (parts[0][0], spells(rng, m, k, move), True, 0)
    p = significance.holm([significance.p_value(*c, r=r) for c, r in zip(parts, significance.alike(parts))])/.6
    return p[0] <= .01 if move else (p <= .01).any()

@pytest.mark.parametrize("n, m, k", [(15, 16, .5), (90, 30, .5), (15, 16, .8)])
def test_days_that_resemble_their_neighbours_do_not_alarm(n, m, k):
    assert sum(alarmed(s, n, m, k) for s in range(40)) <= 2            # P(more | .01) < .01

def test_independent_days_keep_their_power():
    assert sum(alarmed(s, 15, 16, 0, .5) for s in range(40)) >= 20 and not any(alarmed(s, 15, 16, 0) for s in range(40))

def test_the_report_says_that_neighbours_resemble_each_other():
    rng = np.random.default_rng(0)
    days = np.repeat(pd.date_range("2025-01-01", periods=40), 100)
    level = pd.DataFrame(3*rng.normal(size=(40, 8))).ewm(alpha=.05).mean().to_numpy()
    df = pd.DataFrame(level[np.repeat(np.arange(40), 100)] + rng.normal(size=(4_000, 8)), columns=[*"abcdefgh"]).assign(day=days)
    note, = [n for n in drift.compare(df[:2000], df[2000:], cluster="day").notes if "resemble" in n]
    assert "40 count as" in note
    before, now = spells(rng, 8, 0), spells(rng, 8, 0, 2.)
    assert significance.p_value(before, now, r=.8) == 1 and significance.p_value(before, now, r=0.) < .001
    assert "longer reference" in next(drift._spells(16, np.full(3, .8))) and not [*drift._spells(16, np.full(3, .1))]
    calm = df.assign(day=rng.permutation(days))
    assert not any("resemble" in n and "count as" in n for n in drift.compare(calm[:2000], calm[2000:], cluster="day").notes)
