"The project at a glance: right, quick because it imports little, and never wrong about what a person ran with parameters of theirs."
import json, os, subprocess, sys

from conftest import MAIN, write_notebook, write_settings
from mlops_nb.core import ledger
from mlops_nb.core.config import settings_for
from mlops_nb.run import overview, pipeline

HEAVY = ("mlflow", "pandas", "numpy", "pyarrow", "deltalake", "sklearn", "sqlalchemy", "papermill", "IPython")


def test_nothing_heavy_is_imported(tmp_path):
    write_settings(tmp_path)
    with settings_for(tmp_path):
        ledger.event("promote", "m", version=1, alias="champion")
        ledger.close()
    code = f"import sys; from mlops_nb.cli.cli import main; main(['status']); main(['status', '--json', '--whole']); main(['audit']); print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, "MLOPS_NB_ROOT": str(tmp_path)})
    assert done.stderr.strip() == "[]", done.stderr


def test_own_parameters_are_not_stale(tmp_path):
    "An ingest of one's own file; the defaults were never run, and need not be."
    write_settings(tmp_path, mlops_nb={"warm": "0"}, pipeline={"bring": "", "learn": "bring"})
    write_notebook(tmp_path/"nbs/workflows/bring.ipynb", "from mlops_nb.core import ledger\nledger.wrote('thing', 'mine', source)", parameters="source = 'sample'")
    write_notebook(tmp_path/"nbs/workflows/learn.ipynb", "from mlops_nb.core import ledger\nledger.wrote('thing', 'model', 1)", parameters="x = 1")
    with settings_for(tmp_path):
        assert [r.exit_code for r in pipeline.run({"bring": {"source": "mine.csv"}})] == [0, 0]
        seen = {r["stage"]: r for r in overview.stages()}
        assert seen["bring"]["stale"] == seen["learn"]["stale"] == "" and seen["bring"]["parameters"] == {"source": "mine.csv"} and seen["learn"]["parameters"] == {}
        assert [r["would"] for r in pipeline.plan()] == ["run", "may run"]   # what `run` does is another question
        write_notebook(tmp_path/"nbs/workflows/bring.ipynb", "from mlops_nb.core import ledger\nledger.wrote('thing', 'mine', source + '!')", parameters="source = 'sample'")
        assert {r["stage"]: r["stale"] for r in overview.stages()} == dict(bring="its code changed", learn="after bring, which would run")
        ledger.close()


def test_whole(tmp_path):
    import pandas as pd
    from mlops_nb.core.finding import Finding
    from mlops_nb.label import log, queue
    from mlops_nb.monitor import alerts
    with settings_for(tmp_path):
        queue.create("mood", pd.DataFrame(dict(id=["a", "b"], text=["late", "fine"])), key="id", classes=["x", "y"], kind="text")
        log.append(log.Event("mood", "a", "x", annotator="ana"))
        for v in (1, 2): ledger.event("register", "m", version=v, tags={}), ledger.event("promote", "m", version=v, alias="champion", reason="better"), ledger.wrote("alias", "m@champion", v)
        ledger.event("rollback", "m", version=1, alias="champion", reason="alarms"), ledger.wrote("alias", "m@champion", 1)
        alerts.raise_([Finding("auc", "valid", .5, .66, ok=False)], topic="m")
        seen = overview.whole()
        assert seen["models"][0] | {"since": "", "by": ""} == dict(model="m", in_charge="1", since="", by="", reason="alarms", versions=2, newest=2)
        assert [(t["task"], t["done"], t["total"], t["people"]) for t in seen["labels"]] == [("mood", 1, 2, 1)]
        assert [a["alarm"] for a in seen["alarms"]] == ["m/auc/valid"] and seen["delivery"]["deployments"] == 2 and seen["delivery"]["change_fail_rate"] == .5
        assert json.loads(json.dumps(seen, default=str))["models"]
        ledger.close()
    done = subprocess.run([*MAIN, "status"], capture_output=True, text=True, timeout=120, env={**os.environ, "MLOPS_NB_ROOT": str(tmp_path), "MLOPS_NB_WARM": "0"})
    assert done.returncode == 0 and all(w in done.stdout for w in ("models in charge", "open alarms", "m/auc/valid", "mood", "delivery"))


def test_the_page_runs(tmp_path):
    "With nothing in the stores, and as the notebook that Voila shows."
    import nbformat
    from nbclient import NotebookClient
    from conftest import ROOT
    book = nbformat.read(ROOT/"nbs/dashboards/project.ipynb", 4)
    with settings_for(tmp_path): done = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [o["data"].get("text/html", "") for c in done.cells if c.cell_type == "code" for o in c.outputs if "data" in o]
    assert any("Nothing has run yet" in s for s in shown) and "could not be shown" not in "".join(shown)
