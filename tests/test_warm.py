"Warm kernels: the same results as cold ones, nothing shared, nothing lost, nothing left. Real kernels, stock clients."
import asyncio, os, signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat, psutil, pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from mlops_nb.run import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
ROOT = Path(__file__).resolve().parent.parent
SMALL = ("json", "numpy", "IPython.core.completerlib", "ipykernel.kernelapp", "ipykernel.debugger")

def client(*cells, **options):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    return NotebookClient(nb, kernel_name="python3", extra_arguments=["--log-level=40"], **options)

def said(*cells, env=None, cwd=None, **options):
    "What the cells print, in one kernel."
    c = client(*cells, **options)
    kernel = {k: v for k, v in dict(env=env and {**os.environ, **env}, cwd=cwd and str(cwd)).items() if v}
    nb = asyncio.run(c.async_execute(**kernel))
    return "".join(o.text for cell in nb.cells for o in cell.outputs if o.get("name") == "stdout").strip()

def wait(until, seconds=20):
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end: time.sleep(.02)
    assert until()

def start():
    warm.start()
    wait(warm.ready, 60)
    return warm._NOW.zygote.pid

def alive(pid): return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

PARENT = "import psutil, os; print(psutil.Process(os.getppid()).pid)"

@pytest.fixture(scope="module")
def full():
    "All the libraries of a real run, imported once for this file."
    with warm.kernels(): yield start()

@pytest.fixture
def apart(full):
    "Outside of this file's zygote: no other, none started yet."
    saved, before = dict(vars(warm._NOW)), warm._default("local-provisioner")
    vars(warm._NOW).update(preload=None, env=None, zygote=None, control=None, ready=False, failed=False, before=None, said=set())
    yield
    warm.stop()
    vars(warm._NOW).update(saved)
    warm._default(before)

WORK = """
import io, os, random, sys, tempfile, uuid, warnings
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.dataset as ds, pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
import mlflow, mlflow.sklearn
rng = np.random.default_rng(0)
x = rng.normal(size=(6_000, 8)); y = (x[:, 0] + rng.normal(size=6_000) > 0).astype(int)
model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(x, y)
print(round(float(model.predict_proba(x)[:, 1].sum()), 9), np.linalg.svd(x[:800] @ x[:800].T, compute_uv=False)[:3].round(6))
forest = RandomForestClassifier(10, n_jobs=2, random_state=0).fit(x[:3000], y[:3000])
print(forest.predict(x[:500]).sum())
with tempfile.TemporaryDirectory() as tmp:
    df = pd.DataFrame(x, columns=list("abcdefgh"))
    for k in range(4): pq.write_table(pa.Table.from_pandas(df), f"{tmp}/{k}.parquet")
    print(ds.dataset(tmp, format="parquet").to_table(use_threads=True, filter=ds.field("a") > 0).num_rows)
    for k in range(2): write_deltalake(f"{tmp}/delta", df, mode="append")
    print(DeltaTable(f"{tmp}/delta").version(), len(DeltaTable(f"{tmp}/delta").to_pandas()))
    mlflow.set_tracking_uri(os.environ["STORE"])
    with mlflow.start_run(): mlflow.log_metric("auc", .7); mlflow.sklearn.log_model(model, name="m", pip_requirements=[], serialization_format="cloudpickle")
    print(mlflow.search_runs(search_all_experiments=True)["metrics.auc"].unique())
"""

def test_same_results_as_cold(full, tmp_path):
    "OpenMP, BLAS, thread pools, Rust and SQLite work in a fork, again and again, two at once, and say what they say in a cold kernel."
    env = dict(warm.QUIET, STORE=f"sqlite:///{tmp_path}/mlflow.db")
    before = warm._default("local-provisioner")
    try: cold = said(WORK, env=env, cwd=tmp_path)
    finally: warm._default(before)
    assert cold.endswith("[0.7]")
    with ThreadPoolExecutor(2) as pool: texts = list(pool.map(lambda _: said(WORK, PARENT, env=env, cwd=tmp_path, timeout=120), range(3)))
    assert texts == [f"{cold}\n{full}"]*3

def test_papermill_is_stock(full, tmp_path):
    import papermill
    nb = nbformat.v4.new_notebook(metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")), cells=[
        nbformat.v4.new_code_cell("n = 1", metadata=dict(tags=["parameters"])), nbformat.v4.new_code_cell(f"{PARENT}; n, os.getcwd()")])
    nbformat.write(nb, tmp_path/"a.ipynb")
    out = papermill.execute_notebook(str(tmp_path/"a.ipynb"), str(tmp_path/"b.ipynb"), dict(n=7), progress_bar=False, cwd=str(tmp_path))
    assert [o.get("text") or o["data"]["text/plain"] for o in out.cells[-1].outputs] == [f"{full}\n", str((7, str(tmp_path)))]

def test_nothing_is_shared(full, tmp_path):
    "Environment, folder, session, random numbers and process group are the kernel's own."
    look = "import os, sys, random, numpy, uuid; print(os.environ.get('MLOPS_NB_RUN'), os.environ.get('ONLY'), os.getcwd(), os.getpgid(0) == os.getpid(), 'mlops_nb' in sys.modules)"
    luck = "print(random.random(), numpy.random.rand(), numpy.random.default_rng().random(), uuid.uuid4())"
    homes = [tmp_path/"a", tmp_path/"b"]
    for h in homes: h.mkdir()
    with ThreadPoolExecutor(2) as pool: a, b = pool.map(lambda k: said(look, luck, env=dict(MLOPS_NB_RUN=f"run-{k}", **({"ONLY": "a"} if k == 0 else {})), cwd=homes[k]).splitlines(), range(2))
    assert a[0] == f"run-0 a {homes[0]} True False" and b[0] == f"run-1 None {homes[1]} True False"
    assert not set(a[1].split()) & set(b[1].split())
    assert os.environ.get("MLOPS_NB_RUN") is None

def test_edited_code_is_never_stale(full, tmp_path):
    for n in (1, 2):
        (tmp_path/"ours.py").write_text(f"limit = {n}{' '*n}")
        assert said("import ours; print(ours.limit)", cwd=tmp_path) == str(n)

def test_interrupt_and_timeout(full):
    loop = "import time\nfor _ in range(300): time.sleep(.1)"
    with pytest.raises(CellExecutionError, match="KeyboardInterrupt"): said(loop, timeout=1, interrupt_on_timeout=True)
    with pytest.raises(CellTimeoutError): said(loop, timeout=1)

def test_exit_handlers_run(full, tmp_path):
    said(f"import atexit; atexit.register(open({str(tmp_path/'bye')!r}, 'w').write, 'bye'); print('x'*100_000)")
    assert (tmp_path/"bye").exists()

@pytest.mark.parametrize("again", range(5))
def test_shutdown_is_quick(full, again):
    "Every time: ipykernel's own exit waits seconds in one of ten when its control thread still flushes."
    c = client("import mlflow.sklearn")
    c.create_kernel_manager(); c.start_new_kernel(); c.start_new_kernel_client()
    c.execute_cell(c.nb.cells[0], 0)
    pid, began = c.km.provisioner.pid, time.perf_counter()
    c._cleanup_kernel()
    assert time.perf_counter() - began < .5 and not psutil.pid_exists(pid)

def test_restart(full):
    c = client("print(1)")
    km = c.create_kernel_manager()
    async def twice():
        await km.start_kernel(); first = km.provisioner.pid
        await km.restart_kernel(now=True); second = km.provisioner.pid
        await km.shutdown_kernel()
        return first, second
    first, second = asyncio.run(twice())
    assert first != second and not psutil.pid_exists(first) and not psutil.pid_exists(second)

def test_dead_kernel(full):
    "A kernel that is killed is noticed, and the next one works."
    with pytest.raises(DeadKernelError): said("import os; os.kill(os.getpid(), 9)")
    assert said(PARENT) == str(full)

def test_import_time_environment(full, capfd):
    "Another OMP_NUM_THREADS cannot be given to a library that is already loaded: that kernel is cold, and we hear of it."
    assert said(PARENT, env={"OMP_NUM_THREADS": "1"}) == str(os.getpid())
    assert "OMP_NUM_THREADS" in capfd.readouterr().err
    assert said(PARENT) == str(full)

def test_zygote_killed(apart, capfd):
    "The running kernel goes on, the next ones are cold, and it is said once."
    with warm.kernels(SMALL): kill_and_go_on(start())
    assert capfd.readouterr().err.count("kernels start cold from here on") == 1

def kill_and_go_on(zygote):
    c = client("print('still here')")
    c.create_kernel_manager(); c.start_new_kernel(); c.start_new_kernel_client()
    os.kill(zygote, signal.SIGKILL)
    wait(lambda: not alive(zygote))
    c.execute_cell(c.nb.cells[0], 0)
    assert c.nb.cells[0].outputs[0]["text"] == "still here\n"
    c._cleanup_kernel()
    assert [said(PARENT), said(PARENT)] == [str(os.getpid())]*2

@pytest.mark.parametrize("module, why", [("broken_import", "has ended"), ("thread_at_import", "sleeper"), ("not_there", "not installed: not_there")])
def test_bad_preload(apart, tmp_path, capfd, monkeypatch, module, why):
    (tmp_path/"broken_import.py").write_text("1/0")
    (tmp_path/"thread_at_import.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='sleeper', daemon=True).start()")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    warm._spawn(("json", module))
    wait(lambda: warm.ready() or warm._NOW.failed)
    assert why in capfd.readouterr().err and warm.ready() == (module == "not_there")

def test_first_kernels_do_not_wait(apart):
    with warm.kernels():
        warm.start()
        assert said(PARENT) == str(os.getpid())

def test_client_dies(tmp_path):
    "Killed in the middle of a cell, a runner leaves neither zygote nor kernel nor what the kernel had started."
    script = f"""
import os, subprocess, time
from mlops_nb.run import warm
from tests.test_warm import SMALL, client, start
with warm.kernels(SMALL):
    zygote = start()
    c = client("import subprocess, os; p = subprocess.Popen(['sleep', '600']); print(os.getpid(), p.pid, flush=True)", "import time; time.sleep(600)")
    c.create_kernel_manager(); c.start_new_kernel(); c.start_new_kernel_client()
    c.execute_cell(c.nb.cells[0], 0)
    print(zygote, c.nb.cells[0].outputs[0]["text"].strip(), flush=True)
    c.execute_cell(c.nb.cells[1], 1)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as p:
        pids = [int(n) for n in p.stdout.readline().split()]
        assert len(pids) == 3 and all(alive(n) for n in pids)
        p.kill()
    wait(lambda: not any(alive(n) for n in pids), 10)

def test_nothing_is_left():
    "After all of the above: one process, the zygote of this file, and no more open files with every kernel."
    me = psutil.Process()
    with warm.kernels(SMALL):
        start()
        for n in range(6):
            said("1")
            if n == 0: fds = me.num_fds()
        assert me.num_fds() <= fds
        assert [p.pid for p in me.children(recursive=True)] == [warm._NOW.zygote.pid]
