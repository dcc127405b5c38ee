"""Rules, quality and learning on data that means harm, against plain pandas as the judge."""
import re, string

import numpy as np, pandas as pd, pytest

from mlops_nb.core.finding import BadInput, DataCheckFailed, MlopsError

NASTY = ['x" FROM data; DROP TABLE data; --', "it's", "`tick`", "a b", "{x}", "<script>alert(1)</script>", "naïve ✈", "unique", "rows", "line\nbreak", "%s ? $1", "when", "back\\slash", "data", "source"]

@pytest.fixture(autouse=True)
def home(small): return small

def frame(seed, rows=300):
    "Columns of every kind with gaps, infinities, odd words and odd names."
    rng = np.random.default_rng(seed)
    gap = lambda values: pd.Series(values).where(rng.random(rows) > .1)
    words = ["EWR", "it's", 'say "hi"', "a, b", " lead", "", "x.y", "when", "<b>", "ü", "'", "1 %"]
    df = pd.DataFrame({"number": gap(rng.normal(0, 100, rows)), "whole": rng.integers(-5, 500, rows), "few": gap(rng.choice(words, rows)), "id": [f"N{i}-{seed}" for i in range(rows)],
                       "start": pd.Timestamp("2013-01-01") + pd.to_timedelta(rng.integers(0, 10**6, rows), unit="s"), "flag": rng.random(rows) < .5, "none": [None]*rows, "infinite": rng.choice([np.inf, 1., -2.], rows)})
    df["end"] = df["start"] + pd.to_timedelta(rng.integers(0, 10**5, rows), unit="s")
    return df.rename(columns={"few": NASTY[seed % len(NASTY)], "whole": NASTY[(seed + 3) % len(NASTY)]})

# --- the counts are those of pandas ---

def test_counts_are_those_of_pandas():
    from mlops_nb.data.rules import judge
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"a": rng.normal(size=5000), "b": rng.normal(size=5000), "n": rng.integers(0, 900, 5000), "c": rng.choice(["A1", "B22", "c3", "D"], 5000),
                       "t": pd.Timestamp("2013-01-01") + pd.to_timedelta(rng.integers(0, 10**7, 5000), unit="s")})
    df.loc[rng.random(5000) < .1, ["a", "c"]] = np.nan
    wrong = {"a complete": df.a.isna(), "a between -1 and 1": df.a.notna() & ~df.a.between(-1, 1), "c in A1, B22": df.c.notna() & ~df.c.isin(["A1", "B22"]), "c not in D": df.c.eq("D"),
             "c matches [A-Z][0-9]+": df.c.notna() & ~df.c.fillna("").str.fullmatch("[A-Z][0-9]+"), "length of c between 2 and 2": df.c.str.len().notna() & (df.c.str.len() != 2), "unique n": df.duplicated("n"),
             "unique a, c": df.duplicated(["a", "c"]), "a < b": df.a.notna() & ~(df.a < df.b), "a + .5 <= b*2 or n > 450": df.a.notna() & ~((df.a + .5 <= df.b*2) | (df.n > 450)), "t after 2013-02-01": ~(df.t > "2013-02-01"),
             "0 <= n < 700": ~((df.n >= 0) & (df.n < 700)), "not (a > 0)": df.a.notna() & (df.a > 0), "c in ('A1', 'D') or n % 2 == 0": df.c.notna() & ~(df.c.isin(["A1", "D"]) | (df.n % 2 == 0))}
    for f, (line, expected) in zip(judge(df, wrong), wrong.items()): assert f.value == pytest.approx(expected.mean(), abs=1e-12), line
    few = judge(df, ["a between -1 and 1 when c == 'D'"])[0]
    assert few.value == pytest.approx((df.a[df.c == "D"].notna() & ~df.a[df.c == "D"].between(-1, 1)).mean())

def test_rows_are_marked_in_the_order_of_the_frame():
    from mlops_nb.data.rules import marked
    df = pd.DataFrame({"x": np.random.default_rng(1).permutation(200_000)}, index=[7]*200_000)
    assert (marked(df, "x < 1000") == (df.x >= 1000).to_numpy()).all()

def test_every_form_of_data_gives_the_same(tmp_path):
    import polars, pyarrow as pa, pyarrow.dataset as ds
    from mlops_nb.data.quality import check
    df = frame(3).drop(columns="none")
    df.to_parquet(tmp_path/"a.parquet")
    df.to_csv(tmp_path/"a.csv", index=False)
    forms = [df, pa.Table.from_pandas(df), polars.from_pandas(df), polars.from_pandas(df).lazy(), ds.dataset(tmp_path/"a.parquet"), tmp_path/"a.parquet", [str(tmp_path/"a.parquet")]]
    said = [[(f.check, f.subject, round(f.value, 9), f.ok) for f in check(d, key="id", rules=["start <= end"], ranges={"number": (-100, 100)}, missing=.2)] for d in forms]
    assert all(s == said[0] for s in said) and any(not ok for *_, ok in said[0])
    assert check(tmp_path/"a.csv", key="id", missing=.3)[-1].ok

# --- what is learned holds ---

@pytest.mark.parametrize("seed", range(len(NASTY)))
def test_what_is_learned_is_kept_by_what_it_was_learned_from(seed):
    from mlops_nb.data.learn import learn
    from mlops_nb.data.rules import judge
    df = frame(seed)
    lines = learn(df, volumes=[250, 350])
    bad = [str(f) for f in judge(df, lines) if not f.ok]
    assert not bad and "unique id" in lines and "warn: start <= end" in lines and lines[-1] == "warn: rows between 240 and 360"

def test_learning_with_tolerance_survives_a_few_wrong_rows():
    from mlops_nb.data.learn import learn
    from mlops_nb.data.rules import judge
    df = frame(0, 20_000).rename(columns={NASTY[0]: "few", NASTY[3]: "whole"})
    df.loc[:3, "number"], df.loc[5, "few"] = 1e9, "ODD"
    lines = learn(df, tolerance=.001)
    assert all(f.ok for f in judge(df, lines)) and not any("ODD" in l for l in lines)
    low, high = map(float, re.search(r"^warn: number between (\S+) and (\S+)", "\n".join(lines), re.M).groups())
    assert high < 10_000 and "except 0.2 %" in next(l for l in lines if l.startswith("warn: number between"))

# --- harm ---

@pytest.mark.parametrize("name", NASTY)
def test_names_are_names(name):
    from mlops_nb.data import quality
    from mlops_nb.data.learn import called
    df = pd.DataFrame({name: ["a", "b", "b"], "n": [1, 2, 3]})
    found = quality.check(df, key=name, ranges={name: {"a"}}, rules=[f"{called(name)} in a, b", f"n > 0 when {called(name)} == 'a'"])
    assert [f.value for f in found[2:]] == [pytest.approx(1/3), pytest.approx(2/3), 0, 0]
    assert len(quality.offending(df, [f"{called(name)} in a"])) == 2

@pytest.mark.parametrize("line", ["x in (SELECT 1)", "x == (lambda: 1)()", "x > open('/etc/passwd')", "x.__class__ == 1", "x if 1 else 2", "x; DROP TABLE data", "read_csv('/etc/passwd') == x", "getenv('HOME') == x",
                                  "f'{x}' == 1", "x == b'1'", "x == 1j", "(x := 1) > 0", "[*x] == 1", "x == None", "x" + " + x"*5000 + " > 0", "pg_read_file('x') > x", "x matches (a+", "x in ,", "between 1 and 2", "unique", "x is 1"])
def test_a_line_can_only_compare(line):
    from mlops_nb.data.rules import judge
    with pytest.raises(BadInput): judge(pd.DataFrame({"x": [1, 2]}), [line])

def test_values_are_parameters():
    from mlops_nb.data import quality, rules
    df = pd.DataFrame({"x": ["a", "'); DROP TABLE data; --", "<img src=x onerror=alert(1)>"]})
    assert [f.value for f in quality.validity(df, {"x": {"'); DROP TABLE data; --"}})] == [pytest.approx(2/3)]
    assert rules.judge(df, ["x == '\\'); DROP TABLE data; --' or x == 'a'"])[0].value == pytest.approx(1/3)
    assert rules.judge(df, ["x matches .*(a|b|ab)*c?.*"])[0].ok                 # no pattern takes for ever
    slow = pd.DataFrame({"x": ["a"*50_000 + "!"]})
    assert not rules.judge(slow, ["x matches (a*)*(a*)*b"])[0].ok

def test_no_file_and_no_variable_is_reached():
    from mlops_nb.data.scan import scan
    secret = pd.DataFrame({"password": ["hunter2"]})
    for sql in ("SELECT * FROM secret", "SELECT * FROM '/etc/passwd'", "COPY data TO '/tmp/mlops-nb-out.csv'", "INSTALL httpfs", "ATTACH '/tmp/mlops-nb-x.db'", "SET enable_external_access = true"):
        with pytest.raises(BadInput):
            with scan(pd.DataFrame({"a": [1]})) as (con, view): con.execute(sql)
    assert len(secret) == 1

@pytest.mark.parametrize("data", [pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame({"a": [], "b": []}, dtype=object)])
def test_an_empty_frame_is_not_perfect(data):
    from mlops_nb.data import learn, quality, schema
    for call in (lambda: quality.check(data), lambda: learn.learn(data), lambda: schema.infer(data)):
        with pytest.raises(BadInput): call()

@pytest.mark.parametrize("values", [[None]*3, [np.nan]*3, [1, "x", 2.5], [{"a": 1}, [1], None], [b"\xff", None, b"x"], pd.period_range("2013", periods=3, freq="M"), pd.Categorical(["a", None, "b"]), [2**70, 1, None],
                                    pd.array([1, None, 2], "Int64"), pd.array(["a", None, "b"], "string"), pd.to_timedelta([1, 2, None], unit="s"), pd.cut([1, 2, 3], 2), [1j, 2j, None],
                                    pd.to_datetime(["2013-01-01", None, "2014-01-01"]).tz_localize("Europe/Paris"), pd.arrays.SparseArray([0, 0, 1]), [np.inf, -np.inf, np.nan], ["\ud800", "x", None]])
def test_no_column_breaks_it(values):
    from mlops_nb.data import quality, schema
    df = pd.DataFrame({"odd": values, "n": [1, 2, 3]})
    try:
        found = quality.check(df, missing=1)
        assert found[0].subject == "odd" and found[0].value == pytest.approx(df.odd.isna().mean())
        made = schema.infer(df)
        assert not [str(f) for f in schema.check(df, made) if not f.ok]
    except BadInput as e: assert "\\ud800" in str(e)

def test_names_that_cannot_be_told_apart_are_said():
    from mlops_nb.data import quality
    for df in (pd.DataFrame({"a": [1], "A": [2]}), pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame([[1, 2]], columns=[1, "1"])):
        with pytest.raises(BadInput, match="rename one"): quality.check(df)

def test_too_little_memory_is_said():
    from mlops_nb.data.rules import judge
    df = pd.DataFrame({"a": np.arange(2_000_000), "b": [str(i)*3 for i in range(2_000_000)]})
    try: assert judge(df, ["unique b, a"], memory="30MB")[0].ok
    except MlopsError as e: assert "30MB" in str(e)
    with pytest.raises(BadInput): judge(df, ["unique a"], memory="lots")

def test_a_file_that_is_no_data(tmp_path):
    from mlops_nb.data.rules import judge
    for name, content in (("a.parquet", b"PAR1 not at all PAR1"), ("b.csv", b"\x00\xff\xfe"*100), ("c.parquet", b""), ("d.xlsx", b"x")):
        (tmp_path/name).write_bytes(content)
        with pytest.raises(BadInput): judge(tmp_path/name, ["unique id"])

# --- personal data ---

def test_no_finding_shows_a_personal_value():
    from mlops_nb.core.finding import to_frame
    from mlops_nb.data import contract, learn, quality, rules, schema
    mails = ["ann@example.org", "bob@example.org", "nobody", "ann@example.org"]
    df = pd.DataFrame({"mail": mails, "n": [1, 2, 3, 4]})
    df.attrs["personal"] = {"mail": "e-mail"}
    lines = ["mail matches .*@.*[.]com", "unique mail", "mail in x@y.org", "mail < 'a'", "n < 1", "mail == 'x' or n > 9"]
    made = schema.infer(df, learned=True)
    said = [to_frame(rules.judge(df, lines)).to_csv(), quality.offending(df, lines).to_csv(), repr(learn.learn(df)), contract.to_toml(made), schema.to_json(made),
            to_frame(schema.check(df, schema.Schema((schema.Column("mail", "integer", personal="e-mail"), schema.Column("n", "text"))))).to_csv(),
            to_frame(schema.check(df, schema.Schema((schema.Column("mail", "text", categories=("x",), personal="e-mail"),)))).to_csv()]
    for text in said: assert not [m for m in mails[:3] if m in text], text

# --- quarantine ---

def test_quarantine_loses_and_doubles_nothing():
    from mlops_nb.data import dataset, quality
    df = pd.DataFrame({"id": range(100), "x": [-1. if i % 10 == 0 else float(i) for i in range(100)], "name": [f"n{i}" for i in range(100)]}, index=[0]*100)
    lines = ["x > 0", "unique id", "warn: name in n1", "x complete", "rows between 1 and 5"]
    for _ in range(3): good, found = quality.quarantine(df, "flights", lines)
    kept = dataset.read("flights.quarantine")
    assert sorted([*good.id, *kept.id]) == list(range(100)) and len(kept) == 10 and set(kept._broke) == {"x > 0"}
    assert {f.check: f.level for f in found if not f.ok} == {"consistency": "warn", "validity": "warn", "volume": "error"}
    assert "flights.quarantine" in found[0].note and quality.rate(found, "flights").value < 1
    twice = pd.concat([df[df.x > 0], df[df.x > 0].head(3)])
    good, _ = quality.quarantine(twice, "flights", lines)
    assert good.id.is_unique and len(good) == 90 and len(dataset.read("flights.quarantine")) == 13

def test_quarantine_takes_a_column_of_another_type():
    from mlops_nb.data import dataset, quality
    quality.quarantine(pd.DataFrame({"id": range(10), "x": [-1.]+[1.]*9}), "a", ["x > 0"])
    good, _ = quality.quarantine(pd.DataFrame({"id": range(10), "x": ["bad"]+["ok"]*9}), "a", ["x in ok"])
    kept = dataset.read("a.quarantine")
    assert len(good) == 9 and set(kept["x"].dropna()) == {-1.} and set(kept["x (text)"].dropna()) == {"bad"}

def test_a_broken_source_stops_before_anything_is_written():
    from mlops_nb.data import dataset, quality
    with pytest.raises(DataCheckFailed, match="more than 20%"): quality.quarantine(pd.DataFrame({"x": [-1, -1, 1]}), "b", ["x > 0"])
    assert "b.quarantine" not in dataset.names()
    good, found = quality.quarantine(pd.DataFrame({"x": [1, 2]}), "b", "x > 0")
    assert len(good) == 2 and all(f.ok for f in found) and "b.quarantine" not in dataset.names()

def test_references_are_lineage():
    from mlops_nb.core import ledger
    from mlops_nb.data import dataset, quality
    dataset.commit(pd.DataFrame({"code": ["a", None, "1"]}), "airports")
    found = quality.check(pd.DataFrame({"x": ["a", "b", None], "n": [1, 1, 2]}), references={"x": ("airports", "code")}, rules=["n in airports.code"], missing=1)
    assert [f.value for f in found if f.check == "integrity"] == [pytest.approx(1/3)]*2
    assert len(ledger.touched(kind="dataset", name="airports"))
    with pytest.raises(BadInput, match="airports"): quality.integrity(pd.DataFrame({"x": ["a"]}), {"x": ("airprots", "code")})
