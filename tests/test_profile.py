"The fast profile against pandas and data_profiling, against bad data, and its page in a real browser."
import os, re, subprocess, sys, threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_nb.core.finding import BadInput
from mlops_nb.data import compare, explore, hypotheses, profile, report, samples, segments
from mlops_nb.data.links import links

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</title></style><svg onload=alert(3)>", "'; DROP TABLE data; --", 'a"b', "{{7*7}}", "\u202egnp.exe", "=cmd|' /C calc'!A0", "a\nb", " "]

@pytest.fixture(scope="module")
def flights(): return samples.flights()

# --- the figures ---

def test_headline_numbers_are_those_of_data_profiling(flights):
    "Rows, missing, distinct, zeros, negative, mean, spread and quantiles, column by column."
    os.environ["YDATA_PROFILING_NO_ANALYTICS"] = "True"
    from data_profiling import ProfileReport
    df = flights.sample(20_000, random_state=0)
    theirs = ProfileReport(df, minimal=True, progress_bar=False).get_description()
    ours = profile.profile(df)
    assert ours.rows == theirs.table["n"] and len(ours.columns) == theirs.table["n_var"]
    assert sum(c.missing for c in ours.columns) == theirs.table["n_cells_missing"]
    for c in ours.columns:
        t = theirs.variables[c.name]
        assert (c.distinct, c.missing) == (t["n_distinct"], t["n_missing"]), c.name
        if t["type"] != "Numeric": continue
        for mine, name in dict(mean="mean", std="std", min="min", max="max", skew="skewness", kurtosis="kurtosis", zeros="n_zeros", negative="n_negative", q5="5%", q25="25%", q50="50%", q75="75%", q95="95%").items():
            assert c.stats[mine] == pytest.approx(t[name], rel=1e-8, abs=1e-9), (c.name, name)

def test_repeated_rows_are_counted_as_pandas_does():
    df = pd.DataFrame({"a": [1, 1, 2, 2, 2, 3, None, None], "b": list("xxyyyzqq")})
    p = profile.profile(df)
    assert p.duplicates == df.duplicated().sum() == 4 and p.repeated == 3   # data_profiling counts the different ones

@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_pandas(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 3000))
    df = pd.DataFrame({"x": rng.choice([rng.normal(size=n)*10.**rng.integers(-8, 9), rng.integers(-5, 5, n).astype(float), np.exp(rng.normal(size=n)*3)][int(rng.integers(3))], n), "i": rng.integers(-2**62, 2**62, n), "u": rng.integers(0, 3, n)})
    df.loc[rng.random(n) < .2, "x"] = np.nan
    p = profile.profile(df)
    for c in p.columns:
        s = df[c.name]
        assert (c.distinct, c.missing, c.rows) == (s.nunique(), s.isna().sum(), n)
        assert c.stats.get("zeros", 0) == (s == 0).sum() and c.stats.get("negative", 0) == (s < 0).sum() and sum(k for *_, k in c.bins) == s.count()
        for mine, theirs in dict(mean=s.mean(), std=s.std(), min=s.min(), max=s.max(), q5=s.quantile(.05), q50=s.median(), q99=s.quantile(.99), skew=s.skew()).items():
            if s.count() > 3 and theirs == theirs and s.nunique() > 1: assert float(c.stats[mine]) == pytest.approx(float(theirs), rel=1e-6, abs=1e-6*s.std()), (c.name, mine)

def test_every_way_in_gives_the_same(flights, tmp_path):
    import polars as pl
    df = flights.head(30_000).reset_index(drop=True)
    df.to_parquet(tmp_path/"a.parquet")
    half = [str(tmp_path/"1.parquet"), str(tmp_path/"2.parquet")]
    df[:15_000].to_parquet(half[0]), df[15_000:].to_parquet(half[1])
    ways = [df, pa.Table.from_pandas(df), pl.from_pandas(df), str(tmp_path/"a.parquet"), half, df.astype({"carrier": "category", "distance": "Int32"})]
    facts = [[(c.name, c.missing, c.distinct, sorted(c.top[:3], key=str)) for c in profile.profile(w).columns if c.name not in ("flight_id",)] for w in ways]
    for other in facts[1:]: assert [f[:3] for f in other] == [f[:3] for f in facts[0]]

def test_many_rows_are_sampled_and_say_so(flights, monkeypatch):
    monkeypatch.setattr(profile, "_MOST", 100_000)
    p = profile.profile(flights)
    temp = p["temp"]
    assert not temp.exact and temp.missing == flights.temp.isna().sum() and temp.stats["mean"] == pytest.approx(flights.temp.mean()) and temp.stats["max"] == flights.temp.max()
    assert abs(temp.stats["q50"] - flights.temp.median()) < 1 and abs(temp.distinct/flights.temp.nunique() - 1) < .1
    assert "of a random sample" in report.page(p)

def test_memory_stays_bounded(tmp_path):
    "Two million rows of 12 columns in little more memory than an empty process."
    rng = np.random.default_rng(0)
    path = tmp_path/"big.parquet"
    pq.write_table(pa.table({**{f"x{i}": rng.normal(size=2_000_000) for i in range(10)}, "id": [f"id-{i}" for i in range(2_000_000)], "c": rng.integers(0, 9, 2_000_000).astype(str)}), path, row_group_size=200_000)
    code = f"from mlops_nb.data import profile, report; p = profile.profile({str(path)!r}); report.page(p); print(p['id'].distinct, next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    distinct, kb = map(int, done.stdout.split())
    assert distinct == 2_000_000 and kb < 900_000

# --- bad data ---

@pytest.mark.parametrize("data, says", [(pd.DataFrame({"a": []}), "no rows"), (pd.DataFrame(), "column"), (pd.DataFrame([[1, 2]], columns=["a", "a"]), "a"), ("no.parquet", "no.parquet"), (7, "int"), (None, "None")])
def test_what_cannot_be_profiled_says_why(data, says):
    with pytest.raises(BadInput, match=says): profile.profile(data)

def test_a_broken_file_says_why(tmp_path):
    (tmp_path/"x.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(BadInput): profile.profile(str(tmp_path/"x.parquet"))

@pytest.mark.parametrize("values", [[None]*50, [np.nan]*50, [np.inf]*50, [np.inf, -np.inf, 1.]*20, [0.]*50, [1e308, -1e308]*30, [5e-324]*40 + [1.], [True, None]*30, [pd.Timestamp.max, pd.Timestamp.min]*20, [pd.NaT]*30,
                                    [pd.Timestamp("2020", tz="Europe/Paris")]*30, [pd.Timedelta("1D")]*30, [b"\xff\x00"]*30, [[1], None, []]*20, [{"a": 1}]*30, ["", " ", "\x00", None]*20, ["x"*100_000]*30, [2**63 - 1, -2**63]*20, [1]], ids=lambda v: repr(v[:2])[:30])
def test_any_column_gives_a_page(values):
    df = pd.DataFrame({"v": pd.Series(values), "n": range(len(values))})
    p = profile.profile(df)
    assert p["v"].missing + p["v"].present == len(values) and len(report.page(p)) < 300_000
    p._repr_html_(), profile.to_table(p)

def test_decimals_and_dates_of_arrow():
    from decimal import Decimal
    from datetime import date, time
    t = pa.table({"d": [Decimal("1.10"), Decimal("2.20"), None], "day": [date(2020, 1, 1), None, date(9999, 12, 31)], "t": [time(1), time(2), None], "s": pa.array([{"a": 1}, None, {"a": 2}]), "n": pa.nulls(3), "big": pa.array([2**64 - 1, 0, 1], pa.uint64())})
    p = profile.profile(t)
    assert [c.distinct for c in p.columns] == [2, 2, 2, 2, 0, 3] and p["d"].stats["mean"] == pytest.approx(1.65)
    assert "future" in {f.check for f in p.findings}
    report.page(p)

def test_a_thousand_columns():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(rng.normal(size=(300, 1000)), columns=[f"column {i}" for i in range(1000)]).mask(rng.random((300, 1000)) < .1)
    text = report.page(profile.profile(df))
    assert len(text) < 6_000_000 and text.count("<details class=\"col\"") == 1000

def test_nothing_hostile_becomes_markup_or_sql(tmp_path):
    df = pd.DataFrame({name: [v for v in HOSTILE]*6 for name in HOSTILE if name.strip()}).assign(number=1.5)
    df.attrs["personal"] = {}
    text = Path(report.write(df, str(tmp_path/"x.html"), HOSTILE[2], explore.insights(df.assign(y=range(len(df))), "y"))).read_text()
    assert not re.search(r"<(script|img|iframe|object|embed|link|base|form)\b", text) and not re.search(r"<[^>]*\son\w+\s*=", re.sub(r'"[^"]*"', '""', text))
    assert [c.name for c in profile.profile(df).columns] == list(df.columns)

def test_personal_values_are_nowhere():
    df = pd.DataFrame({"mail": [f"ann.smith{i}@example.org" for i in range(200)], "card": ["4111111111111111"]*200, "remarks": [f"call ann.smith{i}@example.org soon" for i in range(200)], "x": np.arange(200.)})
    p = profile.profile(df)
    for text in (report.page(p), p._repr_html_(), repr(p), repr(p.findings)): assert "example.org" not in text and "41111111" not in text
    assert {f.subject for f in p.findings if f.check == "personal"} >= {"mail", "card"}
    told = compare.compare(df[:100].assign(mail="a@b.cc"), df[100:], personal={c: "other" for c in ("mail", "card", "remarks")})
    assert "example.org" not in repr(told) and "a@b.cc" not in repr(told)

# --- what it says ---

def test_the_worst_come_first():
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"fine": rng.normal(size=1000), "gaps": rng.normal(size=1000), "code": np.r_[rng.normal(15, 4, 950).round(1), [-999.]*50], "price": [f"{i % 90}.99" for i in range(1000)], "tail": np.exp(rng.normal(size=1000)*2)})
    df.loc[:80, "gaps"] = np.nan
    found = profile.profile(pd.concat([df, df[:300]])).findings
    assert {f.check for f in found[:3]} == {"duplicates", "code", "number as text"} and all(not f.ok for f in found[:3])

def test_clean_data_raises_no_warning():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(10):
        df = pd.DataFrame({"a": rng.normal(size=2000), "b": rng.poisson(4, 2000), "c": rng.choice(list("xyz"), 2000), "d": np.exp(rng.normal(size=2000)), "e": rng.random(2000) < .3, "t": pd.date_range("2024-01-01", periods=2000, freq="h"), "u": rng.integers(0, 100, 2000)})
        wrong += sum(not f.ok for f in profile.profile(df).findings)
    assert wrong == 0

def test_a_hole_in_time_is_found():
    days = pd.date_range("2024-01-01", "2024-06-30", freq="h")
    days = days[(days < "2024-03-03") | (days >= "2024-03-09")]
    note = next(f.note for f in profile.profile(pd.DataFrame({"at": days})).findings if f.check == "hole")
    assert "2024-03-03" in note and "2024-03-09" in note

def test_links_find_bent_relations_and_no_chance():
    rng = np.random.default_rng(1)
    x = rng.normal(size=5000)
    found = {frozenset(f[:2]): f[2] for f in links(pd.DataFrame({"x": x, "bent": np.exp(-x), "group": pd.cut(x, 5).astype(str), "noise": rng.normal(size=5000), "text": rng.choice(list("abc"), 5000)}))}
    assert found[frozenset(("x", "bent"))] < -.999 and found[frozenset(("x", "group"))] > .9 and not any("noise" in k or "text" in k for k in found)

def test_segments_have_few_false_alarms():
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(20):
        df = pd.DataFrame({"a": rng.integers(0, 6, 4000).astype(str), "b": rng.integers(0, 6, 4000).astype(str), "c": rng.normal(size=4000)})
        p = .2 + .2*(df.a == "1") + .2*(df.b == "2")   # two effects that just add up
        false += len(segments.segments(df.assign(y=rng.random(4000) < p), "y")) > 1
    assert false <= 6

def test_hypotheses_survive_two_writers(tmp_path, monkeypatch):
    import json
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    path = tmp_path/"plan.ipynb"
    path.write_text(json.dumps(dict(cells=[dict(cell_type="markdown", id="m", metadata={}, source=["# Plan ü"])], metadata={"k": 1}, nbformat=4, nbformat_minor=5)), encoding="utf-8")
    threads = [threading.Thread(target=lambda k=k: [hypotheses.plan(f"idea {k}-{i}", path=path) for i in range(5)]) for k in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(hypotheses.planned(path)) == 20 and json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"] == ["# Plan ü"] and json.loads(path.read_text(encoding="utf-8"))["metadata"] == {"k": 1}

# --- the page in a browser ---

def _chromium(): return next((p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome") if Path(p).exists()), None)

@pytest.mark.skipif(not _chromium(), reason="no chromium: apt-get install chromium")
def test_the_page_opens_offline_on_a_phone_and_runs_nothing(tmp_path):
    from playwright.sync_api import sync_playwright
    df = samples.flights(until="2013-02-01").assign(**{HOSTILE[0]: HOSTILE[1], "x"*200: "y"*500})
    path = report.write(df, str(tmp_path/"x.html"), HOSTILE[2])
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=_chromium(), args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
        said, asked = [], []
        for width in (390, 1280):
            tab = browser.new_page(viewport=dict(width=width, height=844))
            tab.on("dialog", lambda d: (said.append(d.message), d.dismiss()))
            tab.on("request", lambda r: asked.append(r.url))
            tab.on("console", lambda m: said.append(m.text))
            tab.goto(f"file://{path}")
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            assert tab.locator(".cards li").count() == 3 and tab.locator(".cards li").nth(0).is_visible()
            summary = tab.locator("details.col summary").nth(3)
            summary.click()
            assert tab.locator("details.col[open] .three").is_visible()
        assert not said and all(u.startswith("file://") for u in asked), (said, asked)
        browser.close()
