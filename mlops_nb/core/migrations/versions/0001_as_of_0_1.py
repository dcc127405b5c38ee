"The tables of mlops_nb 0.1. What is there from before keeps its rows and gets what it lacks."
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

def text(names, **kinds): return {n: kinds.get(n, "TEXT") for n in names.split()}

COUNT = "INTEGER NOT NULL DEFAULT 0"
TABLES = dict(
    run=text("no id notebook stage code environment modules parameters state started ended error output note user host pid process", no="SERIAL", id="TEXT UNIQUE", pid="INTEGER"),
    io=text("no run direction kind name version asked at", no="SERIAL"),
    finding=text("no run topic at check subject value limit ok level note action", no="SERIAL", ok="BOOLEAN"),
    event=text("no at run actor action subject detail mark", no="SERIAL"),
    snapshot=text("hash text", hash="TEXT PRIMARY KEY"),
    catalogue=text("no at actor name owner description licence", no="SERIAL"),
    alert=text("hash topic check subject level value limit note action since seen state kind looks turn began who why", hash="TEXT PRIMARY KEY", **dict.fromkeys(("looks", "turn", "began"), "INTEGER")),
    delivery=text("hash alert channel turn at state tries error", hash="TEXT PRIMARY KEY", turn="INTEGER", tries="INTEGER"),
    label_event=text("no uid task item label kind annotator at ms suggestion confidence model", no="SERIAL", uid="TEXT NOT NULL UNIQUE", task="TEXT NOT NULL", ms="BIGINT", confidence="DOUBLE PRECISION"),
    label_answer=text("task item annotator slot label kind at uid no", task="TEXT NOT NULL", item="TEXT NOT NULL", annotator="TEXT NOT NULL", slot="INTEGER NOT NULL", no="INTEGER"),
    label_task=text("no name text at who total done skipped flagged disputed needed", no="SERIAL", name="TEXT NOT NULL UNIQUE", **dict.fromkeys(("total", "done", "skipped", "flagged", "disputed", "needed"), COUNT)),
    label_item=text("no task item gold suggestion confidence model rank reason labels skips open state review", no="SERIAL", task="INTEGER NOT NULL", item="TEXT NOT NULL", confidence="DOUBLE PRECISION",
                    rank="DOUBLE PRECISION NOT NULL DEFAULT 0", labels=COUNT, skips=COUNT, open="INTEGER NOT NULL DEFAULT 1", state="TEXT NOT NULL DEFAULT 'left'", review="TEXT NOT NULL DEFAULT ''"),
    label_data=text("no data", no="INTEGER"),
    label_lease=text("task item annotator slot until", task="INTEGER NOT NULL", item="INTEGER NOT NULL", annotator="TEXT NOT NULL", slot=COUNT, until="DOUBLE PRECISION NOT NULL"),
    label_person=text("task annotator rank pos session seen labels skips flags", task="INTEGER NOT NULL", annotator="TEXT NOT NULL", rank="DOUBLE PRECISION NOT NULL DEFAULT -1e300", pos=COUNT,
                      seen="DOUBLE PRECISION NOT NULL DEFAULT 0", labels=COUNT, skips=COUNT, flags=COUNT),
    schema_version=text("part version by", part="TEXT PRIMARY KEY", version="INTEGER"))
KEYS = dict(label_data="no", label_answer="task, item, annotator, slot", label_lease="task, item, annotator, slot", label_person="task, annotator")
INDEXES = [f'INDEX {{}} "ix_{t}_{n}" ON "{t}" ("{n}")' for t, names in dict(run="state stage notebook", io="run name", finding="run topic", event="action subject", catalogue="name", alert="topic", delivery="alert").items() for n in names.split()] + [
    "UNIQUE INDEX {} ix_label_item_name ON label_item (task, item)", "INDEX {} ix_label_item_open ON label_item (task, rank, no) WHERE open = 1", "INDEX {} ix_label_item_gold ON label_item (task) WHERE gold IS NOT NULL",
    "INDEX {} ix_label_item_review ON label_item (task, no) WHERE review <> ''", "INDEX {} ix_label_event_item ON label_event (task, item)", "INDEX {} ix_label_event_order ON label_event (task, no)"]

def upgrade():
    c = op.get_bind()
    there, local = sa.inspect(c), c.dialect.name == "sqlite"
    known = {t: [k["name"] for k in there.get_columns(t)] for t in TABLES if there.has_table(t)}
    for table, columns in TABLES.items():
        if table not in known: make(c, table, local)
        elif table == "run" and "no" not in known[table]: number(c, known[table], local)
        else:
            for n in columns.keys() - {*known[table]}: c.exec_driver_sql(f'ALTER TABLE "{table}" ADD COLUMN "{n}" {columns[n]}')
    c.exec_driver_sql("DROP INDEX IF EXISTS ix_label_event_task")
    for index in INDEXES: c.exec_driver_sql(f"CREATE {index.format('IF NOT EXISTS')}")
    if "label_event" in known and "label_answer" not in known: answer(c)

def make(c, table, local):
    serial, key = "INTEGER PRIMARY KEY" if local else "SERIAL PRIMARY KEY", [f"PRIMARY KEY ({KEYS[table]})"] if table in KEYS else []
    columns = [f'"{n}" {serial if kind == "SERIAL" else kind}' for n, kind in TABLES[table].items()]
    c.exec_driver_sql(f'CREATE TABLE "{table}" ({", ".join(columns + key)}){" WITHOUT ROWID" if key and local and table != "label_data" else ""}')

def number(c, names, local):
    "Runs had no number: they get one, in the order they started."
    kept = ", ".join(f'"{n}"' for n in TABLES["run"] if n in names)
    c.exec_driver_sql('CREATE TABLE run_before AS SELECT * FROM "run"')
    c.exec_driver_sql('DROP TABLE "run"')
    make(c, "run", local)
    c.exec_driver_sql(f'INSERT INTO "run" ({kept}) SELECT {kept} FROM run_before ORDER BY started, id')
    c.exec_driver_sql("DROP TABLE run_before")

def answer(c):
    "What holds of the labels, which was computed from all events each time: the last word of each person, without what was taken back."
    holds, void = {}, set()
    names = "task", "item", "annotator", "slot", "label", "kind", "at", "uid", "no"
    events = c.exec_driver_sql("SELECT task, item, annotator, label, kind, at, uid, no FROM label_event WHERE kind <> 'note' ORDER BY at, no").mappings().all()
    for e in reversed(events):
        if e["kind"] == "undo" and e["uid"] not in void: void.add(e["label"])
    for e in events:
        slot = int(e["kind"] == "adjudicate")
        if e["kind"] != "undo" and e["uid"] not in void: holds[e["task"], e["item"], e["annotator"], slot] = {**e, "slot": slot}
    if holds: c.execute(sa.text(f"INSERT INTO label_answer ({', '.join(names)}) VALUES ({', '.join(f':{n}' for n in names)})"), list(holds.values()))
