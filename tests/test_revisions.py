"The tables' revisions, on SQLite and on a real Postgres: what a release wrote is taken over, brought up by the next, refused by the one before; the next release is a copy of this one with one revision more."
import os, re, shutil, signal, sqlite3, subprocess, sys
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from conftest import ROOT, cli, one_line, wait_until
from mlops_nb.core import database, ledger, schema, stores
from mlops_nb.core.finding import BadInput, failed
from mlops_nb.label import log, tables
from servers import pg

RELEASED = (ROOT/"tests/released_0_1.txt").read_text().splitlines()   # what mlops_nb 0.1 said to SQLite before there were revisions
ROWS = ["INSERT INTO run (id, notebook, stage, parameters, state, started, pid) VALUES ('r1', 'a.ipynb', 'a', '{}', 'done', '2026-01', 7), ('r2', 'b.ipynb', 'b', '{}', 'failed', '2026-02', 8)",
        "INSERT INTO io (run, direction, kind, name, version) VALUES ('r1', 'write', 'dataset', 'flights', '0')",
        """INSERT INTO finding (run, topic, "check", subject, ok) VALUES ('r1', 'm', 'auc', 'x', false)""",
        "INSERT INTO event (at, actor, action, subject, detail) VALUES ('2026-01', 'ana', 'promote', 'm', '{}'), ('2026-02', 'ben', 'keep', 'm', '{}')",
        "INSERT INTO snapshot VALUES ('h', 'ü ''x''')", "INSERT INTO catalogue (name, owner) VALUES ('flights', 'ana')",
        "INSERT INTO alert (hash, topic, looks) VALUES ('h', 'm', 3)", "INSERT INTO delivery (hash, alert, tries) VALUES ('d', 'h', 2)",
        "INSERT INTO label_task (name, text, total, done) VALUES ('t', '{}', 2, 1)", "INSERT INTO label_item (task, item, rank, labels) VALUES (1, 'i1', .25, 1), (1, 'i2', .5, 0)",
        "INSERT INTO label_data VALUES (1, '{}'), (2, '{}')", "INSERT INTO label_lease VALUES (1, 2, 'ana', 0, 1e9)", "INSERT INTO label_person (task, annotator, labels) VALUES (1, 'ana', 1)",
        "INSERT INTO label_event (uid, task, item, label, kind, annotator, at, ms) VALUES ('u1', 't', 'i1', 'late', 'label', 'ana', '2026-01', 900)",
        "INSERT INTO label_answer VALUES ('t', 'i1', 'ana', 0, 'late', 'label', '2026-01', 'u1', 1)"]

@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, local, monkeypatch):
    "The URL of a database that holds nothing yet, of an empty project."
    (local/".mlops").mkdir()
    url = f"sqlite:///{local}/.mlops/mlops.db" if request.param == "sqlite" else request.getfixturevalue("pg").make("revisions")
    monkeypatch.setenv("MLOPS_NB_DATABASE", url)
    yield url
    ledger.close()

@contextmanager
def raw(url):
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as c: yield c

def say(url, *statements):
    with raw(url) as c: return [done.all() if done.returns_rows else None for done in map(c.exec_driver_sql, statements)][-1]

def released(url):
    "A database of mlops_nb 0.1 with a row or two in every table."
    for_server = lambda s: s.replace('"no" INTEGER PRIMARY KEY', '"no" SERIAL PRIMARY KEY').replace(" WITHOUT ROWID", "")
    say(url, *(RELEASED if url.startswith("sqlite") else map(for_server, RELEASED)), *ROWS)

def kept(url):
    "All rows of all tables but those about the schema."
    with raw(url) as c:
        found = sa.MetaData()
        found.reflect(c, only=lambda name, _: name not in (schema.VERSION, "schema_version", "alembic_version"))
        return {t.name: sorted(({k: v for k, v in r._mapping.items() if v is not None} for r in c.execute(t.select())), key=repr) for t in found.sorted_tables}

def shape(c):
    "Columns, keys and indexes of every table, as the database says them."
    if c.dialect.name == "sqlite":
        names = {r[1]: r[5] for r in c.exec_driver_sql("PRAGMA table_list") if not r[1].startswith("sqlite_")}
        columns = {(t, r[1]): (r[2], bool(r[3] and not r[5]), r[4], r[5]) for t in names for r in c.exec_driver_sql(f'PRAGMA table_info("{t}")')}
        unique = {(t, r[3], *(k[2] for k in c.exec_driver_sql(f'PRAGMA index_info("{r[1]}")'))) for t in names for r in c.exec_driver_sql(f'PRAGMA index_list("{t}")') if r[3] != "c"}
        return dict(tables=names, columns=columns, unique=unique, indexes={name: text.replace('"', "") for name, text in c.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''")})
    here = "table_schema = current_schema()"
    return dict(columns={(r[0], r[1]): tuple(r[2:]) for r in c.exec_driver_sql(f"SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns WHERE {here}")},
                indexes=dict(c.exec_driver_sql("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()").all()))

def fresh(c):
    for statement in schema.statements(c.dialect.name == "sqlite"): c.exec_driver_sql(statement)

def drawn(how, url="sqlite://"):
    "The shape of an empty database after `fresh`, or after `schema.upgrade` from nothing."
    with raw(url) as c: return how(c) or shape(c)

def shape_of(url):
    with raw(url) as c: return shape(c)

# --- a developer changes a table ---

def test_revisions_make_what_a_fresh_database_is():
    assert drawn(schema.upgrade) == drawn(fresh)
    assert {"run", "label_event", schema.VERSION} <= drawn(fresh)["tables"].keys()

def test_on_postgres_too(pg): assert drawn(schema.upgrade, pg.make("grown")) == drawn(fresh, pg.make("drawn"))

@pytest.mark.parametrize("what", ["column", "table", "kind", "index", "part of an index", "key", "default"])
def test_a_change_without_a_revision_is_noticed(what, monkeypatch):
    "By what the two tests above compare."
    was = drawn(fresh)
    change = dict(column=lambda: monkeypatch.setitem(schema.TABLES, "run", schema.TABLES["run"] + " cost"), table=lambda: monkeypatch.setitem(schema.TABLES, "price", "no cost"),
                  kind=lambda: monkeypatch.setitem(schema._KINDS, "pid", "TEXT"), index=lambda: monkeypatch.setitem(schema._INDEXES, "event", "action subject run"),
                  key=lambda: monkeypatch.setitem(schema._KEYS, "label_person", "annotator, task"))
    labels = dict(default=lambda: monkeypatch.setitem(schema._LABELS, "label_lease", {**schema._LABELS["label_lease"], "slot": "INTEGER NOT NULL DEFAULT 1"}))
    part = {"part of an index": lambda: monkeypatch.setattr(schema, "_LABEL_INDEXES", [i.replace("open = 1", "open = 0") for i in schema._LABEL_INDEXES])}
    {**change, **labels, **part}[what]()
    assert drawn(fresh) != was == drawn(schema.upgrade)

def test_the_files_are_one_line():
    "Numbered without a gap, each after the one before; none is a branch."
    from alembic.script import ScriptDirectory
    with sa.create_engine("sqlite://").connect() as c: found = ScriptDirectory.from_config(schema.config(c))
    numbers = schema.revisions()
    assert numbers == [f"{n + 1:04}" for n in range(len(numbers))] and found.get_heads() == numbers[-1:]
    assert [r.down_revision for r in found.walk_revisions()] == [*reversed(numbers[:-1]), None]

# --- the next release ---

COST = '''"A run says what it cost."
import os, time
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{new}", "{old}"

def upgrade():
    with op.batch_alter_table("run") as t: t.add_column(sa.Column("cost", sa.Text))
    op.execute("UPDATE run SET cost = 'unknown'")
    op.drop_index("ix_io_name", "io")
    if (stop := os.environ.get("STOP")):
        open(stop, "w").close()
        time.sleep(600)
    op.create_index("ix_io_name", "io", ["name"])
'''

@pytest.fixture(scope="module")
def coming(tmp_path_factory):
    "A folder with the next release, (installed) 0.2.0."
    folder, old = tmp_path_factory.mktemp("coming"), schema.revisions()[-1]
    shutil.copytree(ROOT/"mlops_nb", folder/"mlops_nb", ignore=shutil.ignore_patterns("__pycache__"))
    new = f"{int(old) + 1:04}"
    (folder/f"mlops_nb/core/migrations/versions/{new}_a_run_says_what_it_cost.py").write_text(COST.format(new=new, old=old))
    changed(folder)
    (folder/"mlops_nb-0.2.0.dist-info").mkdir()
    (folder/"mlops_nb-0.2.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: mlops_nb\nVersion: 0.2.0\n")
    return folder

def changed(folder):
    code = folder/"mlops_nb/core/schema.py"
    text, n = re.subn(r'(run="no id [^"]+)"', r'\1 cost"', code.read_text(), count=1)
    assert n == 1
    code.write_text(text)

def by(folder, code, **env):
    "A process of the release in that folder."
    return subprocess.Popen([sys.executable, "-P", "-c", code], env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT/'tests'}", **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def ended(process):
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return out.strip()

READ = "from mlops_nb.core import ledger; print(*ledger.events().subject)"
WRITE = "from mlops_nb.core import database; database.insert('catalogue', dict(name='more')); print(*[r['cost'] for r in database.rows('run')])"

def test_the_recipe_writes_the_revision(tmp_path):
    "Two columns more, and the command of CONTRIBUTING.md: what it writes makes old and fresh databases alike."
    shutil.copytree(ROOT/"mlops_nb", tmp_path/"mlops_nb", ignore=shutil.ignore_patterns("__pycache__"))
    changed(tmp_path)
    code = tmp_path/"mlops_nb/core/schema.py"
    code.write_text(code.read_text().replace('data="TEXT")', 'data="TEXT", weight="DOUBLE PRECISION")'))
    same = "from test_revisions import *; print(drawn(schema.upgrade) == drawn(fresh), schema.__file__)"
    assert ended(by(tmp_path, same)).split() == ["False", str(code)]
    done = subprocess.run([sys.executable, "-P", ROOT/".ci/revision.py", "a run says what it cost"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    new, = (tmp_path/"mlops_nb/core/migrations/versions").glob(f"{int(schema.revisions()[-1]) + 1:04}_*.py")
    assert new.name.endswith("_a_run_says_what_it_cost.py") and new.read_text().count("add_column") == 2 and "drop" not in new.read_text()
    assert ended(by(tmp_path, same)).split()[0] == "True"

def test_the_next_release_brings_it_up_once_and_this_one_refuses(place, coming):
    "Four processes at once; the rows of before are there, those of after as well."
    released(place)
    say(place, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)", "INSERT INTO alembic_version VALUES ('mlflow')")   # MLflow's, in the same database
    before = kept(place)
    assert ledger.events().subject.tolist() == ["m", "m"] and kept(place) == before     # this release takes it over
    ledger.close()
    assert [ended(p) for p in [by(coming, WRITE) for _ in range(4)]] == ["unknown unknown"]*4
    after = kept(place)
    assert {t for t in before if after[t] != before[t]} == {"run", "catalogue"} and after["catalogue"][:1] == before["catalogue"] and len(after["catalogue"]) == 5
    assert [{k: v for k, v in r.items() if k != "cost"} for r in after["run"]] == before["run"] and say(place, "SELECT * FROM alembic_version") == [("mlflow",)]
    new = f"{int(schema.revisions()[-1]) + 1:04}"
    for ask in (ledger.events, lambda: tables.query("SELECT 1"), lambda: log.append(log.Event("t", "i1", "late"))):
        with pytest.raises(BadInput, match=rf"schema {new}, written by mlops_nb 0\.2\.0; this is mlops_nb .* up to {schema.revisions()[-1]}: update"): ask()
    one_line(cli("status"), 2, f"schema {new}", "0.2.0")
    assert "update mlops_nb here" in failed(stores.check(1))[0].note and kept(place) == after
    assert say(place, "SELECT part, version, by FROM schema_version WHERE part = 'ledger'") == [("ledger", int(new), "0.2.0")]   # what code from before Alembic reads: it refuses too

def test_killed_in_the_middle_the_old_state_stands(place, coming, tmp_path):
    released(place)
    assert len(ledger.events()) == 2
    ledger.close()
    before, was = kept(place), shape_of(place)
    p = by(coming, READ, STOP=str(tmp_path/"stop"))
    wait_until("the middle of an upgrade", (tmp_path/"stop").exists, p)
    said = by(coming, READ, MLOPS_NB_LOCK_TIMEOUT="1").communicate(timeout=240)[1]
    assert "locked by another process" in said and "Busy" in said      # it does not wait for ever, nor get between
    p.send_signal(signal.SIGKILL)
    p.communicate()
    assert ledger.events().subject.tolist() == ["m", "m"]             # this release goes on
    ledger.close()
    assert kept(place) == before and shape_of(place) == was
    assert ended(by(coming, WRITE)) == "unknown unknown" and len(kept(place)["catalogue"]) == 2

# --- what was written before there were revisions ---

@pytest.mark.parametrize("lacks", [[], ['ALTER TABLE event DROP COLUMN "actor"', "ALTER TABLE label_item DROP COLUMN reason", "DROP TABLE delivery", "DROP TABLE schema_version"]], ids=["0.1", "without numbers"])
def test_a_database_of_before_is_taken_over(place, lacks, request):
    released(place)
    if lacks: say(place, *lacks)
    before = kept(place)
    assert ledger.runs().id.tolist() == ["r1", "r2"] and log.events("t").label.tolist() == ["late"]
    ledger.close()
    assert {t: rows for t, rows in kept(place).items() if t in before} == before
    assert shape_of(place) == drawn(fresh, "sqlite://" if place.startswith("sqlite") else request.getfixturevalue("pg").make("drawn"))
    assert say(place, schema.KNOWN)[0][2] == schema.revisions()[-1] and ledger.event("more", "world") is None and ledger.events().no.is_unique

def test_runs_of_before_they_had_numbers(place, request):
    "The first releases' table: they are numbered in the order they started, and the next number follows."
    say(place, "CREATE TABLE run (id TEXT NOT NULL PRIMARY KEY, notebook TEXT, code TEXT, library TEXT, parameters TEXT, state TEXT, started TEXT, stage TEXT)", "CREATE INDEX ix_run_state ON run (state)",
        "INSERT INTO run (id, notebook, parameters, state, started) VALUES ('b', 'b.ipynb', '{}', 'done', '2026-02'), ('a', 'a.ipynb', '{}', 'done', '2026-01')")
    new = ledger.start_run("c.ipynb")
    assert [(r["no"], r["id"], r["notebook"]) for r in database.rows("run")][:2] == [(1, "a", "a.ipynb"), (2, "b", "b.ipynb")] and [(r["no"], r["id"]) for r in database.rows("run")][2:] == [(3, new)]
    ledger.close()
    assert shape_of(place) == drawn(fresh, "sqlite://" if place.startswith("sqlite") else request.getfixturevalue("pg").make("drawn"))

def test_answers_are_computed_for_labels_of_before_there_were_any(place):
    "The same as `log` keeps: the last word of each, without what was taken back."
    for e in (("1", "a", "ana"), ("1", "b", "ben"), ("2", "a", "ana"), ("2", "b", "ana"), ("3", "c", "ben")): log.append(log.Event("t", *e[:2], annotator=e[2], uid="".join(e)))
    log.append(log.Event("t", "2", "2bana", "undo", annotator="ana"), log.Event("t", "1", "b", "adjudicate", annotator="eva"), log.Event("t", "3", "?", "note", annotator="eva"))
    ledger.close()
    before = kept(place)
    assert len(before["label_answer"]) == 5
    say(place, "DROP TABLE label_answer", f"DROP TABLE {schema.VERSION}", "DROP TABLE schema_version")
    assert len(log.labels("t")) and kept(place)["label_answer"] == before["label_answer"]

def test_a_database_of_before_that_was_moved_stays_so(place):
    released(place)
    say(place, "INSERT INTO schema_version (part, version, by) VALUES ('moved', 0, 'postgresql://host/mlops')")
    was = shape_of(place)
    with pytest.raises(BadInput, match="was moved to postgresql://host/mlops"): ledger.events()
    assert shape_of(place) == was

# --- rights ---

def test_who_may_only_read_reads_and_is_told_when_it_is_older(pg, local, monkeypatch):
    url = pg.make("readers")
    monkeypatch.setenv("MLOPS_NB_DATABASE", url)
    ledger.event("hello", "world")
    ledger.close()
    say(url, "DROP ROLE IF EXISTS looker", "CREATE ROLE looker LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
    monkeypatch.setenv("MLOPS_NB_DATABASE", url.replace("mlops@", "looker@"))
    assert len(ledger.events()) == 1
    with pytest.raises(BadInput, match="permission denied"): ledger.event("more", "world")
    ledger.close()
    say(url, f"DELETE FROM {schema.VERSION}")
    was = shape_of(url)
    with pytest.raises(BadInput, match="refuses: (must be owner|permission denied)"): ledger.events()
    ledger.close()
    assert shape_of(url) == was
    say(url, "DROP OWNED BY looker")

@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="root may write everything, and there is no setpriv")
def test_a_file_that_may_only_be_read(local):
    ledger.event("hello", "world")
    ledger.close()
    file = local/".mlops/mlops.db"
    with sqlite3.connect(file) as c: c.execute("PRAGMA journal_mode=DELETE")   # WAL itself needs a file beside it
    c.close()
    bare = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    ask = lambda: subprocess.run([*bare, sys.executable, "-P", "-c", READ], capture_output=True, text=True, timeout=240)
    file.chmod(0o444), file.parent.chmod(0o555)
    try:
        assert (said := ask()).stdout == "world\n", said.stderr
        file.chmod(0o644)
        with sqlite3.connect(file) as c: c.execute(f"DELETE FROM {schema.VERSION}")
        c.close()
        file.chmod(0o444)
        assert (said := ask()).returncode and "cannot be written; let this user write the file" in said.stderr
    finally: file.parent.chmod(0o755)

# --- the fast path ---

USED = "import sys; from mlops_nb.core import ledger; from mlops_nb.label import tables; ledger.event('hello', 'world'); tables.query('SELECT 1'); print(sorted({'sqlalchemy', 'alembic'} & {*sys.modules}))"

def test_neither_a_fresh_nor_a_present_database_imports_alembic(place):
    lean = "[]" if place.startswith("sqlite") else "['sqlalchemy']"
    assert [ended(by(ROOT, USED)) for _ in range(2)] == [lean, lean] and len(ledger.events()) == 2
    ledger.close()
    say(place, f"DELETE FROM {schema.VERSION}")
    assert ended(by(ROOT, USED)) == "['alembic', 'sqlalchemy']"          # an older one does

def test_a_present_file_is_known_by_one_query(local, monkeypatch):
    ledger.event("hello", "world")
    ledger.close()
    real, said = database._pragmas, []
    monkeypatch.setattr(database, "_pragmas", lambda c, wait: real(c, wait) or c.set_trace_callback(said.append))
    assert len(database.query("SELECT * FROM event")) == 1 and said == [schema.KNOWN, "SELECT * FROM event"]
