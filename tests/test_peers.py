"""The test suites of Jupyter's own projects say the same of warm kernels as of cold ones, test by test, in the very versions that are installed.

They come from PyPI's source archives and are kept, as is what they say of cold kernels, in the user's cache; without the package index they are skipped. By
default the parts that start kernels, less the slowest: one to three minutes. `PEERS=full` runs all that the projects have.
"""
import hashlib, json, os, subprocess, sys, tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

from mlops_nb.run import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home()/".cache")/"mlops-nb"/"peers"
FULL = os.environ.get("PEERS") == "full"

# What the suites need beside what we have; pinned, without their dependencies. Its name tells the zygote that these are installed packages.
PLUGINS = ("flaky==3.8.1", "jupyter_kernel_test==0.7.0", "pytest-asyncio==1.5.0", "pytest-jupyter==0.11.0", "pytest-timeout==2.4.0", "testpath==0.6.0", "xmltodict==1.0.4")

CLOUD = [f"--ignore=papermill/tests/test_{store}.py" for store in ("s3", "abs", "adl", "gcs", "hdfs")]   # their libraries are not installed
NBCLIENT = ["-p", "pytest_asyncio.plugin", "-p", "flaky.flaky_pytest_plugin", "-o", "asyncio_default_fixture_loop_scope=function"]

# Of each suite: its version, what of its archive to keep (the tests without the package, which is installed; papermill's are part of it), words for pytest
# that always hold, and those that choose a part.
SUITES = {
    "jupyter_kernel_test": ("0.7.0", ("test_ipykernel.py",), ["test_ipykernel.py"], []),
    "nbclient": (version("nbclient"), ("tests", "pyproject.toml"), [*NBCLIENT, "tests"],
                 ["-k", "parallel or kernel or timeout or stdin or hook or Interrupt or Inline or Widgets or Factorials or Empty or Error", "--deselect=tests/test_cli.py"]),
    "papermill": (version("papermill"), ("papermill", "pyproject.toml"), ["papermill/tests", *CLOUD],
                  ["-k", "execute or engines or autosave or clientwrap", "--deselect=papermill/tests/test_autosave.py::TestMidCellAutosave::test_end2end_autosave_slow_notebook"]),
    "jupyter_client": (version("jupyter_client"), ("tests", "pyproject.toml"), ["tests"],
                       ["-k", "kernelmanager or TestKernelClient or provisioning or async_restart_check", "--deselect=tests/test_multikernelmanager.py"]),
}

def pip(*words):
    "pip, or a skipped test with its last words."
    try: done = subprocess.run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *map(str, words)], capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired: pytest.skip(f"pip {words[0]} took more than four minutes")
    if done.returncode: pytest.skip(f"pip {words[0]} {words[-1]}: {(done.stderr.strip() or 'no words').splitlines()[-1]}")

def once(path, make):
    "The path, made by `make(path)` unless it is there; half of it is never there."
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        make(fresh)
        fresh.rename(path)
    return path

def suite_folder(name):
    "The suite's tests, unpacked."
    number, kept, *_ = SUITES[name]
    def unpack(folder):
        pip("download", "--no-deps", "--no-binary", name, "--dest", folder, f"{name}=={number}")
        archive = next(folder.glob("*.tar.gz"))
        with tarfile.open(archive) as tar:
            top = tar.getnames()[0].partition("/")[0]
            tar.extractall(folder, [m for m in tar.getmembers() if m.name.removeprefix(f"{top}/").partition("/")[0] in kept], filter="data")
        archive.unlink()
        for found in (folder/top).iterdir(): found.rename(folder/found.name)
        (folder/top).rmdir()
    return once(CACHE/f"{name}-{number}", unpack)

def plugins():
    mark = hashlib.sha256(repr((PLUGINS, sys.version)).encode()).hexdigest()[:8]
    return once(CACHE/f"{mark}-packages", lambda folder: pip("install", "--no-deps", "--target", folder, *PLUGINS))

def words(name):
    always, part = SUITES[name][2:]
    return ["-q", "-o", "addopts=", "-o", "log_cli=false", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--timeout=100", "--timeout-method=signal", *always, *([] if FULL else part)]

def run(name, how, tmp):
    "How every test of the suite ended."
    result, home = tmp/f"{name}-{how}.json", tmp/f"{name}-{how}"
    (home/"ipython").mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PEERS_PLUGINS": str(plugins()), "IPYTHONDIR": f"{home}/ipython", "MLOPS_NB_ROOT": str(tmp),
           **{f"JUPYTER_{kind}_DIR": f"{home}/{kind.lower()}" for kind in ("CONFIG", "DATA", "RUNTIME")}, **({"JUPYTER_DEFAULT_PROVISIONER_NAME": warm.NAME} if how == "warm" else {})}
    done = subprocess.run([sys.executable, HERE/"peers.py", name, how, result, *words(name)], cwd=suite_folder(name), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1200)
    found = json.loads(result.read_text()) if result.exists() else dict(code="no result")
    assert found["code"] in (0, 1), f"pytest ended with {found['code']}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"   # 1: some tests fail in cold kernels too
    return found

def cold(name, tmp, again=False):
    "What the suite says of cold kernels: nothing of ours takes part, so it is kept for these versions of all packages."
    facts = [words(name), PLUGINS, sys.version, (HERE/"peers.py").read_text(), sorted(f"{d.name} {d.version}" for d in distributions() if d.name != "mlops_nb")]
    path = suite_folder(name).with_name(f"{name}-{SUITES[name][0]}-cold-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}.json")
    if again or not path.exists(): path.write_text(json.dumps(run(name, "cold", tmp)))
    return json.loads(path.read_text())

def differences(cold, warm): return {test: (cold.get(test), warm.get(test)) for test in {*cold, *warm} if cold.get(test) != warm.get(test)}

def counts(ends): return dict(Counter(end for all in ends.values() for end in all))

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "All runs, two at once; most of their time they wait."
    tmp = tmp_path_factory.mktemp("peers")
    for name in SUITES: suite_folder(name)
    plugins()
    with ThreadPoolExecutor(2) as pool:
        jobs = {(name, how): pool.submit(job, name, *more, tmp) for how, job, more in (("warm", run, ["warm"]), ("cold", cold, [])) for name in reversed(SUITES)}
        yield lambda name, how: jobs[name, how].result()

@pytest.mark.parametrize("name", SUITES)
def test_same_as_cold(runs, name, tmp_path):
    cold_run, warm_run = runs(name, "cold"), runs(name, "warm")
    if differences(cold_run["ends"], warm_run["ends"]): cold_run, warm_run = cold(name, tmp_path, again=True), run(name, "warm", tmp_path)   # alone, not beside another suite
    other = differences(cold_run["ends"], warm_run["ends"])
    assert not other, f"(cold, warm): {other}\n" + "\n".join(warm_run["why"].get(test, "") for test in other)
    assert counts(warm_run["ends"])["passed"] > 10 and warm_run["forked"].get("warm"), warm_run
    print(name, SUITES[name][0], "cold", counts(cold_run["ends"]), "warm", counts(warm_run["ends"]), "kernels", warm_run["forked"])
