"Sources as they come: broken, hostile, huge, elsewhere. What cannot be read as it is refuses with a reason, and no row is lost in silence."
import datetime as dt, decimal, gzip, http.server, io, json, os, sqlite3, threading, zipfile
from pathlib import Path

import numpy as np, pandas as pd, pyarrow as pa, pyarrow.parquet as pq, pytest

from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput
from mlops_nb.data import dataset, formats
from mlops_nb.data.ingest import collect, ingest

def given(small, name, content):
    path = small/name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return name

# --- CSV ---

REFUSED = {
    "ragged":           ("a,b\n1,2\n1,2,3\n4\n5,6\n", "line 3 has 3 cells, line 4 has 1 cells"),
    "empty":            ("", "is empty"),
    "only a BOM":       ("\ufeff", "is empty"),
    "only a header":    ("a,b\n", "0 rows"),
    "twice a name":     ("a,b,a\n1,2,3\n", "'a'"),
    "wrong encoding":   ("a,b\nM\u00fcnchen,1\n".encode("cp1252"), "encoding='cp1252'"),
    "encoding later":   (b"a,b\n" + b"x,1\n"*400_000 + "M\u00fcnchen,1\n".encode("cp1252"), "encoding='cp1252'"),
    "zeros":            (b"a,b\n1,\0\n", "zero bytes"),
    "a long line":      ("a,b\n1,\"" + "x"*(40 << 20) + "\"\n2,y\n", "longer than 16 MB"),
    "an open quote":    ("a,b\n1,\"x\n" + "2,y\n"*8_000_000, "quote is opened|longer than 16 MB"),
    "a small open quote": ('a,b\n1,"x\n2,y\n3,z\n', "quote is opened"),
    "a long first line": ("x"*(3 << 20), "0 rows|first line|empty|longer"),
}

@pytest.mark.parametrize("what", REFUSED)
def test_refused_csv(small, what):
    content, said = REFUSED[what]
    with pytest.raises(BadInput, match=said): ingest(given(small, "a.csv", content), "things")
    assert dataset.latest("things") is None

def test_csv_as_it_is(small):
    text = "\ufeffzip;when;day;n;x;flag;t;\n00501;2013-01-01 05:15:00;2013-01-01;1;1;true;<script>;1\n10001;;2013-01-02;NA;2.5;;\"'; DROP TABLE x\";2\n"
    assert ingest(given(small, "a.csv", text), "things").rows == 2
    df = dataset.read("things")
    assert list(df.zip) == ["00501", "10001"] and df.n.dtype == "Int64" and list(df.x) == [1., 2.5] and df.flag.dtype == "boolean" and df.when.dtype.kind == df.day.dtype.kind == "M" and df.columns[-1] == "column_8"
    given(small, "b.csv.gz", gzip.compress(text.replace("00501", "10003").encode()))
    assert ingest("b.csv.gz", "things").rows == 2 and "10003" in set(dataset.read("things").zip)     # text stays text when no value begins with 0

def test_mixed_types_are_text_and_nothing_is_lost(small):
    values = [str(i) for i in range(3_000_000)] + ["n/k", "1.5"]
    ingest(given(small, "a.csv", "a\n" + "\n".join(values) + "\n"), "things")
    assert list(dataset.read("things").a) == values
    ingest(given(small, "n.csv", "a\n" + "\n".join(values[:-2] + ["1.5"]) + "\n"), "numbers")
    assert dataset.read("numbers").a.dtype == "float64"

def test_types_may_be_named(small):
    file = given(small, "a.csv", "price,day,kind\n1.10,2013-01-01,x\n22.05,2013-01-02,y\n")
    ingest(file, "things", types={"price": "decimal(10,2)", "kind": "category", "day": "text"})
    df = dataset.read("things")
    assert list(df.price) == [decimal.Decimal("1.10"), decimal.Decimal("22.05")] and df.kind.dtype == "category" and df.day[0] == "2013-01-01"
    for types, said in (({"prise": "text"}, "did you mean 'price'"), ({"price": "int"}, "integer"), ({"kind": "integer"}, "'kind' is said to be integer and holds 'x'")):
        with pytest.raises(BadInput, match=said): ingest(file, "other", types=types)

def test_a_later_file_must_fit(small):
    ingest(given(small, "a.csv", "n,t\n1,x\n"), "things")
    with pytest.raises(BadInput, match="'n' is said to be integer and holds 'many'"): ingest(given(small, "b.csv", "n,t\nmany,y\n"), "things")
    assert ingest(given(small, "c.csv", "n,t,more\n2,3,z\n"), "things").rows == 1
    assert list(dataset.read("things").t) == ["x", "3"] and dataset.latest("things") == 1

def test_a_german_file(small):
    content = "tag;preis;ort\r\n31.01.2013;1.234,50;M\u00fcnchen\r\n01.02.2013;12,00;K\u00f6ln\r\n".encode("cp1252")
    said = ingest(given(small, "de.csv", content), "plain", encoding="cp1252")
    assert [(f.subject, f.ok) for f in said.findings if f.check == "text"] == [("tag", False), ("preis", False)]
    with pytest.warns(UserWarning, match="decimal=','"): collect("de.csv", encoding="cp1252")
    how = dict(encoding="cp1252", decimal=",", thousands=".", time_format="%d.%m.%Y")
    ingest("de.csv", "read", **how)
    assert ingest(given(small, "feb.csv", content.replace(b"12,00", b"3.000")), "read", **how).rows == 2 and dataset.read("read").preis.tolist() == [1234.5, 12., 1234.5, 3000.]   # a later file fits what is kept
    df = dataset.read("read", version=0)
    assert df.preis.tolist() == [1234.5, 12.] and df.tag.tolist() == [pd.Timestamp("2013-01-31"), pd.Timestamp("2013-02-01")] and df.ort[0] == "M\u00fcnchen"

@pytest.mark.parametrize("values, way", [(["1,5", "2,25", "x"]*1, None), (["1,5", "2,25"], "decimal=','"), (["1.234,5", "3.000", "2"], "decimal=',' and thousands='.'"), (["1,234.5", "12"], "thousands=','"), (["1,234", "2,500"], "decimal=','"), (["1.234.567", "8"], "thousands='.'"), (["10.0.0.1"], None), (["13/01/20", "01/02/20"], "'%d/%m/%y'"), (["01/02/2020", "03/04/2020"], " or "), (["2020-01-31", "31.1.2020"], "one way"),
                                         (["2020-01-31", "2020-02-01"], None), (["a", "b"], None), ([], None), ([None], None), (["31.01.2020", "02.29.2020"], "both orders")])
def test_text_that_looks_like_more(values, way):
    found = formats.looks(pa.table({"c": pa.array(values, pa.string())}))
    assert not found if way is None else len(found) == 1 and way in found[0].action

def test_a_type_that_changes_late_in_a_long_file(small, monkeypatch):
    "Beyond the first piece, whose rows have left already when the value comes that does not fit."
    monkeypatch.setattr(formats, "_AT_ONCE", 1)
    given(small, "late.csv", "id,n,said\n" + "".join(f"{i},{'many' if i == 19_000 else i},{'x'*1000}\n" for i in range(20_000)))
    df = collect("late.csv")
    assert len(df) == 20_000 and df.id.is_unique and df.n[18_999] == "18999" and df.n[0] == "0" and df.n[19_000] == "many"

def test_marks_between_thousands(small):
    from mlops_nb.run.project import _read
    read = lambda text, **how: collect(given(small, "n.csv", text), **how).n.tolist()
    assert read("n\n1.234\n12\n", decimal=",", thousands=".") == [1234, 12] and read('n,t\n"1,234.5",x\n-2,1\n', thousands=",") == [1234.5, -2] and read("n;t\n1\N{NO-BREAK SPACE}234,5;x\n;y\n", decimal=",", thousands="\N{NO-BREAK SPACE}")[0] == 1234.5
    assert read("n;t\n1.23;x\n1.234;y\n", decimal=",", thousands=".") == ["1.23", "1.234"]   # no number in groups: it stays what it is
    with pytest.raises(BadInput, match="holds numbers and '12.34'"): read("n\n1.234\n12.34\n", decimal=",", thousands=".", types={"n": "number"})
    with pytest.raises(BadInput, match="other than the decimal"): read("n\n1\n", thousands=".")
    for text, how in (("n;v\n1.234,50;1.234\n12,00;5\n", dict(decimal=",", thousands=".")), ("n;v\n1.234.567;0.5\n8;0.25\n", {})):   # not where a column of numbers would be lost
        assert _read(str(small/given(small, "n.csv", text)), {})[1] == how

def test_what_is_passed_over_is_said(small):
    first = pd.DataFrame(dict(id=[1, 2, 3], when=pd.to_datetime(["2013-01-01", "2013-01-02", None]), kind=pd.Categorical(["a", "b", None]), mail=["ann@example.org", "bob@example.org", "cleo@example.org"], n=pd.array([1, None, 3], "Int64")))
    ingest(first, "things", key="id")
    again = ingest(first.sample(frac=1, random_state=0).astype({"n": "float64", "kind": object}), "things", key="id")
    assert again.rows == 0 and all(f.ok for f in again.findings)
    said = ingest(pd.concat([first.assign(n=9), first.assign(id=4), first.assign(id=4, n=7)]), "things", key="id")
    assert said.rows == 1 and {f.check: f.value for f in said.findings if not f.ok} == {"repeated key": 5, "changed row": 3}
    assert "replace=True" in next(f.action for f in said.findings if f.check == "changed row")
    told = ingest(first.assign(id=5, mail="ann@example.org"), "people", key="mail")
    told = ingest(first.assign(id=6, mail="ann@example.org"), "people", key="mail")
    assert "ann@" not in str([f.note for f in told.findings])
    assert dataset.read("things").n.tolist()[0] == 1

def test_a_sample_of_a_long_source(small):
    given(small, "long.csv", "id\n" + "".join(f"{i}\n" for i in range(5000)))
    drawn = collect("long.csv", most=500, rows=100)
    assert len(drawn) == 500 and drawn.id.is_monotonic_increasing and 2200 < drawn.id.mean() < 2800
    assert drawn.equals(collect("long.csv", most=500, rows=100)) and len(collect("long.csv", most=5000)) == 5000

def test_ragged_rows_are_put_aside(small):
    file = given(small, "a.csv", "a,b\n1,2\n1,2,3\n<b>x\n5,6\n")
    said = ingest(file, "things", ragged="quarantine")
    assert said.rows == 2 and not said.findings[0].ok and list(dataset.read("things.ragged").text) == ["1,2,3", "<b>x"]
    assert ingest(file, "things", ragged="quarantine").rows == 0 and len(dataset.read("things.ragged")) == 2

# --- other files ---

def test_parquet_keeps_its_types(small):
    df = pd.DataFrame({"c": pd.Categorical(["b", None], ["c", "b"], ordered=True), "i": pd.array([1, None], "Int16"), "t": pd.to_datetime(["2013-01-01"]*2).tz_localize("Europe/Vienna"), "d": [dt.date(2013, 1, 1), None]})
    df.to_parquet(small/"a.parquet")
    ingest("a.parquet", "things")
    back = dataset.read("things")
    assert back.i.dtype == "Int16" and back.t.dtype == df.t.dtype and list(back.c.dropna()) == ["b"] and str(back.c.dtype) == "category"

def test_a_parquet_bomb(small):
    "A few kilobytes that say they are billions of rows, or are."
    n = 200_000_000
    batch = pa.table({"a": pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, "int8")), pa.array(["x"*10_000]))})
    with pq.ParquetWriter(small/"bomb.parquet", batch.schema) as w:
        for _ in range(20): w.write_table(batch)
    assert (small/"bomb.parquet").stat().st_size < 1_000_000
    with pytest.raises(BadInput, match="fill the memory"): ingest("bomb.parquet", "things", limit=1 << 30)
    assert dataset.latest("things") is None

def test_broken_files(small):
    pq.write_table(pa.table({"a": range(1000)}), small/"a.parquet")
    data = (small/"a.parquet").read_bytes()
    for name, content in (("cut.parquet", data[:500]), ("text.parquet", b"hello"), ("a.xlsx", b"hello"), ("a.json", b"{]"), ("b.json", b"[1, 2]"), ("c.json", b""), ("d.jsonl", b'{"a": 1}\n{"a": "x"}\n'), ("deep.json", b"["*100_000), ("deep.jsonl", b'{"a":' + b"["*5000 + b"]"*5000 + b"}\n"), ("deep2.jsonl", b'{"a":'*500 + b"1" + b"}"*500 + b"\n"), ("a.what", b"x")):
        with pytest.raises(BadInput): ingest(given(small, name, content), "things")
    assert dataset.latest("things") is None

def sheet(path, rows, name="staff", extra=()):
    "A small Excel file; a number with the mark `@` is a day since 1900."
    cell = lambda v: "<c/>" if v is None else f'<c t="inlineStr"><is><t>{v}</t></is></c>' if isinstance(v, str) and v[:1] != "@" else f'<c s="1"><v>{v[1:]}</v></c>' if isinstance(v, str) else f"<c><v>{v}</v></c>"
    main, pkg, rel = "http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://schemas.openxmlformats.org/package/2006", "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    parts = {"[Content_Types].xml": f'<Types xmlns="{pkg}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{pkg}/relationships"><Relationship Id="r1" Type="{rel}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{pkg}/relationships"><Relationship Id="r1" Type="{rel}/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="r2" Type="{rel}/styles" Target="styles.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{rel}"><sheets><sheet name="{name}" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/styles.xml": f'<styleSheet xmlns="{main}"><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="22"/></cellXfs></styleSheet>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{"".join("<row>" + "".join(map(cell, r)) + "</row>" for r in rows)}</sheetData></worksheet>'}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for n, text in [*parts.items(), *extra]: z.writestr(n, text)

def test_excel(small):
    sheet(small/"a.xlsx", [["name", "n", "when"], ["Ann", 1, "@41275.5"], [None, 2, None]])
    assert ingest("a.xlsx", "things", sheet="staff").rows == 2 and ingest("a.xlsx", "things").rows == 0
    df = dataset.read("things")
    assert df.when[0] == pd.Timestamp("2013-01-01 12:00") and list(df.n) == [1, 2] and df.name[0] == "Ann"
    sheet(small/"twice.xlsx", [["a", "a"], [1, 2]])
    sheet(small/"mixed.xlsx", [["a"], [1], ["x"]])
    sheet(small/"bomb.xlsx", [["a"], [1]], extra=[("xl/big.xml", b"\0"*(64 << 20))])
    for file, how, said in (("a.xlsx", dict(sheet="stuff"), "sheet"), ("twice.xlsx", {}, "'a' is there twice"), ("mixed.xlsx", {}, "one type"), ("bomb.xlsx", dict(limit=1 << 20), "unpacks")):
        with pytest.raises(BadInput, match=said): ingest(file, "other", **how)

def test_json_lines(small):
    ingest(given(small, "a.jsonl", '{"a": 1, "b": {"c": [1, 2]}}\n{"a": null, "t": "2013-01-01T00:00:00Z"}\n'), "things")
    assert dataset.read("things").a.dtype == "Int64" and len(dataset.read("things")) == 2

# --- places ---

def test_links_and_folders(small, tmp_path):
    (tmp_path/"secret.csv").write_text("a\n1\n")
    (small/"in").mkdir()
    (small/"in/link.csv").symlink_to(tmp_path/"secret.csv")
    for source in ("in/link.csv", str(small/"in/link.csv"), "in"):
        with pytest.raises(BadInput, match="link out of the project"): ingest(source, "things")
    (small/"in/link.csv").unlink()
    given(small, "in/b.csv", "a\n2\n"); given(small, "in/a.csv", "a\n1\n"); given(small, "in/README", "no data")
    assert ingest("in", "things").rows == 2 and ingest("in", "things").rows == 0 and list(dataset.read("things").a) == [1, 2]
    for source in ("none.csv", "../x.csv", "in/README", "/dev/zero", "", 7, None):
        with pytest.raises(BadInput): ingest(source, "other")

@pytest.fixture
def site():
    "Pages, one of which leads elsewhere."
    class Site(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_): pass
        def do_GET(self):
            if self.path == "/away.csv": self.send_response(302); self.send_header("Location", "/a.csv"); self.end_headers(); return
            if self.path == "/file.csv": self.send_response(302); self.send_header("Location", "file:///etc/passwd"); self.end_headers(); return
            if self.path == "/gone.csv": self.send_response(404); self.end_headers(); return
            self.send_response(200); self.end_headers(); self.wfile.write(b"a\n1\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()

def test_internal_addresses(small, site, monkeypatch):
    for url in (f"{site}/a.csv", f"{site.replace('127.0.0.1', 'localhost')}/a.csv", "http://169.254.169.254/latest/meta-data.csv", "http://10.0.0.1/a.csv", "http://[::1]/a.csv", "http://0x7f000001/a.csv", "ftp://127.0.0.1/a.csv", f"zip://a.csv::{site}/a.zip", f"simplecache::{site}/a.csv"):
        with pytest.raises(BadInput, match="internal_urls|not known"): ingest(url, "things")
    assert dataset.latest("things") is None
    monkeypatch.setenv("MLOPS_NB_INTERNAL_URLS", "true")
    assert ingest(f"{site}/away.csv", "things").rows == 1 and ingest(f"{site}/a.csv", "things").rows == 0
    for page in ("file.csv", "gone.csv"):
        with pytest.raises(BadInput, match="cannot be read"): ingest(f"{site}/{page}", "other")
    with pytest.raises(BadInput, match="larger than"): ingest(f"{site}/a.csv", "other", limit=2)

def test_a_name_that_leads_elsewhere_the_second_time(small, site, monkeypatch):
    "The check asks the name server, the connection asks again: the answer may be another one."
    from mlops_nb.data import fetch
    monkeypatch.setattr(fetch, "_addresses", lambda host: ["93.184.216.34"])
    with pytest.raises(BadInput, match="127.0.0.1"): ingest(f"{site}/a.csv", "things")

# --- databases ---

@pytest.fixture
def ops(small):
    with sqlite3.connect(small/"ops.db") as c:
        c.execute('create table trip (id integer primary key, "when; drop table trip" text, price real)')
        c.executemany("insert into trip values (?, ?, ?)", [(i, "<script>", i/2 if i % 7 else None) for i in range(1000)])
    return f"sqlite:///{small}/ops.db"

def test_a_database(small, ops):
    assert ingest(ops, "trips", query="trip", watermark="id", rows=300).rows == 1000 and ingest(ops, "trips", query="trip", watermark="id").rows == 0
    with sqlite3.connect(small/"ops.db") as c: c.execute("insert into trip values (1000, 'x', 1)")
    assert ingest(ops, "trips", query="trip", watermark="id").rows == 1 and dataset.read("trips").id.is_unique and len(dataset.read("trips")) == 1001
    bad = "0; drop table trip"
    assert ingest(ops, "some", query="select * from trip where price > :least or :word = 'x'", parameters={"least": 400, "word": bad}).rows > 0
    for query in ("trip; drop table trip", "drop table trip", 'trip"', "tripp", "select * from nothing", "select :x"):
        with pytest.raises(BadInput): ingest(ops, "wrong", query=query)
    assert len(dataset.read("trips")) == 1001
    with sqlite3.connect(small/"ops.db") as c: assert c.execute("select count(*) from trip").fetchone() == (1001,)

def test_a_password_is_not_told(small):
    with pytest.raises(BadInput) as e: ingest("postgresql+nothing://me:s3cr3t-w0rd@host/db", "things", query="trip")
    assert "s3cr3t" not in str(e.value)

# --- frames ---

def test_watermark_and_key(small):
    day = pd.DataFrame({"id": ["a", "b"], "at": pd.to_datetime(["2013-01-01", "2013-01-02"]), "x": [1, 2]})
    late = pd.DataFrame({"id": ["b", "c", "d"], "at": pd.to_datetime(["2013-01-02", "2013-01-02", "2013-01-03"]), "x": [2, 3, 4]})
    assert ingest(day, "strict", watermark="at").rows == 2 and ingest(late, "strict", watermark="at").rows == 1          # c shares the largest time, and is passed over
    assert ingest(day, "keyed", watermark="at", key="id").rows == 2 and ingest(late, "keyed", watermark="at", key="id").rows == 2
    assert ingest(late, "keyed", key="id").rows == 0 and list(dataset.read("keyed").id) == list("abcd")
    with pytest.raises(BadInput, match="have no at"): ingest(day.assign(at=[pd.NaT, pd.Timestamp("2014-01-01")]), "strict", watermark="at")
    with pytest.raises(BadInput, match="did you mean 'at'"): ingest(day, "strict", watermark="att")
    assert ingest(day, "whole", replace=True).version == ingest(day, "whole", replace=True).version == 0

def test_pieces_are_one_version(small):
    "An iterable is one version or none."
    parts = lambda last: (pd.DataFrame({"a": [i]}) if i < 3 else last for i in range(4))
    with pytest.raises(BadInput): ingest(parts(pd.DataFrame({"a": ["x"]})), "things")
    assert dataset.latest("things") is None and ingest(parts(pd.DataFrame({"a": [3]})), "things").rows == 4 and dataset.latest("things") == 0

def test_polars_and_arrow(small):
    pl = pytest.importorskip("polars")
    assert ingest(pl.DataFrame({"a": [1, None], "t": ["x", "y"]}), "things").rows == 2 and ingest(pa.table({"a": [5], "t": ["z"]}), "things").rows == 1
    assert dataset.read("things").a.dtype == "Int64"

def test_personal_columns_are_tagged(small):
    people = pd.DataFrame({"email": [f"p{i}@example.org" for i in range(50)], "n": range(50)})
    assert ingest(people, "people").rows == 50
    assert dataset.read("people").attrs["personal"] == {"email": "e-mail"}
