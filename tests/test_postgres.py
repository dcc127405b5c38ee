"The toolkit's own tables on a real Postgres: rights, restarts, two machines."
import os, signal, subprocess, sys, threading, time

import pytest
import sqlalchemy as sa

from conftest import MAIN, cli, one_line, wait_until
from mlops_nb.core import database, ledger, store, stores
from mlops_nb.core.config import settings, settings_for
from mlops_nb.core.finding import BadInput, Busy, failed
from mlops_nb.label import tables
from servers import Postgres, pg

@pytest.fixture
def fresh(pg, local, monkeypatch):
    "An empty project on an empty database."
    monkeypatch.setenv("MLOPS_NB_DATABASE", pg.make("fresh"))
    yield pg
    ledger.close()

def sql(words, **values):
    with database.begin() as c: return c.execute(sa.text(words), values)

# --- words ---

def test_a_wrong_password_is_one_line_and_stays_unsaid(local, monkeypatch):
    server = Postgres(password="r1ght-w0rd")
    try:
        with settings_for(local, database=server.url()): assert ledger.events().empty
        ledger.close()
        for env in (dict(MLOPS_NB_DATABASE=server.url(password="wr0ng-w0rd")), dict(MLOPS_NB_DATABASE=f"postgresql+psycopg://mlops@127.0.0.1:{server.port}/postgres", PGPASSWORD="wr0ng-w0rd"),
                    dict(MLOPS_NB_DATABASE=f"postgresql+psycopg://mlops@127.0.0.1:{server.port}/postgres?password=wr0ng-w0rd")):
            said = cli("status", **env)
            one_line(said, 2, "password authentication failed", "PGPASSWORD")
            assert "w0rd" not in said.stdout + said.stderr
        assert not [p for p in local.rglob("*") if p.is_file() and b"w0rd" in p.read_bytes()]
    finally: server.end()

def test_a_database_that_does_not_exist(pg, local):
    one_line(cli("status", MLOPS_NB_DATABASE=pg.url("nowhere")), 2, 'database "nowhere" does not exist')

def test_a_user_without_rights(fresh):
    sql("CREATE ROLE reader LOGIN") if not sql("SELECT 1 FROM pg_roles WHERE rolname = 'reader'").scalar() else None
    one_line(cli("status", MLOPS_NB_DATABASE=settings().database.replace("mlops@", "reader@")), 2, "permission denied")

def test_a_server_that_is_away_is_waited_for_then_told(local):
    said = cli("status", MLOPS_NB_DATABASE="postgresql+psycopg://me:hunter22@127.0.0.1:1/mlops", MLOPS_NB_LOCK_TIMEOUT="3")
    assert said.returncode == 75 and "waiting up to 3 s" in said.stderr and "does not answer" in said.stderr and "hunter22" not in said.stderr

# --- two machines ---

HOLD = "import sys; from mlops_nb.core import store\nwith store.lock('alias_x'):\n    print('held', flush=True)\n    sys.stdin.readline()"

def test_a_lock_holds_across_machines_and_dies_with_its_process(fresh, tmp_path_factory):
    "Another folder stands for another machine: its lock files are its own."
    other = subprocess.Popen([sys.executable, "-P", "-c", HOLD], env={**os.environ, "MLOPS_NB_ROOT": str(tmp_path_factory.mktemp("machine"))}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(Busy, match=rf"'alias_x' .*process {other.pid}"):
        with store.lock("alias_x", timeout=.5): pass
    with store.lock("alias_x", timeout=0, here=True): pass
    with store.lock("alias_y", timeout=0): pass
    other.kill()
    other.communicate()
    with store.lock("alias_x", timeout=30): pass

def test_the_runs_of_another_machine_are_not_taken_for_dead(fresh):
    id = ledger.start_run("x.ipynb")
    database.write("UPDATE run SET host = 'elsewhere', pid = 1 WHERE id = :id", dict(id=id))
    assert ledger.close_dead() == 0 and ledger.runs(state="running").id.tolist() == [id]

def test_leases_are_held_by_the_servers_clock(fresh, monkeypatch):
    "A machine whose clock is an hour ahead does not take what others hold."
    import pandas as pd
    from mlops_nb.label import queue
    queue.create("t", pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"]}), key="id", classes=["late", "fine"], kind="text")
    mine = [i.item for i in queue.take("t", "ana", 1)]
    tables._ahead.cache_clear()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    try: assert [i.item for i in queue.take("t", "bob", 2)] and mine[0] not in [i.item for i in queue.take("t", "bob", 2)]
    finally:
        monkeypatch.setattr(time, "time", real)
        tables._ahead.cache_clear()

# --- restarts ---

WRITE = """
import sys
from mlops_nb.core import ledger, database
for n in range(int(sys.argv[1])):
    ledger.event("w", f"{sys.argv[2]}-{n}")
    with database.alone("sums") as say: pass
    assert len(database.query("SELECT 1 AS one")) == 1
"""

@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_restarts_lose_nothing_and_write_nothing_twice(fresh, how):
    "Four writers, three restarts: every row is there, once."
    ledger.event("begin", "x")
    writers = [subprocess.Popen([sys.executable, "-P", "-c", WRITE, "150", str(w)], env={**os.environ, "MLOPS_NB_LOCK_TIMEOUT": "60"}, stderr=subprocess.PIPE, text=True) for w in range(4)]
    for n in range(3):
        wait_until("progress", lambda: len(ledger.events("w")) > 20*(n + 1) or all(w.poll() is not None for w in writers))
        fresh.stop(how)
        fresh.start()
    said = [w.communicate(timeout=240)[1] for w in writers]
    kept = ledger.events("w").subject
    assert kept.is_unique
    for w, p, text in zip(range(4), writers, said):
        mine = [int(s.split("-")[1]) for s in kept if s.startswith(f"{w}-")]
        assert mine == list(range(len(mine)))
        assert (p.returncode, len(mine)) == (0, 150) or "does not answer" in text and "Busy" in text, text

def test_a_commit_whose_answer_was_lost_is_not_repeated(fresh, monkeypatch):
    "The server commits and goes away before it says so."
    from sqlalchemy.engine import RootTransaction
    ledger.event("begin", "x")
    real, done = RootTransaction.commit, []
    def commit(self):
        real(self)
        if not done and done.append(1) is None:
            fresh.stop(signal.SIGINT)
            fresh.start()
            raise sa.exc.OperationalError("COMMIT", {}, type("Gone", (Exception,), {"sqlstate": "57P01"})("server closed the connection unexpectedly"), connection_invalidated=True)
    monkeypatch.setattr(RootTransaction, "commit", commit)
    ledger.event("w", "once")
    assert done and len(ledger.events("w")) == 1

def test_labels_whose_answer_was_lost_are_not_repeated(fresh, monkeypatch):
    "They end inside the pipeline: the server goes away before it is told to keep them, and after it has."
    import psycopg
    from mlops_nb.label import log
    log.append(log.Event("t", "1", "a"))
    say, leave = psycopg.Connection.execute, psycopg.Pipeline.__exit__
    def gone(self, *words):
        fresh.stop(signal.SIGQUIT), fresh.start()
        return say(self, *words)
    def unheard(self, *why):
        leave(self, *why)
        fresh.stop(signal.SIGINT), fresh.start()
        raise psycopg.OperationalError("server closed the connection unexpectedly")
    with monkeypatch.context() as m, pytest.raises(Busy, match="taken back"):
        m.setattr(psycopg.Connection, "execute", gone)
        log.append(log.Event("t", "2", "a"))
    with monkeypatch.context() as m:
        m.setattr(psycopg.Pipeline, "__exit__", unheard)
        assert log.append(log.Event("t", "3", "a")) == 1
    assert log.append(log.Event("t", "4", "a")) == 1 and log.events("t").item.tolist() == ["1", "3", "4"]

# --- check ---

def test_check_tells_of_each_store(fresh):
    found = stores.check()
    assert not failed(found) and {"reachable", "rights", "schema", "version", "clock"} <= {f.check for f in found if f.subject.startswith("database")}
    with settings_for(settings().root, database=fresh.url("nowhere")): assert [f.subject for f in failed(stores.check(1))] == ["database"]
