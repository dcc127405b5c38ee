"""Schemas and contracts: files that people edit, data that means harm, pandera both ways."""
import math, random, tomllib

import numpy as np, pandas as pd, pytest

from mlops_nb.core.finding import BadInput, DataCheckFailed, failed

NASTY = ['x" FROM data; DROP TABLE data; --', "it's", "`tick`", "a b", "# no comment", "<script>alert(1)</script>", "naïve ✈ \U0001f600", "rules", "columns", "line\nbreak", "tab\t", "back\\slash", "\x7f\x01", "a.b", "[x]", "''", '"""', "=", "kind"]

@pytest.fixture(autouse=True)
def home(small): return small

def hostile():
    rng = np.random.default_rng(0)
    df = pd.DataFrame({name: rng.choice(NASTY, 200) if i % 2 else rng.normal(size=200) for i, name in enumerate(NASTY)})
    df.iloc[::7, ::3] = None
    return df

# --- the text form ---

def test_any_schema_survives_its_text():
    from mlops_nb.data import contract, schema
    made = schema.infer(hostile())
    assert contract.from_toml(contract.to_toml(made)) == made == schema.from_json(schema.to_json(made))
    bounds = schema.Schema(tuple(schema.Column(f"c{i}", "number", minimum=a, maximum=b) for i, (a, b) in enumerate([(None, 1.5), (-1e300, None), (0, 2**62), (.1, .1), (-3, 1e-12)])), ("c0 <= c1", "warn: c2 > 0 except 1 %"))
    assert contract.from_toml(contract.to_toml(bounds)) == bounds == schema.from_json(schema.to_json(bounds))

def test_the_order_is_that_of_the_data_and_lines_are_stable():
    from mlops_nb.data import contract, schema
    df = pd.DataFrame({"z": [1, 2], "a": ["x", "y"], "m": [.5, None]})
    text = contract.to_toml(schema.infer(df))
    assert list(tomllib.loads(text)["columns"]) == ["z", "a", "m"] and text == contract.to_toml(contract.from_toml(text), over=text) == contract.to_toml(contract.from_toml(text))
    more = contract.to_toml(schema.infer(df.assign(n=[True, False])))
    assert [l for l in more.splitlines() if l not in text.splitlines()] == ['n = {kind = "boolean", nullable = false}']

def test_comments_of_people_stay():
    from mlops_nb.data import contract
    text = """# Flights, kept by Ann.
# Ask before you change it.

rules = [
  # one row a flight
  "unique id",  # since March
  "x > 0 when name == '# not a comment'",
]

[columns]
# the key
id   = {kind = "integer", nullable = false}   # never empty
name = {kind = "text", categories = ["#1", "a # b"]}  # trailing # twice
x    = {kind = "number"}
# the end
"""
    again = contract.to_toml(contract.from_toml(text), over=text)
    for said in ("# Flights, kept by Ann.", "# Ask before you change it.", "# one row a flight", "# since March", "# the key", "# never empty", "# trailing # twice", "# the end"): assert again.count(said) == 1, said
    assert contract.from_toml(again) == contract.from_toml(text) and contract.to_toml(contract.from_toml(again), over=again) == again
    without = contract.from_toml(text.replace("id   = {kind = \"integer\", nullable = false}   # never empty\n", "").replace('  "unique id",  # since March\n', ""))
    kept = contract.to_toml(without, over=text)
    assert "# the key" in kept and "# never empty" in kept and "# since March" in kept and contract.from_toml(kept) == without

@pytest.mark.parametrize("text, said", [("", "no columns"), ("x = 1", "no part 'x'"), ("[columns]", "no columns"), ("rules = 'unique a'\n[columns]\na = {kind = 'text'}", "list of texts"), ("rules = ['']\n[columns]\na = {kind = 'text'}", "empty"),
                                        ("[columns]\na = 1", "no kind"), ("[columns]\na = {kind = 'txt'}", "did you mean 'text'"), ("[columns]\na = {kind = 'number', range = ['0; DROP', 1]}", "pair of numbers"), ("[columns]\na = {kind = 'number', range = [nan, 1]}", "pair of numbers"),
                                        ("[columns]\na = {kind = 'number', range = [2, 1]}", "swap"), ("[columns]\na = {kind = 'text', range = [1, 2]}", "only numbers"), ("[columns]\na = {kind = 'text', categories = [1]}", "list of texts"),
                                        ("[columns]\na = {kind = 'integer', categories = ['1']}", "only text"), ("[columns]\na = {kind = 'text', personal = true}", "e-mail"), ("[columns]\na = {kind = 'text'}\na = {kind = 'text'}", "cannot be read"), ("\x00", "cannot be read"),
                                        ("rules = ['b > 1']\n[columns]\na = {kind = 'text'}", "no column 'b'"), ("[columns.a]\nkind = 'text'\nmood = 1", "'mood' is not known")])
def test_slips_are_said(text, said):
    from mlops_nb.data import contract
    with pytest.raises(BadInput, match=said): contract.from_toml(text)

def test_random_edits_never_crash():
    from mlops_nb.data import contract, schema
    text, rng = contract.to_toml(schema.infer(hostile().iloc[:, :6], learned=True)), random.Random(0)
    for _ in range(400):
        at = rng.randrange(len(text))
        edited = text[:at] + rng.choice(['"', "#", "{", "]", "\n", "=", "x", "", "'", "1e9", "inf"]) + text[at + rng.randrange(4):]
        try: assert contract.to_toml(contract.from_toml(edited), over=edited)
        except BadInput: pass

def test_files_are_beside_the_notebook_and_reading_is_recorded(home):
    from mlops_nb.core import ledger
    from mlops_nb.data import contract, schema
    made = schema.infer(pd.DataFrame({"a": [1, 2]}))
    contract.write(made, "nbs/workflows/a.toml")
    path = home/"nbs/workflows/a.toml"
    path.write_text(path.read_text().replace("a = ", "# mine\na = "))
    contract.write(made, "nbs/workflows/a.toml")
    assert "# mine" in path.read_text() and contract.read("nbs/workflows/a.toml") == made and "nbs/workflows/a.toml" in set(ledger.touched(kind="file").name)
    path.write_text("[colums]")
    with pytest.raises(BadInput, match="a.toml"): contract.read("nbs/workflows/a.toml")
    with pytest.raises(BadInput, match="no file"): contract.read("nbs/workflows/b.toml")

# --- inference and checks ---

def test_data_keeps_its_own_schema():
    from mlops_nb.data import schema
    df = hostile()
    for made in (schema.infer(df), schema.infer(df, learned=True), schema.infer(df, room=0)): assert not [str(f) for f in schema.check(df, made) if not f.ok]

def test_bounds_have_room_and_stay_sensible():
    from mlops_nb.data.learn import rounded
    rng = random.Random(1)
    for _ in range(3000):
        a, b = sorted(rng.choice([rng.uniform(-1, 1), rng.randint(-10**6, 10**6), rng.uniform(-1, 1)*10**rng.randint(-12, 12)]) for _ in range(2))
        low, high = rounded(a, b)
        assert low <= a <= b <= high and not (a >= 0 > low) and not (b <= 0 < high)
        if a != b: assert high - low <= 2.5*(b - a) + 4 or low == 0 or high == 0
    assert rounded(0., 1.) == (0, 1) and rounded(3, 100) == (0, 100) and rounded(-math.inf, 1.) == (-math.inf, 1.) and rounded(5, 5) == (0, 6)

@pytest.mark.parametrize("values, kind", [([1, 2], "integer"), ([1., None], "number"), (["a", None], "text"), ([True, False], "boolean"), (pd.to_datetime(["2013-01-01", None]), "time"), (pd.array([1, None], "Int64"), "integer"),
                                          (pd.Categorical(["a", "b"]), "text"), ([None, None], "text"), ([pd.Timestamp("2013-01-01", tz="UTC")]*2, "time"), ([__import__("datetime").date(2013, 1, 1)]*2, "time"),
                                          ([__import__("decimal").Decimal("1.10"), None], "number"), ([2**62, 2**62 + 1], "integer"), ([[1], [2]], "text")])
def test_kinds(values, kind):
    from mlops_nb.data import schema
    df = pd.DataFrame({"x": values})
    made = schema.infer(df)
    assert made.columns[0].kind == kind and made.columns[0].nullable == bool(df.x.isna().any()) and all(f.ok for f in schema.check(df, made))

def test_what_is_wrong_is_found():
    from mlops_nb.data import schema
    good = pd.DataFrame({"id": range(200), "x": np.linspace(1, 50, 200), "c": ["a", "b"]*100, "t": pd.date_range("2013", periods=200)})
    made = schema.infer(good, learned=True)
    assert "unique id" in made.rules
    def wrong(df): return {(f.check, f.subject) for f in schema.check(df, made) if not f.ok}
    assert wrong(good) == set() and wrong(good.assign(x=good.x.where(good.id > 0, 99))) == {("range", "x")} and wrong(good.assign(c="z")) == {("categories", "c")}
    assert wrong(good.assign(id=1)) == {("uniqueness", "id")} and wrong(good.assign(id=good.id.where(good.id > 3))) == {("nulls", "id"), ("uniqueness", "id")} and wrong(good.assign(id=good.id + .5)) == {("type", "id")}
    assert wrong(good.drop(columns="x")) == {("present", "x")} and wrong(good.head(0)) == {("rows", "frame")} and wrong(good.assign(t=good.t.astype(str))) == {("type", "t")}
    assert wrong(pd.DataFrame()) == {("rows", "frame"), *(("present", c) for c in good)}
    assert [f.level for f in schema.check(good.assign(more=1), made) if f.check == "extra"] == ["info"]

def test_a_hand_made_bound_is_no_sql():
    from mlops_nb.data import schema
    for bad in ('[{"name": "x", "kind": "number", "minimum": "0 OR 1=1"}]', '[{"name": "x", "kind": "text", "categories": "abc"}]', '[{"name": "x", "kind": "text", "categories": [1]}]', '[{"kind": "text"}]', '[1]', 'null', '[{"name": "x", "kind": "number", "minimum": true}]'):
        with pytest.raises(BadInput): schema.from_json(bad)
    made = schema.Schema((schema.Column("x", "number", minimum=0),))
    assert [f.ok for f in schema.check(pd.DataFrame({"x": [-1., 5.]}), made) if f.check == "range"] == [False]

# --- the door ---

def test_enforce_shapes_and_refuses():
    from mlops_nb.core import ledger
    from mlops_nb.data import schema
    good = pd.DataFrame({"id": range(100), "x": np.linspace(0, 1, 100), "c": ["a", "b"]*50})
    good.attrs["personal"] = {"c": "name"}
    made = schema.infer(good)
    came = good[["c", "x", "id"]].assign(id=good.id.astype(float), more=1)
    came.attrs = {}
    shaped = schema.enforce(came, made, "flights", extra="drop")
    pd.testing.assert_frame_equal(shaped, good)
    assert shaped.attrs["personal"] == {"c": "name"} and list(schema.enforce(came, made)) == ["id", "x", "c", "more"]
    with pytest.raises(DataCheckFailed, match="x"): schema.enforce(came.drop(columns="x"), made, "flights")
    with pytest.raises(BadInput): schema.enforce(came, made, extra="forget")
    found = ledger.findings()
    assert len(found[(found["check"] == "present") & (found["subject"] == "x")]) == 1

def test_nothing_is_cast_that_would_lose():
    from mlops_nb.data import schema
    big = pd.DataFrame({"x": [2**60 + 1, 3]})
    kept = schema.enforce(big, schema.Schema((schema.Column("x", "number"),)))
    assert list(kept.x) == [2**60 + 1, 3]
    with pytest.raises(DataCheckFailed): schema.enforce(pd.DataFrame({"x": [1.5]}), schema.Schema((schema.Column("x", "integer"),)))

# --- versions ---

def test_verdicts():
    from mlops_nb.data import schema
    C, S = schema.Column, schema.Schema
    base = dict(name="x", kind="number", nullable=False, minimum=0, maximum=10)
    old = S((C(**base), C("c", "text", categories=("a", "b")), C("p", "text", personal="name")), ("x > 0",))
    def said(*columns, rules=("x > 0",)): return schema.verdict(old, S(columns, rules))
    x, c, p = old.columns
    assert said(x, c, p).note == "" and said(x, c, p, C("new", "text")).ok
    for change in ((c, p), (C(**{**base, "kind": "text"}), c, p), (C(**{**base, "nullable": True}), c, p), (x, c, C("p", "text"))): assert said(*change).value == "breaking" and said(*change).action
    for change in ((C(**{**base, "kind": "integer"}), c, p), (C(**{**base, "maximum": 5}), c, p), (x, C("c", "text", categories=("a",)), p)): assert said(*change).ok and not said(*change).note
    for change in ((C(**{**base, "maximum": 50}), c, p), (x, C("c", "text", categories=("a", "z")), p), (x, C("c", "text"), p)): assert said(*change).ok and "not seen" in said(*change).note
    assert "no longer holds" in said(x, c, p, rules=()).note and failed([said(c, p)])
    assert schema.diff(old, S((x, c, p), ("x > 1",))) == ["-rule: x > 0", "+rule: x > 1"]

# --- pandera ---

def test_pandera_and_we_agree():
    pa = pytest.importorskip("pandera.pandas")
    from mlops_nb.data import contract, schema
    good = pd.DataFrame({"id": range(200), "x": np.linspace(1, 50, 200), "c": ["a", "b"]*100, "t": pd.date_range("2013", periods=200), "f": [True, False]*100})
    good["y"] = good.x + np.random.default_rng(0).uniform(0, 9, 200)
    made = schema.infer(good, learned=True)
    theirs = contract.to_pandera(made)
    theirs.validate(good)
    back = contract.from_pandera(theirs)
    assert back.columns == made.columns and set(back.rules) == set(made.rules)
    for bad in (good.assign(x=99.), good.assign(c="z"), good.assign(id=1), good.assign(t="x"), good.drop(columns="f")):
        with pytest.raises((pa.errors.SchemaErrors, pa.errors.SchemaError)): theirs.validate(bad, lazy=True)
        assert [f for f in schema.check(bad, made) if not f.ok]

def test_pandera_of_polars_and_what_is_no_schema():
    pytest.importorskip("pandera.polars")
    import pandera.polars as pa, polars
    from mlops_nb.data import contract
    made = contract.from_pandera(pa.DataFrameSchema({"n": pa.Column(int, pa.Check.in_range(0, 9)), "when": pa.Column(polars.Datetime), "s": pa.Column(str, pa.Check.isin(["a"]), unique=True, nullable=True)}))
    assert [(c.name, c.kind, c.nullable, c.minimum, c.categories) for c in made.columns] == [("n", "integer", False, 0, None), ("when", "time", False, None, None), ("s", "text", True, None, ("a",))] and made.rules == ("unique s",)
    for bad in (1, "x", {}):
        with pytest.raises(BadInput): contract.from_pandera(bad)
