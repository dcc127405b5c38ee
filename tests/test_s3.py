"The warehouse and the reports in a bucket of a real S3-compatible server: versions, two writers, outages, rights."
import os, signal, subprocess, sys, threading, time

import pandas as pd
import pytest

from conftest import MAKE, cli, write_notebook, write_settings
from mlops_nb.core import ledger, store, stores, table
from mlops_nb.core.config import settings, settings_for
from mlops_nb.core.finding import BadInput, Busy, failed
from mlops_nb.data import dataset, versions
from servers import KEYS, S3, Outage, s3

@pytest.fixture
def bucket(s3, local, monkeypatch):
    "An empty project whose warehouse and reports are in a bucket."
    for k, v in s3.settings.items(): monkeypatch.setenv(k, v)
    name = f"b{os.getpid()}{abs(hash(local.name)) % 10**8}-403"   # a number in a name is no answer of the store
    place = s3.bucket(name)
    monkeypatch.setenv("MLOPS_NB_WAREHOUSE", f"{place}/warehouse")
    monkeypatch.setenv("MLOPS_NB_REPORTS", f"{place}/reports")
    monkeypatch.setenv("MLOPS_NB_LOCK_TIMEOUT", "60")
    return place

def rows(*ids): return pd.DataFrame({"id": ids, "x": [float(i) for i in ids]})

def test_versions_tags_diff_rollback_and_vacuum(bucket):
    dataset.commit(rows(1, 2), "d", note="first")
    dataset.append(rows(3), "d")
    dataset.append(rows(3), "d", batch="b")
    assert dataset.append(rows(3), "d", batch="b") == 2 and dataset.read("d").id.tolist() == [1, 2, 3, 3]
    versions.tag("d", "gold", 0)
    assert dataset.read("d@gold").id.tolist() == [1, 2] and dataset.names() == ["d"]
    assert "1 rows added" in str(versions.diff("d", 0, 1))
    versions.rollback("d", 0)
    assert dataset.read("d").id.tolist() == [1, 2] and len(dataset.history("d")) == 4
    for n in range(table.EVERY): dataset.append(rows(n), "d")            # a summary of the log is written, and read
    assert len(dataset.read("d")) == 22 and len(dataset.read("d", version=1)) == 3
    assert "went" in versions.vacuum("d", days=0, keep=1, dry_run=False)[-1].note
    assert len(dataset.read("d")) == 22

APPEND = "import sys, pandas as pd\nfrom mlops_nb.data import dataset\nfor n in range(6): dataset.append(pd.DataFrame({'id': [f'{sys.argv[1]}-{n}']}), 'd')"

def test_writers_on_several_machines_lose_nothing(bucket, tmp_path_factory):
    "Each has its own lock files and its own ledger: only the store decides who was first."
    dataset.commit(pd.DataFrame({"id": ["0"]}), "d")
    writers = [subprocess.Popen([sys.executable, "-P", "-c", APPEND, str(w)], env={**os.environ, "MLOPS_NB_ROOT": str(tmp_path_factory.mktemp("machine"))}, stderr=subprocess.PIPE, text=True) for w in range(4)]
    for w in writers: assert w.wait(240) == 0, w.stderr.read()
    assert sorted(dataset.read("d").id) == sorted(["0", *(f"{w}-{n}" for w in range(4) for n in range(6))])
    assert len(dataset.history("d")) == 25

def test_an_executed_notebook_and_its_page_are_in_the_bucket(bucket, local):
    from mlops_nb.run import notebook
    write_notebook(local/"nbs/workflows/make.ipynb", *MAKE, parameters="rows = 5")
    write_settings(local, pipeline=dict(make=""))
    done = notebook.run("make", html=True)
    notebook.wait_for_pages()
    assert done.state == "done" and done.output.startswith(f"{bucket}/reports/runs/make/")
    assert b"ledger" in store.read_bytes(done.output) and b"<html" in store.read_bytes(done.output.replace(".ipynb", ".html"))
    assert notebook.run("make").state == "skipped"

# --- outages ---

def test_outages_in_the_middle_lose_nothing_and_write_nothing_twice(bucket, s3, monkeypatch):
    "The line is cut again and again while rows are appended; each append is there once."
    line = Outage(s3.port)
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
        dataset.commit(rows(0), "d")
        cuts = threading.Thread(target=lambda: [(time.sleep(.3), line.cut(), time.sleep(.4), line.mend()) for _ in range(6)])
        cuts.start()
        n = 0
        while cuts.is_alive() or n < 5: dataset.append(rows(n := n + 1), "d")
        cuts.join()
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.settings["AWS_ENDPOINT_URL"])   # what is there is read over a whole line
        assert dataset.read("d").id.tolist() == list(range(n + 1)) and len(dataset.history("d")) == n + 1
    finally: line.end()

def test_the_address_in_the_settings_now_is_asked(bucket, s3, monkeypatch):
    "Nobody keeps a client of the address before: the search for a person, the page of a run."
    from mlops_nb.data import rewrite
    from mlops_nb.run import report
    dataset.commit(rows(1), "d")
    kept = store.write_text(store.report_path("runs", "make", "1.ipynb"), '{"cells": [], "metadata": {}}')
    line = Outage(s3.port)
    for end in (line.port, s3.port):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{end}")
        assert list(rewrite.holding(table.table_url("d"), {"id": {"1"}}).values()) == [1] and "make" in str(report.of(kept))
        line.end()

def test_an_answer_that_was_lost_is_asked_for_again(bucket):
    "The commit is in the store, its answer never came: the same bytes are ours, others are not."
    from mlops_nb.core.distant import put_new
    assert put_new(f"{bucket}/log/0.json", b"mine") and put_new(f"{bucket}/log/0.json", b"mine") and not put_new(f"{bucket}/log/0.json", b"yours")

def test_a_store_that_stays_away_is_busy(bucket, monkeypatch):
    dataset.commit(rows(1), "d")
    for k, v in dict(AWS_ENDPOINT_URL="http://127.0.0.1:1", MLOPS_NB_LOCK_TIMEOUT="1").items(): monkeypatch.setenv(k, v)
    for ask in (lambda: dataset.commit(rows(2), "d"), lambda: dataset.names(), lambda: store.write_text(f"{bucket}/x", "y"), lambda: dataset.read("d")):
        with pytest.raises(Busy, match="does not answer"): ask()
    assert [f.subject for f in failed(stores.check(1))] == ["warehouse", "reports"]

# --- rights ---

def test_a_bucket_that_is_not_there_and_a_user_without_rights(bucket, local, monkeypatch):
    with settings_for(local, warehouse="s3://nowhere-at-all/w"), pytest.raises(BadInput, match="no such bucket"): dataset.commit(rows(1), "d")
    server = S3(INITIAL_NO_AUTH_ACTION_COUNT="3")
    try:
        import boto3
        about = dict(endpoint_url=server.settings["AWS_ENDPOINT_URL"], region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
        boto3.client("s3", **about).create_bucket(Bucket="closed")
        boto3.client("iam", **about).create_user(UserName="ana")
        key = boto3.client("iam", **about).create_access_key(UserName="ana")["AccessKey"]
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.settings["AWS_ENDPOINT_URL"])
        for id, word, says in ((key["AccessKeyId"], key["SecretAccessKey"], "refuses"), ("AKIAWRONG", "wr0ng-w0rd-of-somebody", "refuses")):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", id)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", word)
            with settings_for(local, warehouse="s3://closed/w"):
                with pytest.raises(BadInput, match=says) as e: dataset.commit(rows(1), "d")
                said = cli("run", "nothing", MLOPS_NB_REPORTS="s3://closed/r")
                found = stores.check(1)
            assert word not in str(e.value) + said.stdout + said.stderr + str(found) and "warehouse" in [f.subject for f in failed(found)]
        assert not [p for p in local.rglob("*") if p.is_file() and b"w0rd" in p.read_bytes()]
    finally: server.end()

def test_check_says_that_promotions_are_seen_here_only(bucket):
    found = stores.check()
    assert not failed(found) and any(f.check == "one ledger" and not f.ok for f in found)
    assert {f.value for f in found if f.check == "new files only"} == {True}
