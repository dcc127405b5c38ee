"Health of a model and what it lives on: with a real server, its log and its /metrics, and with everything that can be wrong with clocks, ids and outcomes."
import http.server, threading

import numpy as np, pandas as pd, pytest

from conftest import wait_until
from mlops_nb.core import ledger
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput, Finding
from mlops_nb.data import dataset
from mlops_nb.monitor import arrivals, health
from mlops_nb.serve import capture, outcomes

NOW = pd.Timestamp("2013-04-10")

def log(n=20_000, days=40, seed=0):
    rng = np.random.default_rng(seed)
    at = pd.date_range(NOW - pd.Timedelta(days=days), NOW, periods=n)
    return pd.DataFrame(dict(item=[f"f{i}" for i in range(n)], scored_at=at, happened=at + pd.Timedelta(hours=3), model_version=1, score=rng.random(n), latency_ms=rng.gamma(4, 1, n)))

def known(df, seed=1):
    rng = np.random.default_rng(seed)
    found = pd.DataFrame(dict(id=df["item"], label=(rng.random(len(df)) < .3)*1., at=df.happened + pd.to_timedelta(rng.exponential(2, len(df)), "D")))
    return found[found["at"] < NOW]

def by_check(findings): return {f.check: f for f in findings}
def bad(findings): return [f.check for f in findings if not f.ok]

@pytest.fixture
def project(tmp_path):
    with settings_for(tmp_path) as s:
        yield s.root
        ledger.close()

# --- what is usual ---

def test_the_usual_gap_is_what_nearly_every_moment_knows():
    rng = np.random.default_rng(0)
    regular = pd.date_range("2013-01-01", periods=500, freq="h")
    assert arrivals.usual_gap(regular) == pytest.approx(.99/24, rel=.01) and arrivals.usual_gap(rng.permutation(regular)) == pytest.approx(arrivals.usual_gap(regular))
    gaps = rng.exponential(1, 4000)
    times = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.cumsum(gaps), "D")
    moments = np.sort(rng.uniform(0, gaps.sum(), 200_000))
    since = moments - np.r_[0, np.cumsum(gaps)][np.searchsorted(np.cumsum(gaps), moments)]
    assert arrivals.usual_gap(times) == pytest.approx(np.quantile(since, .99), rel=.05)

def test_overdue_knows_time_zones_daylight_saving_and_little():
    hours = pd.date_range("2013-03-20", "2013-04-05", freq="h", tz="Europe/Berlin")   # the clock was put forward on 31 March
    assert arrivals.usual_gap(hours) == pytest.approx(.99/24, rel=.01)
    assert arrivals.overdue("c", "s", hours, "2013-04-04T23:00+00:00").ok and not arrivals.overdue("c", "s", hours, "2013-04-05T02:00").ok
    assert arrivals.overdue("c", "s", hours[:2], "2013-06-01").level == "info" and not arrivals.overdue("c", "s", hours[:2], "2013-06-01", limit=3).ok
    assert arrivals.overdue("c", "s", [], NOW).note == "nothing ever came" and not arrivals.overdue("c", "s", [pd.NaT], NOW).ok
    ahead = arrivals.overdue("c", "s", [*hours, pd.Timestamp("2033-01-01", tz="UTC")], "2013-04-05T02:00")
    assert not ahead.ok   # a time stamp of the future hides no silence

def test_the_usual_delay_is_the_product_limit_estimate():
    days = [1, 2, 2, 3, 4, 5]                       # by hand: outcomes on days 1, 2, 4; the others are still waited for
    came = [True, True, False, False, True, False]
    begin = [NOW - pd.Timedelta(days=10 if c else d) for d, c in zip(days, came)]
    at = [b + pd.Timedelta(days=d) if c else pd.NaT for b, d, c in zip(begin, days, came)]
    d = arrivals.usual_delay(begin, at, NOW)
    assert d.days.tolist() == [1, 2, 4] and np.allclose(d.share, [1 - 5/6, 1 - 5/6*4/5, 1 - 5/6*4/5*1/2]) and d(.5) == 0 and np.allclose(d([1, 3.9]), d.share[:2])
    with pytest.raises(BadInput, match="no prediction is about"): arrivals.usual_delay([NOW], [pd.NaT], NOW - pd.Timedelta(days=1))

def test_outcomes_before_their_prediction_and_never_are_no_trouble():
    df = log(3000)
    d = arrivals.usual_delay(df.happened, df.happened - pd.Timedelta(days=1), NOW)
    assert d(0) == 1 and not arrivals.outcome_delay(df.happened, pd.Series(pd.NaT, index=df.index), NOW).value

# --- the prediction log ---

def test_a_healthy_log_is_fine_and_each_trouble_has_its_finding():
    df = log()
    assert bad(health.predictions(df, NOW)) == []
    last = df.scored_at > NOW - pd.Timedelta(days=1)
    troubles = {"prediction_freshness": df[df.scored_at < NOW - pd.Timedelta(hours=20)], "volume": df[~last | (df.index % 4 == 0)], "latency": df.assign(latency_ms=df.latency_ms.where(~last, df.latency_ms*4)),
                "repeated_ids": pd.concat([df, df[:1].assign(score=2.)]), "missing_answers": df.assign(score=df.score.where(~last | (df.index % 20 > 0))), "prediction_clock": pd.concat([df, df[:1].assign(item="x", scored_at=NOW + pd.Timedelta(hours=5))])}
    for check, sick in troubles.items(): assert check in bad(health.predictions(sick, NOW)), check
    assert bad(health.predictions(pd.concat([df, df]), NOW)) == []   # the same answer twice is no contradiction

def test_weekends_are_quiet_every_week():
    df = log(40_000)
    df = df[(df.scored_at.dt.dayofweek < 5) | (df.index % 10 == 0)]
    for now in pd.date_range(NOW - pd.Timedelta(days=6), NOW): assert by_check(health.predictions(df[df.scored_at <= now], now))["volume"].ok, now

def test_a_shadow_repeats_nothing_and_no_log_is_said():
    df = log(3000)
    assert "repeated_ids" not in bad(health.predictions(pd.concat([df.assign(role="answer"), df.assign(role="shadow", score=.9)]), NOW))
    assert [f.level for f in health.predictions(df[:0], NOW)] == ["warn"]
    zoned = df.assign(scored_at=df.scored_at.dt.tz_localize("UTC"))
    assert [f.value for f in health.predictions(zoned, "2013-04-10T00:00Z")] == pytest.approx([f.value for f in health.predictions(df, NOW)], nan_ok=True)

# --- outcomes ---

def test_outcomes_that_are_wrong_in_every_way():
    df = log()
    fine = known(df)
    assert bad(health.truths(fine, df, NOW)) == []
    troubles = {"outcomes_stopped": fine[fine["at"] < NOW - pd.Timedelta(days=3)], "outcome_delay": fine[(fine["at"] < NOW - pd.Timedelta(days=5)) | (fine.index % 3 == 0)], "unknown_ids": pd.concat([fine, fine[:900].assign(id="nobody")]),
                "changed_outcomes": pd.concat([fine, fine[:900].assign(label=1 - fine.label)]), "outcome_clock": pd.concat([fine, fine[:1].assign(at=NOW + pd.Timedelta(days=2))])}
    for check, sick in troubles.items(): assert check in bad(health.truths(sick, df, NOW)), check
    assert "unknown_ids" not in bad(health.truths(troubles["unknown_ids"], df, NOW, others=["nobody"]))
    words = fine.assign(label=np.nan, word="cat")
    assert bad(health.truths(words, df, NOW)) == [] and bad(health.truths(pd.concat([words, words[:900].assign(word="dog")]), df, NOW)) == ["changed_outcomes"]
    assert bad(health.truths(fine[:0], df, NOW)) == ["outcomes_stopped"]
    assert {f.check for f in health.truths(fine.drop(columns="at"), df, NOW)} == {"unknown_ids", "changed_outcomes"}

# --- a project ---

def test_check_reads_the_projects_log_and_never_falls_over(project):
    found = health.check("late_flights", data=["flights"], url="http://127.0.0.1:9/metrics")
    assert {"staleness", "data_freshness", "prediction_freshness", "outcomes_stopped", "serving"} <= set(bad(found)) and all(f.note and f.action for f in found if not f.ok)
    now = pd.Timestamp.now("UTC").tz_localize(None)
    df = pd.DataFrame(dict(distance=[1., 2., 3.], flight=["a", "b", "b"], when=now))
    capture.log(df, [.1, .2, .3], "late_flights", 1, "flight", "when", batch="one")
    outcomes.join(pd.DataFrame(dict(id=["a", "nobody"], label=[1, 0])))
    dataset.append(df, "flights")
    found = by_check(health.check("late_flights", data=["flights"]))
    assert found["repeated_ids"].value == 1 and not found["repeated_ids"].ok and found["unknown_ids"].value == .5 and found["data_freshness"].ok and found["prediction_freshness"].value < .1
    (project/"settings.ini").write_text("[mlops_nb]\ntraking_uri = x\n")
    assert health.check("late_flights")

def test_staleness_counts_from_the_rows_that_were_learned(project):
    ledger.event("register", "m", version=1, metrics={}, tags={"trained_until": "2013-03-31"})
    ledger.wrote("alias", "m@champion", 1)
    assert health.staleness("m", NOW).value == 10 and not health.staleness("m", NOW, limit=7).ok and health.staleness("m", "2013-04-10T02:00+02:00").value == 10
    ledger.wrote("alias", "m@champion", 2)
    with pytest.raises(BadInput, match="version 2 of 'm'"): health.staleness("m", NOW)
    assert by_check(health.check("m"))["staleness"].note.startswith("could not be looked at")

def test_failed_runs_are_named_until_they_succeed(project):
    place = "nbs/workflows/score.ipynb"
    ledger.end_run(ledger.start_run(place), "failed", "BadInput: no model")
    assert [(f.subject, f.ok, f.level) for f in health.runs()] == [("score", False, "error")] and "no model" in health.runs()[0].note
    ledger.end_run(ledger.start_run(place), "done")
    assert [f.ok for f in health.runs()] == [True]

# --- servers, and Prometheus ---

def test_a_real_server_is_looked_at_over_the_network(tmp_path):
    pytest.importorskip("orjson"), pytest.importorskip("uvloop"), pytest.importorskip("httptools")
    from test_capture import ended, started
    from test_serve import fitted, flights, register, rows, split
    with settings_for(tmp_path):
        df, _ = flights()
        register("delays", fitted(0), df.head(20), "champion")
        server = started("delays", every=.3, env={"MLOPS_NB_ROOT": str(tmp_path)})
        try:
            for i in range(30): assert server.score(dict(dataframe_split=split(rows(1))), x_request_id=f"r{i}")[0] == 200
            assert server.score(dict(dataframe_records=[{"distance": "far"}]))[0] == 400
            url = f"http://127.0.0.1:{server.port}/metrics"
            counts = health.scrape(url)
            wait_until("predictions in the warehouse", lambda: dataset.latest("predictions") is not None and len(dataset.read("predictions")) == 30, server.process, 60)
            found = by_check(health.check("delays", url=url, max_ms=1e5))
            assert found["serving_errors"].ok and found["serving_errors"].note.startswith("0 of 31 answers") and "1 refused" in found["serving_errors"].note and found["serving_latency"].ok and found["prediction_log"].ok and found["staleness"].ok
            assert found["prediction_freshness"].value < .01 and found["volume"].value == 30
            assert server.score(dict(dataframe_split=split(rows(1))))[0] == 200
            assert "99 % of 1 answers" in by_check(health.serving(health.scrape(url), counts))["serving_latency"].note
        finally: ended(server)
        gone = by_check(health.check("delays", url=url))["serving"]
        assert (gone.ok, gone.level) == (False, "error") and "does not answer" in gone.note
        ledger.close()

def test_counts_of_a_server_that_was_started_again_count_from_its_start():
    key = ("mlops_requests_total", (("model", "m"), ("version", "1"), ("status", "500")))
    assert by_check(health.serving({key: 5.}, {key: 3.}))["serving_errors"].note.startswith("2 of 2") and by_check(health.serving({key: 1.}, {key: 3.}))["serving_errors"].note.startswith("1 of 1")
    assert not by_check(health.serving({("mlops_registry_up", (("model", "m"),)): 0.}))["registry_away"].ok

def test_what_is_no_server_is_said():
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"<html>hello there</html>\n")
        def log_message(self, *a): pass
    page = http.server.HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=page.serve_forever, daemon=True)
    thread.start()
    try:
        with pytest.raises(BadInput, match="no line of Prometheus metrics"): health.scrape(f"http://127.0.0.1:{page.server_port}/")
    finally: page.shutdown(); page.server_close(); thread.join()
    for odd in ("file:///etc/hostname", "localhost", ""):
        with pytest.raises(BadInput, match="no address"): health.scrape(odd)

def test_prometheus_reads_what_we_write():
    parser = pytest.importorskip("prometheus_client.parser")
    odd = [Finding("auc", 'a "b" \\ c\nd', .7, .6), Finding("x", "s", float("nan"), float("inf"), ok=False), Finding("run_failed", "score", "failed", ok=False), Finding("x", "s", 1., 2.), Finding("n", "s", np.float32(3), -np.inf), Finding("none", "s", None)]
    text = health.prometheus(odd, "m")
    found = {f.name: {(s.labels["check"], s.labels["subject"]): s.value for s in f.samples} for f in parser.text_string_to_metric_families(text)}
    assert found["mlops_check_value"]["auc", 'a "b" \\ c\nd'] == .7 and np.isnan(found["mlops_check_value"]["x", "s"]) and found["mlops_check_limit"]["x", "s"] == np.inf
    assert found["mlops_check_state"] == {("auc", 'a "b" \\ c\nd'): 0, ("x", "s"): 2, ("run_failed", "score"): 2, ("n", "s"): 0, ("none", "s"): 0} and ("run_failed", "score") not in found["mlops_check_value"]
    ours = health.parsed(text)
    theirs = {(s.name, tuple(s.labels.items())): s.value for f in parser.text_string_to_metric_families(text) for s in f.samples}
    assert ours.keys() == theirs.keys() and all(ours[k] == theirs[k] or np.isnan(ours[k]) for k in ours)
    assert health.prometheus([]).count("# TYPE") == 3
