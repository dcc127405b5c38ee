"Warm kernels: the same results as cold ones, nothing shared, nothing lost, nothing left. Real kernels, stock clients."
import asyncio, json, os, resource, shutil, signal, socket, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat, psutil, pytest
from jupyter_client.provisioning import KernelProvisionerFactory as Factory
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from mlops_nb.core.finding import Busy, MlopsError
from mlops_nb.run import warm
from tests.conftest import gone, wait_until, write_notebook

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
ROOT = Path(__file__).resolve().parent.parent
SMALL = ("json", "numpy", "IPython.core.completerlib", "ipykernel.kernelapp", "ipykernel.debugger")

def client(*cells, kernel="python3", **options):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    return NotebookClient(nb, kernel_name=kernel, extra_arguments=["--log-level=40"], **options)

def executed(*cells, env=None, cwd=None, **options):
    "The cells with their outputs, run in one kernel."
    c = client(*cells, **options)
    kernel = {k: v for k, v in dict(env=env and {**os.environ, **env}, cwd=cwd and str(cwd)).items() if v}
    return asyncio.run(c.async_execute(**kernel)).cells

def said(*cells, **options):
    "What the cells print, in one kernel."
    return "".join(o.text for cell in executed(*cells, **options) for o in cell.outputs if o.get("name") == "stdout").strip()

def begun(c):
    "The client with its kernel started and its first cell run."
    c.create_kernel_manager(); c.start_new_kernel(); c.start_new_kernel_client()
    c.execute_cell(c.nb.cells[0], 0)
    return c

def zygotes(): return [r["pid"] for r in warm.status() if r["state"] == "ready"]

PARENT = "import psutil, os; print(psutil.Process(os.getppid()).pid)"

class by_default:
    "The default provisioner of this process, inside a `with`."
    def __init__(self, name): self.name = name
    def __enter__(self): self.name, Factory.instance().default_provisioner_name = Factory.instance().default_provisioner_name, self.name
    __exit__ = lambda self, *_: self.__enter__()

@pytest.fixture(scope="module")
def full():
    "The zygote of this test session, with all the libraries of a real run."
    warm.start()
    warm.wait()
    with by_default(warm.NAME): yield warm._told(warm.zygote_name({**warm.QUIET, **os.environ}))["pid"]

@pytest.fixture
def apart(tmp_path, monkeypatch):
    "A place without zygotes, for quick ones of few modules."
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path/"run"))
    monkeypatch.setattr(warm, "PRELOAD", SMALL)
    monkeypatch.setattr(warm, "_SAID", set())
    with by_default(warm.NAME): yield
    pids = [r["pid"] for r in warm.status()]
    warm.stop()
    wait_until("end of the zygotes", lambda: all(gone(p) for p in pids if p), seconds=20)

def ready():
    warm.start()
    warm.wait()
    return warm._told(warm.zygote_name({**warm.QUIET, **os.environ}))["pid"]

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
    with by_default("local-provisioner"): cold = said(WORK, env=env, cwd=tmp_path)
    assert cold.endswith("[0.7]")
    with ThreadPoolExecutor(2) as pool: texts = list(pool.map(lambda _: said(WORK, PARENT, env=env, cwd=tmp_path, timeout=120), range(3)))
    assert texts == [f"{cold}\n{full}"]*3

def test_options_of_libraries_are_those_of_a_kernel(full):
    "pandas asks at its import whether it is in a terminal."
    shown = "import pandas as pd, matplotlib as m; print({o: pd.get_option(o) for o in ('display.max_columns', 'display.width', 'display.max_rows', 'display.large_repr')}, pd.DataFrame([range(30)]), m.get_backend())"
    with by_default("local-provisioner"): cold = said(shown)
    assert said(shown) == cold and "'display.max_columns': 20" in cold

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

def test_edited_command_is_never_stale(apart, tmp_path, monkeypatch):
    shutil.copytree(ROOT/"mlops_nb", tmp_path/"copy"/"mlops_nb")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path/"copy"))
    start = f"from mlops_nb.run import warm; warm.PRELOAD = {SMALL!r}; "
    front = lambda: subprocess.run([sys.executable, "-c", start + "import sys; sys.exit(warm.hand_over('mlops_nb.cli.cli:main', ['--version']))"], cwd=tmp_path, capture_output=True, text=True)
    subprocess.run([sys.executable, "-c", start + "warm.wait(60)"], cwd=tmp_path, check=True)
    before = front()
    assert before.returncode == 0 and "9.9.9" not in before.stdout, before
    (tmp_path/"copy/mlops_nb/__init__.py").write_text('__version__ = "9.9.9"\n')
    after = front()
    assert after.returncode == 0 and after.stdout == "mlops-nb 9.9.9\n", after
    (tmp_path/"copy/mlops_nb/cli/cli.py").write_text("def main(argv): print('rewritten')\n")
    assert front().stdout == "rewritten\n"
    assert len(zygotes()) == 1

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
    c = begun(client("import mlflow.sklearn"))
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

def test_import_time_environment(full, capfd, monkeypatch):
    "Another OMP_NUM_THREADS cannot be given to a library that is already loaded: that kernel is cold, and comes from a zygote of its own later."
    monkeypatch.setattr(warm, "_SAID", set())
    assert said(PARENT, env={"OMP_NUM_THREADS": "1"}) == str(os.getpid())
    assert "start cold" in capfd.readouterr().err
    assert said(PARENT) == str(full)

FIGURE = "import matplotlib\nprint(matplotlib.get_backend())\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);"

def test_figures_are_inline(full, tmp_path):
    "matplotlib was imported before there was a kernel; its figures still show, with and without the magic."
    with by_default("local-provisioner"): cold = executed(FIGURE, "%matplotlib inline\nplt.plot([2, 1]);")
    assert [[o.output_type for o in c.outputs] for c in executed(FIGURE, "%matplotlib inline\nplt.plot([2, 1]);")] == [[o.output_type for o in c.outputs] for c in cold]
    assert "image/png" in cold[0].outputs[-1].data and cold[0].outputs[0].text.strip().endswith("inline")

def test_inherits_from_the_client_not_from_the_zygote(full):
    "Limits, umask, streams: what a cold kernel has from the process that starts it."
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    mask = os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 7, hard))
    try: assert said("import resource, os; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], oct(os.umask(0)))", PARENT) == f"{soft - 7} 0o27\n{full}"
    finally:
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

def test_streams(full):
    "What a kernel writes beside Jupyter's own channels goes where its manager wants it."
    c = client("import os; os.write(2, b'to stderr'); os.write(1, b'to stdout')")
    c.create_kernel_manager()
    async def run():
        await c.async_start_new_kernel(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process = c.km.provisioner.process
        await c.async_start_new_kernel_client()
        await c.async_execute_cell(c.nb.cells[0], 0)
        out, err = process.stdout, process.stderr
        await c._async_cleanup_kernel()
        return process, out, err
    process, out, err = asyncio.run(run())
    assert type(process).__name__ == "Forked" and process.poll() == 0 and out.closed and err.closed

def test_taken_ports(full):
    "A port that somebody took between its choice and its use is replaced, not fought for."
    from jupyter_client.manager import AsyncKernelManager
    async def run(km, taken):
        km.cache_ports = False
        for n in ("shell", "iopub", "stdin", "hb", "control"): setattr(km, f"{n}_port", taken.getsockname()[1])
        await km.start_kernel()
        kc = km.client()
        kc.start_channels()
        await kc.wait_for_ready(timeout=20)
        ports = {km.get_connection_info()[f"{n}_port"] for n in ("shell", "iopub", "stdin", "hb", "control")}
        kc.stop_channels()
        await km.shutdown_kernel()
        return ports
    with socket.create_server(("127.0.0.1", 0)) as taken: ports = asyncio.run(run(AsyncKernelManager(kernel_name="python3"), taken))
    assert len(ports) == 5 and taken not in ports

# --- the zygote ---

def test_all_clients_share_one(full, tmp_path):
    "papermill's and nbconvert's own commands, and whoever chooses the kernel `mlops-nb`, get kernels of the same process."
    path = write_notebook(tmp_path/"a.ipynb", f"{PARENT}")
    kernels = tmp_path/"jupyter/kernels/mlops-nb"
    kernels.mkdir(parents=True)
    (kernels/"kernel.json").write_text((ROOT/"mlops_nb/run/kernel.json").read_text())
    bin, env = Path(sys.executable).parent, {**warm.QUIET, **os.environ, "JUPYTER_PATH": str(tmp_path/"jupyter")}
    for words, more in ((["papermill", "-k", "mlops-nb", path, tmp_path/"b.ipynb"], {}), (["jupyter-nbconvert", "--execute", "--to", "notebook", "--output", "b", path], {"JUPYTER_DEFAULT_PROVISIONER_NAME": warm.NAME})):
        done = subprocess.run([bin/words[0], *map(str, words[1:])], env={**env, **more}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path/"b.ipynb").read_text())["cells"][0]["outputs"][0]["text"] == [f"{full}\n"]

def test_zygote_killed(apart, capfd):
    "The running kernel goes on, the next one is cold, a new zygote comes by itself."
    c, zygote = begun(client("1", "print('still here')")) if ready() else None, zygotes()[0]
    os.kill(zygote, signal.SIGKILL)
    wait_until("end of the zygote", lambda: gone(zygote), seconds=20)
    c.execute_cell(c.nb.cells[1], 1)
    assert c.nb.cells[1].outputs[0]["text"] == "still here\n"
    c._cleanup_kernel()
    assert said(PARENT) == str(os.getpid())
    assert capfd.readouterr().err.count("they start cold") == 1
    assert ready() != zygote and said(PARENT) == str(zygotes()[0])

def test_told_to_stop(apart):
    "It takes no new work and ends with its last kernel."
    c, zygote = begun(client("1", "print(2)")) if ready() else None, zygotes()[0]
    warm.stop()
    wait_until("end of the zygote", lambda: warm.status() == [], seconds=20)
    c.execute_cell(c.nb.cells[1], 1)
    assert not gone(zygote) and said(PARENT) == str(os.getpid())
    c._cleanup_kernel()
    wait_until("end of the zygote", lambda: gone(zygote), seconds=20)

def test_idle(apart, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_WARM", "1")
    monkeypatch.setattr(warm, "settings", lambda: type("Settings", (), dict(warm=.05, preload="")))
    zygote = ready()
    wait_until("end of the zygote", lambda: gone(zygote) and warm.status() == [], seconds=20)

def test_switched_off(apart, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_WARM", "0")
    assert "0" in warm.prepare() and said(PARENT) == str(os.getpid()) and not list(warm.folder().glob("*.lock"))

def test_at_most_four(apart, monkeypatch):
    for n in range(warm.MOST + 2):
        monkeypatch.setenv("OMP_DYNAMIC", str(n))
        ready()
    wait_until("four zygotes", lambda: len(zygotes()) == warm.MOST, seconds=20)

def test_installed_packages_make_another(apart, monkeypatch, tmp_path):
    (tmp_path/"site-packages").mkdir()
    monkeypatch.syspath_prepend(tmp_path/"site-packages")
    first = ready()
    (tmp_path/"site-packages/new-1.0.dist-info").mkdir()
    assert warm.prepare() == "importing" and ready() != first

@pytest.mark.parametrize("module, why", [("broken_import", "ZeroDivisionError"), ("thread_at_import", "sleeper"), ("our_rules", "our_rules is not of an installed package")])
def test_bad_preload(apart, tmp_path, capfd, monkeypatch, module, why):
    "Refused by name, once; kernels start cold."
    (tmp_path/"broken_import.py").write_text("1/0")
    (tmp_path/"thread_at_import.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='sleeper', daemon=True).start()")
    (tmp_path/"our_rules.py").write_text("limit = 3")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("MLOPS_NB_PRELOAD", module)
    with pytest.raises(MlopsError, match=why): warm.wait()
    capfd.readouterr()
    assert [said(PARENT), said(PARENT)] == [str(os.getpid())]*2
    assert capfd.readouterr().err.count(why) == 1

def test_a_zygote_that_dies_is_not_started_again_at_once(apart, tmp_path, monkeypatch):
    "An import that ends the process, or no room for its files: it would take ten seconds of processor time from every new process."
    (tmp_path/"dies.py").write_text("import os\nos._exit(3)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("MLOPS_NB_PRELOAD", "dies")
    with pytest.raises(MlopsError, match="has failed"): warm.wait()
    log, = warm.folder().glob("*.log")
    started = log.stat().st_mtime_ns
    assert "tried again in a minute" in warm.prepare() and log.stat().st_mtime_ns == started
    os.utime(log, (time.time() - 61,)*2)
    assert warm.prepare() == "importing"

def test_missing_modules_are_no_trouble(apart, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_PRELOAD", "not_there not_there.either")
    assert said(PARENT) if ready() else None

def test_first_kernels_do_not_wait(apart):
    warm.start()
    assert said(PARENT) == str(os.getpid())

def test_foreign_folder(apart):
    "A folder that others may write in is not used."
    warm.folder().chmod(0o777)
    with pytest.raises(MlopsError, match="for you alone"): warm.folder()
    assert said(PARENT) == str(os.getpid())
    next(Path(os.environ["XDG_RUNTIME_DIR"]).iterdir()).chmod(0o700)

def test_client_dies(full):
    "Killed in the middle of a cell, a client leaves neither kernel nor what the kernel had started; the zygote stays."
    script = """
from mlops_nb.run import warm
from tests.test_warm import begun, client
warm.start()
c = begun(client("import subprocess, os; p = subprocess.Popen(['sleep', '600']); print(os.getpid(), p.pid, os.getppid(), flush=True)", "import time; time.sleep(600)"))
print(c.nb.cells[0].outputs[0]["text"].strip(), flush=True)
c.execute_cell(c.nb.cells[1], 1)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as p:
        try:
            *pids, zygote = [int(n) for n in p.stdout.readline().split()]
            assert zygote == full and all(not gone(n) for n in pids)
        finally: p.kill()
    wait_until("end of the kernels", lambda: all(gone(n) for n in pids), seconds=10)
    assert not gone(full)

def test_nothing_is_left(apart):
    "No more open files here, no more processes there with every kernel."
    zygote, me = ready(), psutil.Process()
    for n in range(6):
        said("1")
        if n == 0: before = me.num_fds(), psutil.Process(zygote).num_fds()
    wait_until("end of the kernels", lambda: not psutil.Process(zygote).children(), seconds=20)
    assert me.num_fds() <= before[0] and psutil.Process(zygote).num_fds() <= before[1]

# --- commands ---

TOLD = """
import json, os, sys
def main(words):
    print(json.dumps([words, os.getcwd(), os.environ.get("ONLY"), sys.stdin.read(), os.getppid()]))
    print("so it is", file=sys.stderr)
    sys.exit(int(words[0]))
def sleep(words):
    import time
    print("begun", flush=True)
    try: time.sleep(60)
    except KeyboardInterrupt: return 130
"""
HAND = "import sys; from mlops_nb.run import warm; code = warm.hand_over(sys.argv[1], sys.argv[2:]); sys.exit(99 if code is None else code)"

@pytest.fixture
def told(tmp_path, monkeypatch):
    (tmp_path/"told.py").write_text(TOLD)
    return lambda *words, **more: subprocess.Popen([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {HAND}", *words], cwd=tmp_path, text=True,
                                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **more})

def test_command(full, told, tmp_path):
    "Words, folder, environment, streams and exit code of a command that is a fork; its code is read fresh."
    with told("told:main", "3", "x y", ONLY="a") as p: out, err = p.communicate("from a pipe", timeout=60)
    assert (p.returncode, json.loads(out), err) == (3, [["3", "x y"], str(tmp_path), "a", "from a pipe", full], "so it is\n")

def test_long_environment(full, told):
    "Longer than one message of a socket."
    with told("told:main", "0", **{f"LONG_{n}": "x"*100_000 for n in range(5)}) as p: out, err = p.communicate("", timeout=60)
    assert p.returncode == 0 and json.loads(out)[4] == full, err

@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 128 + 1)])
def test_command_gets_signals(full, told, sent, code):
    with told("told:sleep") as p:
        assert p.stdout.readline() == "begun\n"
        p.send_signal(sent)
        assert p.wait(20) == code

def test_command_ends_with_its_caller(full, told):
    with told("told:sleep") as p:
        assert p.stdout.readline() == "begun\n"
        child = next(c for c in psutil.Process(full).children() if c.create_time() >= psutil.Process(p.pid).create_time() - 1)
        p.kill()
    wait_until("end of the command", lambda: gone(child.pid), seconds=20)

def test_command_without_a_zygote(apart, told):
    with told("told:main", "0") as p: p.communicate("", timeout=60)
    assert p.returncode == 99 and warm.status() == []
