"Schedule files: crontab lines are run as cron runs them, manifests are validated offline, a real Airflow runs its DAG where there is one (AIRFLOW=path of its command)."
import json, os, re, signal, subprocess, sys, time
from pathlib import Path

import pytest, yaml

from conftest import cli, one_line, wait_until, write_notebook, write_settings
from mlops_nb.core import ledger
from mlops_nb.core.finding import BadInput
from mlops_nb.run import schedule

@pytest.fixture
def timed(tmp_path, monkeypatch):
    "A project with a space and a % in its path; stage -> (line, source)."
    folder = tmp_path/"50% off"
    def make(when={"pipeline": "0 5 * * *"}, **stages):
        for name, (line, text) in stages.items(): write_notebook(folder/f"nbs/workflows/{name}.ipynb", "from mlops_nb.core import config, ledger, store\nimport os, time\nplace = config.root()", text, parameters="n = 1")
        write_settings(folder, mlops_nb=dict(lock_timeout="0.3"), pipeline={n: l for n, (l, _) in stages.items()}, schedule=when)
        return folder
    folder.mkdir()
    monkeypatch.setenv("MLOPS_NB_ROOT", str(folder))
    yield make
    ledger.close()

def lines():
    "What cron would hand to the shell: the sixth field on, its escaped % made whole."
    text = Path(next(p for p in schedule.write("cron") if p.endswith("crontab"))).read_text()
    return [re.match(r"(?:\S+ ){5}(.*)", l)[1].replace(r"\%", "%") for l in text.splitlines() if not l.startswith("#")]

def begin(line): return subprocess.Popen(["/bin/sh", "-c", line], cwd="/", env={"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ["PYTHONPATH"], "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"], "MLOPS_PAUSE": "0.1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

def ended(process):
    try: said, err = process.communicate(timeout=200)
    finally:
        if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said + err

def test_crontab_lines_run_and_say_why(timed):
    folder = timed({"pipeline": "0 5 * * *", "gate": "*/5 * * * 1-5"}, make=("", "ledger.wrote('thing', 'a', 1)"), gate=("make", "from mlops_nb.core.finding import GateClosed\nif not (place/'open').exists(): raise GateClosed('the model is worse')"))
    whole, gate = lines()
    code, said = ended(begin(whole))
    assert code == 3 and "the model is worse" in said, "cron mails what is said"
    (folder/"open").touch()
    assert ended(begin(gate)) == (0, "") and ended(begin(whole)) == (0, ""), "no mail when all is well"
    log = (folder/".mlops/logs/pipeline.log").read_text()
    assert log.count("begins") == 2 and "ended with 3" in log and "ended with 0" in log

def test_exit_code_75_is_tried_again_and_a_second_start_does_not_wait(timed, started, tmp_path):
    folder = timed({"make": "0 5 * * *"}, make=("", "store.write_text(place/'at', 'x')\nend = time.monotonic() + 100\nwhile not (place/'go').exists() and time.monotonic() < end: time.sleep(.05)"))
    line, = lines()
    script = (folder/"schedule/mlops.sh")
    script.write_text(script.read_text().replace("mlops-nb run", f"{tmp_path}/busy run"))
    (tmp_path/"busy").write_text(f"#!/bin/sh\necho x >>{tmp_path}/tries\n[ $(wc -l <{tmp_path}/tries) -gt 2 ] || exit 75\n")
    (tmp_path/"busy").chmod(0o755)
    assert ended(begin(line))[0] == 0 and (tmp_path/"tries").read_text().count("x") == 3
    (tmp_path/"busy").write_text(f"#!/bin/sh\necho x >>{tmp_path}/tries\nexit 75\n")
    (tmp_path/"tries").unlink()
    assert ended(begin(line))[0] == 75 and (tmp_path/"tries").read_text().count("x") == schedule.TRIES
    first = begin(lines()[0])   # the real one
    wait_until("work", lambda: (folder/"at").exists(), first)
    assert ended(begin(line))[0] == 75 and "still at work" in (folder/".mlops/logs/make.log").read_text()
    (folder/"go").touch()
    assert ended(first)[0] == 0

def test_kubernetes_files_are_valid(timed):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="the extra ship is not installed")
    timed({"pipeline": "0 5 * * *", "use": "0 6 * * 1"}, make=("", "1"), use=("make", "1"))
    made = {p: yaml.safe_load(t) for p, t in schedule.files("kubernetes", image="registry/x@sha256:0: \"odd\"").items()}
    assert sorted(Path(p).stem for p in made) == ["cronjob-pipeline", "cronjob-use", "job-make", "job-use"]
    for found in made.values(): kubernetes_validate.validate(found, "1.30", strict=True)
    assert made["schedule/kubernetes/job-use.yaml"]["spec"]["template"]["spec"]["containers"][0]["command"] == ["mlops-nb", "run", "use"]

def test_the_steps_of_the_workflow_are_shell_that_runs(timed, tmp_path):
    timed({"use": "0 6 * * 1", "pipeline": "0 5 * * *"}, make=("", "1"), use=("make", "1"))
    flow = yaml.safe_load(schedule.files("github")[".github/workflows/mlops-schedule.yml"])
    assert flow[True]["schedule"] == [{"cron": "0 6 * * 1"}, {"cron": "0 5 * * *"}] and "== '0 6 * * 1'" in flow["jobs"]["use"]["if"]
    text = next(s["run"] for s in flow["jobs"]["use"]["steps"] if s.get("name") == "run").replace("sleep 60", "sleep 0")
    (tmp_path/"mlops-nb").write_text("#!/bin/sh\necho \"$*\" >>said\nexit $(cat code)\n")
    (tmp_path/"mlops-nb").chmod(0o755)
    for code, tries in ((0, 1), (75, schedule.TRIES), (3, 1)):
        (tmp_path/"code").write_text(str(code)), (tmp_path/"said").unlink(missing_ok=True)
        done = subprocess.run(["/bin/sh", "-ec", text], cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
        assert (done.returncode, (tmp_path/"said").read_text().splitlines()) == (code, ["run use"]*tries)

def test_the_verb(timed):
    folder = timed(make=("", "1"))
    assert "mlops.sh" in cli("schedule", "--to", "cron").stdout and not (folder/"schedule").exists()
    assert [Path(r["written"]).name for r in json.loads(cli("schedule", "--to", "airflow", "--write", "--json").stdout)] == ["mlops_dag.py"]
    one_line(cli("schedule", "--to", "kubernetes"), 2, "--image")
    timed({"mkae": "0 5 * * *"}, make=("", "1"))
    one_line(cli("schedule", "--to", "cron"), 2, "did you mean 'make'")

@pytest.mark.skipif("AIRFLOW" not in os.environ, reason="no Airflow here; AIRFLOW=path of its command runs it")
@pytest.mark.parametrize("papermill", [False, True])
def test_a_real_airflow_runs_the_dag(timed, tmp_path, papermill):
    "Each stage in the project's own environment; a closed gate is not tried again."
    folder = timed({"pipeline": "0 5 * * *", "gate": "0 6 * * *"}, make=("", "ledger.wrote('thing', 'a', 1)"), use=("make", "ledger.read('thing', 'a', 1)"), gate=("", "from mlops_nb.core.finding import GateClosed\nraise GateClosed('the model is worse')"))
    schedule.write("airflow", papermill=papermill)
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path/"airflow"), "AIRFLOW__CORE__DAGS_FOLDER": str(folder/"schedule"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    env.pop("MLOPS_NB_ROOT")
    flow = lambda *words: subprocess.run([os.environ["AIRFLOW"], *words], env=env, capture_output=True, text=True, timeout=500)
    assert flow("db", "migrate").returncode == 0
    assert "No data found" in flow("dags", "list-import-errors").stdout
    done = flow("dags", "test", "mlops_pipeline", "2026-01-01")
    assert "gate" in done.stdout + done.stderr and "the model is worse" in done.stdout + done.stderr, done.stdout[-3000:] + done.stderr[-3000:]
    if papermill: assert list(ledger.runs().state) == ["done"]*2 and sorted(p.name.partition("-")[0] for p in (folder/"reports/airflow").iterdir()) == ["gate", "make", "use"]   # the gate closes before it asks the ledger anything
    else: assert {r["stage"]: r["state"] for r in ledger.last_runs().values()} == dict(make="done", use="done", gate="failed")
