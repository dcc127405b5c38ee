"Throw-away projects with real kernels and real stores. MLOPS_NB_ROOT is never the repository, so tests leave nothing in the work tree."
import importlib.util, json, os, re, shutil, signal, socket, subprocess, sys, tempfile, time
from configparser import ConfigParser
from pathlib import Path

import psutil, pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
MAIN = [sys.executable, "-P", "-c", "import sys; from mlops_nb.cli.cli import main; sys.exit(main())"]   # what the installed `mlops-nb` does

def pytest_configure(config):
    config._before = dict(os.environ)
    config._home = tempfile.mkdtemp(prefix="mlops-nb-tests-")
    for key in [k for k in os.environ if k.startswith("MLOPS_NB_")]: del os.environ[key]
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    os.environ.update(MLOPS_NB_ROOT=config._home, PYTHONPATH=path, XDG_RUNTIME_DIR=f"{config._home}/run", MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))

def load_bench(name):
    "The module bench/<name>.py. What it sets in the environment for its own timings does not reach the tests."
    spec, before = importlib.util.spec_from_file_location(f"bench_{name}", ROOT/f"bench/{name}.py"), dict(os.environ)
    module = importlib.util.module_from_spec(spec)
    try: spec.loader.exec_module(module)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return module

def pytest_unconfigure(config):
    from mlops_nb.run import warm
    warm.stop()
    os.environ.clear()
    os.environ.update(config._before)
    shutil.rmtree(config._home, ignore_errors=True)

# --- notebooks and settings ---

def write_notebook(path, *cells, parameters=None, kernel="python3"):
    "A notebook of code cells; `parameters` is the source of the tagged cell. Returns its path."
    code = lambda i, source, *tags: dict(cell_type="code", id=f"c{i}", metadata={"tags": [*tags]} if tags else {}, source=source, outputs=[], execution_count=None)
    head = [] if parameters is None else [code("p", parameters, "parameters")]
    meta = dict(kernelspec=dict(name=kernel, display_name=kernel, language="python"), language_info=dict(name="python")) if kernel else {}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=head + [code(i, c) for i, c in enumerate(cells)], metadata=meta, nbformat=4, nbformat_minor=5), indent=1), encoding="utf-8")
    return path

def without_card(path):
    "Steps of an executed workflow notebook that do not end in a card: after parameters and imports, each cell shows a verdict with its word or answer, and a sentence."
    nb = json.loads(Path(path).read_text(encoding="utf-8"))
    steps = [c for c in nb["cells"] if c["cell_type"] == "code" and not {"injected-parameters", "parameters"} & {*c["metadata"].get("tags", [])}][1:]
    assert steps, f"{path} has no step"
    card = re.compile(r'<section[^>]*class="verdict"[^>]*>.*?<strong>(OK|WATCH|ACT|UNKNOWN|Yes, ship it|Ship with care|Do not ship)</strong>.*?<p>[^<]{8,}', re.S)
    shown = lambda c: "".join("".join(o.get("data", {}).get("text/html", "")) for o in c["outputs"])
    return ["".join(c["source"]).splitlines()[-1] for c in steps if not card.search(shown(c))]

def write_settings(folder, **sections):
    "settings.ini of these sections; without any, the toolkit's sections of the repository."
    ini, source = ConfigParser(interpolation=None), ConfigParser(interpolation=None)
    source.read(ROOT/"settings.ini", encoding="utf-8")
    for name in sections or ("mlops_nb", "goal", "pipeline"): ini[name] = sections.get(name, source[name] if name in source else {})
    with open(folder/"settings.ini", "w", encoding="utf-8") as f: ini.write(f)

# --- projects ---

@pytest.fixture
def project(tmp_path, monkeypatch):
    "A project like the repository's own: its settings and a copy of its workflows."
    from mlops_nb.core import ledger
    folder = tmp_path/"project"
    shutil.copytree(ROOT/"nbs/workflows", folder/"nbs/workflows", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"))
    write_settings(folder)
    monkeypatch.setenv("MLOPS_NB_ROOT", str(folder))
    yield folder
    ledger.close()

MAKE = ["from mlops_nb.core import ledger", "ledger.wrote('thing', 'parts', rows)"]
USE  = ["from mlops_nb.core import ledger", "ledger.read('thing', 'parts', ledger.touched(kind='thing', name='parts').version.iloc[-1])", "ledger.wrote('thing', 'whole', 1)"]

def two_stages(folder):
    write_notebook(folder/"nbs/workflows/make.ipynb", *MAKE, parameters="rows = 5\nscale = 1.0\ntidy = True\nname = 'x'")
    write_notebook(folder/"nbs/workflows/use.ipynb", *USE, parameters="k = 1.0")
    write_settings(folder, mlops_nb=dict(lock_timeout="0.5"), goal=dict(minimum="0.6"), pipeline=dict(make="", use="make"))

@pytest.fixture
def small(tmp_path, monkeypatch):
    "A project of two quick stages: `make` writes `parts`, `use` reads them."
    from mlops_nb.core import ledger
    folder = tmp_path/"small"
    two_stages(folder)
    monkeypatch.setenv("MLOPS_NB_ROOT", str(folder))
    yield folder
    ledger.close()

@pytest.fixture
def local(tmp_path, monkeypatch):
    "An empty project on SQLite."
    from mlops_nb.core import ledger
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    yield tmp_path
    ledger.close()

@pytest.fixture(scope="session")
def made(tmp_path_factory):
    "A project like `small`, with `make` already done; made once, copied by `ready`."
    from mlops_nb.core import ledger
    from mlops_nb.core.config import settings_for
    from mlops_nb.run import notebook
    folder = tmp_path_factory.mktemp("made")
    two_stages(folder)
    with settings_for(folder):
        assert notebook.run("make").state == "done"
        notebook.wait_for_pages()
        ledger.close()
    return folder

@pytest.fixture
def ready(made, tmp_path, monkeypatch):
    "A project of two quick stages, the first of them done."
    from mlops_nb.core import ledger
    folder = tmp_path/"ready"
    shutil.copytree(made, folder)
    monkeypatch.setenv("MLOPS_NB_ROOT", str(folder))
    yield folder
    ledger.close()

@pytest.fixture(scope="module")
def warm_kernels():
    "The kernels of a whole module are warm for sure, not only as soon as they can be."
    from mlops_nb.run import warm
    warm.start()
    warm.wait()

@pytest.fixture(autouse=True)
def no_experiment_of_another_test(monkeypatch):
    "`mlflow.set_experiment` writes it into the environment, where the kernels of later tests would find it."
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)

@pytest.fixture(scope="module")
def browser():
    "A real browser, headless; a visit takes a context of its own."
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install playwright")
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield b
        b.close()

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

# --- the command line ---

def cli(*words, cwd=None, **env):
    "`mlops-nb` in a process of its own, in the project's folder; value None takes a variable away."
    full = {k: v for k, v in {**os.environ, **env}.items() if v is not None}
    return subprocess.run([*MAIN, *map(str, words)], cwd=cwd or full["MLOPS_NB_ROOT"], env=full, capture_output=True, text=True, timeout=240)

def begin(*words, **env):
    "The same, started and left running in a process group of its own, as a terminal does."
    return subprocess.Popen([*MAIN, *words], cwd=os.environ["MLOPS_NB_ROOT"], env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

def one_line(done, code, *said):
    "The command ended with this exit code and exactly one line for a person, which says all of this."
    lines = [l for l in done.stderr.splitlines() if l.startswith("mlops-nb: ")]
    other = [l for l in done.stderr.splitlines() if l not in lines and not re.match(r"\[\d+/\d+\] ", l)]
    assert done.returncode == code, f"exit code {done.returncode}, not {code}\n{done.stdout}{done.stderr}"
    assert len(lines) == 1 and not other, done.stderr
    for word in said: assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    return lines[0]

def states(done): return {r["stage"]: r["state"] for r in json.loads(done.stdout)}

def gone(pid): return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

def wait_until(what, happened, process=None, seconds=180):
    "Wait until it happened; fails when it does not, or when the process ends before."
    end = time.monotonic() + seconds
    while not happened():
        assert process is None or process.poll() is None, f"ended before {what}:\n{process.communicate()}"
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(.05)

@pytest.fixture
def started():
    "`begin`, with an end: what a test leaves running is killed."
    processes = []
    def start(*words, **env):
        processes.append(p := begin(*words, **env))
        return p
    yield start
    for p in processes:
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
        p.communicate()

def files(folder): return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())
