"The doctor sees what is wrong, says the way out, changes nothing, and is silent where all is well."
import json, socket, subprocess, sys

import pytest

from mlops_nb.core import store
from mlops_nb.core.config import settings_for
from mlops_nb.run import doctor, project

MAIN = [sys.executable, "-P", "-c", "import sys; from mlops_nb.cli.cli import main; sys.exit(main())"]

def found(check, subject=""): return [f for f in doctor.examine() if f.check == check and subject in f.subject]

@pytest.fixture
def root(tmp_path):
    root, _ = project.init(tmp_path/"shop")
    with settings_for(root): yield root

def test_a_new_project_is_well(root):
    bad = [f for f in doctor.examine() if not f.ok and f.check not in ("port", "disk", "lock")]   # those are the machine's
    assert not bad, bad
    assert not (root/".mlops").exists()

def test_each_trouble_has_its_way_out(root):
    ini = (root/"settings.ini").read_text()
    def with_(old, new): (root/"settings.ini").write_text(ini.replace(old, new))
    with_("seed = 0", "sede = 0")
    assert any("did you mean 'seed'" in f.note and not f.ok for f in doctor.examine())
    with_("seed = 0", "seed = 0\ntracking_uri = http://127.0.0.1:9\ndatabase = postgresql+psycopg://me:hush@127.0.0.1:9/x")
    for check in ("tracking_uri", "database"): assert not found(check)[0].ok and found(check)[0].action
    assert "hush" not in str(doctor.examine())
    with_("metric = roc_auc", "metric = roc_auk")
    assert any(f.check == "goal" and not f.ok for f in doctor.examine())
    with_("train = importance", "train = importence")
    assert any(f.check == "pipeline" and "importance" in f.note and not f.ok for f in doctor.examine())
    with_("[pipeline]", "[parameters]\nkye = id\nholdout_days = 3\n\n[pipeline]")
    assert "did you mean 'key'" in found("parameters", "kye")[0].note and "holdout_days" in found("parameters", "train.ipynb")[0].note

def test_stores_that_are_there_are_tried(root):
    from mlops_nb.core import database, ledger
    assert not found("rights")                          # of a new project nothing is made by looking
    ledger.event("note", "x")
    assert {f.subject for f in found("rights") if f.ok} == {"database", "warehouse", "reports"}
    version = database.rows("event")
    database.write("UPDATE schema_version SET by = 'the future'", {})
    assert any("the future" in f.note for f in found("schema")) and database.rows("event") == version
    ledger.close()

def test_a_run_at_work_and_a_port_that_is_taken(root):
    with store.lock("working", shared=True): assert "at work" in found("locks", "working")[0].note
    assert found("locks", "working")[0].note == "free"
    with socket.socket() as s:
        try: s.bind(("127.0.0.1", 8866))
        except OSError: pass   # somebody else has it, which serves as well
        else: s.listen()
        assert not found("port", "8866")[0].ok and "--port" in found("port", "8866")[0].action

def test_exit_code_and_json(root):
    done = subprocess.run([*MAIN, "doctor", "--json"], cwd=root, capture_output=True, text=True, timeout=300)
    rows = json.loads(done.stdout)
    assert done.returncode == 0 and {"setting", "python", "kernel"} <= {r["check"] for r in rows}
    (root/"settings.ini").write_text((root/"settings.ini").read_text().replace("seed = 0", "seed = many"))
    done = subprocess.run([*MAIN, "doctor"], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "-> " in done.stdout and "Traceback" not in done.stderr
