"The engine and the runner of one notebook: papermill's contract, few and whole saves, time-outs, floods of output, every way a kernel can die, and two at once."
import json, os, shutil, signal, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat, papermill, psutil, pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.iorw import load_notebook_node

from conftest import ROOT, cli, files, gone, one_line, wait_until, write_notebook, write_settings
from mlops_nb.core import config, ledger, store
from mlops_nb.core.finding import BadInput, MlopsError
from mlops_nb.run import changes, engine, notebook, progress, warm

pytestmark = pytest.mark.usefixtures("warm_kernels")

def made(*cells):
    return load_notebook_node(new_notebook(cells=[new_markdown_cell(c) if c.startswith("# ") else new_code_cell(c) for c in cells],
                                           metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python"))))

def ran(*cells, **options):
    "The executed notebook and how it ended."
    nb = made(*cells)
    return nb, engine.execute(nb, "python3", **options)

def code(nb): return [c for c in nb.cells if c.cell_type == "code"]

def text(nb): return "".join(engine.plain(o) for c in nb.cells if c.cell_type == "code" for o in c.outputs)

# --- papermill's contract ---

NOTEBOOKS = {
    "good":       ["# Title", "rows = 5", "print(rows)\nrows*2", "", "import sys; print('said', file=sys.stderr); print('and'); {'a': 1}"],
    "fails":      ["rows = 5", "# Part", "print('before'); 1/0", "print('never')"],
    "leaves":     ["rows = 5", "import sys; sys.exit(0)", "print('never')"],
    "leaves bad": ["rows = 5", "import sys; sys.exit(3)", "print('never')"],
    "display":    ["rows = 5", "from IPython.display import display, clear_output\nh = display('a', display_id=True); print('x'); print('y'); h.update('b'); display('c'); print('z')", "print('gone'); clear_output(); print('stays')", "h.update('late')"],
    "no tag":     ["print(1)"],
}

def plain_record(path):
    "All that papermill promises of an executed notebook, without what differs from run to run."
    nb = json.loads(Path(path).read_text())
    def cell(c):
        known, timed = dict(c["metadata"]), c["metadata"].get("papermill", {})
        times = {k: bool(timed.get(k)) for k in ("start_time", "end_time")} | {"duration": isinstance(timed.get("duration"), float)}
        return dict(source="".join(c["source"]), tags=known.get("tags"), times=times, status=timed.get("status"), exception=timed.get("exception"), execution=sorted(known.get("execution", {})),
                    count=c.get("execution_count"), outputs=[output(o) for o in c.get("outputs", [])])
    def output(o): return o["output_type"], o.get("name"), "".join(o.get("text", "")), o.get("data"), o.get("ename"), o.get("evalue")
    about = {k: v for k, v in nb["metadata"]["papermill"].items() if k not in ("start_time", "end_time", "duration", "output_path")}
    return [cell(c) for c in nb["cells"]], about, nb["metadata"]["language_info"], sorted(nb["metadata"])

def as_joined(record):
    "Stock papermill keeps every piece of a stream; joined they must be ours."
    cells, *rest = record
    for c in cells:
        out = []
        for o in c["outputs"]:
            if out and o[0] == "stream" == out[-1][0] and o[1] == out[-1][1]: out[-1] = (*o[:2], out[-1][2] + o[2], *o[3:])
            else: out.append(o)
        c["outputs"] = out
    return cells, *rest

@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_same_notebook_as_stock_papermill(name, tmp_path):
    "Injected cell, tags, states, exceptions, markers, outputs and metadata."
    nb = made(*NOTEBOOKS[name])
    if name != "no tag": next(c for c in nb.cells if c.cell_type == "code").metadata.tags = ["parameters"]
    nbformat.write(nb, tmp_path/"in.ipynb")
    papermill.engines.papermill_engines.register("mlops-nb", engine.PapermillEngine)
    ended = []
    for engine_name in (None, "mlops-nb"):
        try: papermill.execute_notebook(str(tmp_path/"in.ipynb"), str(tmp_path/f"{engine_name}.ipynb"), dict(rows=6) if name != "no tag" else {}, engine_name=engine_name, progress_bar=False)
        except papermill.PapermillExecutionError as e: ended.append((e.ename, e.evalue, e.exec_count, e.cell_index))
        else: ended.append(None)
    assert ended[0] == ended[1]
    assert as_joined(plain_record(tmp_path/"mlops-nb.ipynb")) == as_joined(plain_record(tmp_path/"None.ipynb"))

def test_the_papermill_command(tmp_path):
    "`papermill --engine mlops-nb` with parameters, to a file, to a device, to its standard output, and with its log."
    write_notebook(tmp_path/"in.ipynb", "print('rows', rows)", parameters="rows = 5")
    def pm(*words): return subprocess.run([sys.executable, "-m", "papermill", "--engine", "mlops-nb", "--no-progress-bar", "in.ipynb", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    done = pm("out.ipynb", "-p", "rows", "7", "--log-output")
    assert done.returncode == 0 and "rows 7" in done.stderr, done.stderr
    assert "rows 7" in (tmp_path/"out.ipynb").read_text() and json.loads((tmp_path/"out.ipynb").read_text())["metadata"]["papermill"]["parameters"] == {"rows": 7}
    assert "rows 5" in pm("-").stdout
    before = os.stat("/dev/null")
    assert pm("/dev/null").returncode == 0 and os.stat("/dev/null").st_rdev == before.st_rdev
    write_notebook(tmp_path/"in.ipynb", "1/0")
    assert "ZeroDivisionError" in (failed := pm("out.ipynb")).stderr and failed.returncode == 1
    assert "papermill-error-cell" in (tmp_path/"out.ipynb").read_text()
    assert pm("nowhere/out.ipynb").returncode != 0 and not (tmp_path/"nowhere").exists()

# --- saves ---

def test_saves_do_not_grow_with_the_square(tmp_path):
    "200 cells of 50 KB: stock papermill writes 405 times and 2 GB."
    written = []
    nb, ended = ran(*["print('x'*50_000)"]*200, save=lambda nb: written.append(len(engine.as_bytes(nb))))
    assert ended.error is None and written[-1] > 200*50_000 and ended.saves == len(written)
    assert len(written) <= 12 and sum(written) < 8*written[-1], written

def test_saves_while_a_cell_is_at_work(small):
    "What is there is whole, and shows the cell that runs and what it has printed."
    write_notebook(small/"nbs/workflows/make.ipynb", "print('from the first')", "import time\nfor i in range(60):\n    print('step', i, flush=True)\n    time.sleep(.1)")
    seen, logs = [], []
    def look(stop):
        while not stop.wait(.1):
            for p in (small/"reports/runs/make").glob("*"):
                if p.suffix == ".ipynb": seen.append(json.loads(p.read_text()))
                if p.suffix == ".log": logs.append(p.read_text())
    stop = threading.Event()
    looking = threading.Thread(target=look, args=(stop,))
    looking.start()
    assert notebook.run("make").state == "done"
    stop.set(), looking.join()
    states = {tuple(c["metadata"]["papermill"]["status"] for c in nb["cells"] if "papermill" in c["metadata"]) for nb in seen}
    assert ("completed", "running") in states and any("step 10" in json.dumps(nb["cells"][-1]) and "step 59" not in json.dumps(nb["cells"][-1]) for nb in seen)
    assert any("step 3\n" in l and "step 50" not in l for l in logs)
    notebook.wait_for_pages()
    assert [f.rsplit(".", 1)[1] for f in files(small/"reports")] == ["html", "ipynb"]

# --- floods ---

def test_200_megabytes_of_output():
    "What fits is kept with a note; the run goes on, and an error after the flood is kept."
    nb, ended = ran("for i in range(200): print(('%03d' % i) + 'x'*1_000_000)", "print('next')", "import numpy as np\nprint('y'*20_000_000)\n1/0", output_limit=2)
    sizes = [sum(map(engine.weight, c.outputs)) for c in nb.cells if c.cell_type == "code"]
    assert 1.9e6 < sizes[0] < 2.1e6 and code(nb)[0].outputs[0].text.startswith("000x")
    assert "output_limit" in text(nb) and "next" in text(nb) and ended.error.ename == "ZeroDivisionError" and max(sizes) < 2.1e6

def test_a_flood_that_overwrites_itself():
    "A progress bar is as long as its last state; a display that is cleared counts from nothing."
    nb, ended = ran("import sys\nfor i in range(300): sys.stdout.write('\\r' + str(i).rjust(10_000)); sys.stdout.flush()\nprint()\nprint('end')",
                    "from IPython.display import clear_output\nfor i in range(30): clear_output(); print(str(i)*100_000)", output_limit=1)
    assert ended.error is None and "output_limit" not in text(nb)
    assert "299\nend" in text(nb) and "298" not in code(nb)[0].outputs[0].text and text(nb).endswith("29\n")

def test_many_pieces():
    nb, ended = ran("for i in range(5_000): print(i, flush=True)")
    assert len(nb.cells[0].outputs) == 1 and nb.cells[0].outputs[0].text == "".join(f"{i}\n" for i in range(5_000))

def test_binary_and_odd_output(small):
    "Bytes that are no text, half a character, colours, nothing at all: the notebook is saved and can be read."
    odd = ["import os, subprocess, sys\nos.write(1, bytes(range(256)))", "subprocess.run(['head', '-c', '2000', sys.executable]); print('\\x00\\x1b[31mred')",
           "from IPython.display import display, Image\ndisplay(Image(data=bytes([137,80,78,71,13,10,26,10]) + bytes(64), format='png')); display({'application/json': {'a': float('nan')}}, raw=True)", "print('fine')",
           "'\\udcff'", "try: print('half \\ud800 a character', flush=True)\nexcept Exception as e: print(type(e))"]   # last: ipykernel, cold or warm, may lose what is printed after half a character
    write_notebook(small/"nbs/workflows/make.ipynb", *odd)
    ended = notebook.run("make")
    assert ended.state == "done", ended
    nb = nbformat.read(ended.output, as_version=4)
    assert "fine" in text(nb) and "red" in text(nb)

# --- time ---

LOOP = "import time\ndef deep():\n    while True: time.sleep(.05)\ndeep()"
DEAF = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    try: time.sleep(.1)\n    except BaseException: pass"

def test_a_cell_that_never_ends():
    nb, ended = ran("1", LOOP, "print('never')", cell_timeout=1)
    assert ended.cell == 2 and ended.error.ename == "CellTimeoutError" and "more than 1 s" in ended.error.evalue and "cell_timeout" in ended.error.evalue
    assert any("deep" in l for l in ended.error.traceback), "it does not show where the cell was"
    assert "never" not in text(nb)

def test_a_cell_that_never_ends_and_does_not_listen():
    nb, ended = ran(f"import os; print(os.getpid(), flush=True)\n{DEAF}", cell_timeout=1)
    assert ended.error.ename == "CellTimeoutError"
    assert gone(int(code(nb)[0].outputs[0].text))

def test_a_run_that_takes_too_long():
    "No cell is too slow by itself."
    nb, ended = ran(*["import time; time.sleep(.4)"]*20, cell_timeout=5, run_timeout=1.5)
    assert ended.error.ename == "RunTimeoutError" and "run_timeout" in ended.error.evalue and 2 <= ended.cell <= 5

# --- the ways a kernel dies ---

DEATHS = {
    "os._exit":  ("import os; os._exit(3)", "exit code 3"),
    "exit 0":    ("import os; os._exit(0)", "exit code 0"),
    "SIGKILL":   ("import os, signal; x = bytearray(300_000_000)\nimport time; time.sleep(.6); os.kill(os.getpid(), signal.SIGKILL)", "for want of memory: it held 0."),
    "SIGTERM":   ("import os, signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
    "SIGSEGV":   ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "SIGABRT":   ("import os; os.abort()", "SIGABRT"),
}

@pytest.mark.parametrize("kernels", ["warm", "cold"])
@pytest.mark.parametrize("name", DEATHS)
def test_a_kernel_that_dies(name, kernels, monkeypatch):
    "At once, with what the system knows; what was printed before is kept."
    if kernels == "cold": monkeypatch.setenv("MLOPS_NB_WARM", "0")
    source, said = DEATHS[name]
    nb, ended = ran("print('before')", source, "print('never')")
    assert ended.error.ename == "DeadKernelError" and "the kernel died" in ended.error.evalue and said in ended.error.evalue, ended.error.evalue
    assert ended.cell == 2 and "before" in text(nb) and "never" not in text(nb)
    assert [c.metadata.papermill.status for c in nb.cells if "papermill" in c.metadata] == ["completed", "failed", "pending"]

def test_killed_by_the_system_for_want_of_memory(monkeypatch):
    "The counter of the cgroup tells it from any other SIGKILL."
    counts = iter([3, 4, 4, 4])
    monkeypatch.setattr(engine, "oom_kills", lambda: next(counts))
    nb, ended = ran("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert "killed by the system (SIGKILL), for want of memory: it held" in ended.error.evalue

def test_no_more_memory_in_a_cell(small):
    write_notebook(small/"nbs/workflows/make.ipynb", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, resource.RLIM_INFINITY))", "x = bytearray(8_000_000_000)")
    ended = notebook.run("make")
    assert ended.error.startswith("MemoryError; it held") and "less data or more memory" in ended.error and ended.cell == 2

def test_a_kernel_that_cannot_start(tmp_path, monkeypatch, small):
    for name, argv in dict(gone=["/no/such/program", "{connection_file}"], mute=[sys.executable, "-c", "import sys; sys.exit(5)", "{connection_file}"]).items():
        folder = tmp_path/f"share/kernels/{name}"
        folder.mkdir(parents=True)
        (folder/"kernel.json").write_text(json.dumps(dict(argv=argv, display_name=name, language="python")))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path/"share"))
    for name, said in dict(gone="cannot be started", mute="exit code 5").items():
        write_notebook(small/"nbs/workflows/make.ipynb", "1", kernel=name)
        ended = notebook.run("make")
        assert (ended.state, ended.exit_code) == ("failed", 1) and said in ended.error, ended

# --- forks and what is left running ---

def test_forks():
    "A child that ends, and a child that goes on with the rest of the cell as if it were the kernel: one answer, and nothing is left."
    nb, ended = ran("import os\nif not (child := os.fork()): os._exit(0)\nos.waitpid(child, 0); print('parent')", "pid = os.fork()\nprint(os.getpid(), flush=True) if pid else None", "print('on', pid)", cell_timeout=20)
    assert ended.error is None and "parent" in text(nb)
    child = int(nb.cells[2].outputs[0].text.split()[1])
    wait_until("end of the child", lambda: gone(child), seconds=10)

def test_what_a_notebook_leaves_running():
    nb, ended = ran("import subprocess; p = subprocess.Popen(['sleep', '300']); q = subprocess.Popen(['sleep', '300'], start_new_session=True); print(p.pid, q.pid)")
    inside, outside = map(int, text(nb).split())
    try:
        wait_until("end of the child", lambda: gone(inside), seconds=10)
        assert psutil.pid_exists(outside), "a process in a session of its own is meant to stay"
    finally: os.kill(outside, signal.SIGKILL)

# --- stopping ---

def test_stop_from_another_thread(small):
    "The cell may clean up; the run is interrupted, its kernel is gone."
    write_notebook(small/"nbs/workflows/make.ipynb", "import os\nfrom pathlib import Path\nPath('pid').write_text(str(os.getpid()))\nimport time\ntry: time.sleep(60)\nfinally: Path('cleaned').touch()")
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(notebook.run, "make", stop=stop)
        wait_until("cell at work", (small/"pid").exists)
        time.sleep(.2)
        stop.set()
        with pytest.raises(KeyboardInterrupt): running.result(timeout=30)
    assert (small/"cleaned").exists() and gone(int((small/"pid").read_text()))
    assert list(ledger.runs().state) == ["interrupted"]
    nb = nbformat.read(ledger.runs().output.iloc[0], as_version=4)
    assert code(nb)[0].metadata.papermill.status == "failed" and "stopped by the user" in text(nb)

def test_inside_a_running_loop(small):
    "In JupyterLab a loop is running already."
    import asyncio
    async def cell(): return notebook.run("make")
    assert asyncio.run(cell()).state == "done"

# --- several at once ---

def test_two_at_once_with_their_own_environment(small):
    "Each kernel knows its own run; nothing of it is set in this process."
    for name in ("a", "b"): write_notebook(small/f"{name}.ipynb", "import os, time; time.sleep(.5); print(os.environ['MLOPS_NB_RUN'], os.getcwd())", parameters="n = 0")
    before = dict(os.environ)
    with ThreadPoolExecutor(4) as pool: ended = list(pool.map(lambda k: notebook.run(str(small/f"{'ab'[k % 2]}.ipynb"), {"n": k}), range(4)))
    assert dict(os.environ) == before
    for e in ended: assert e.state == "done" and f"{e.run} {small}" in Path(e.output).read_text()
    assert len({e.run for e in ended}) == 4

def test_the_same_work_is_not_done_twice(small):
    "Two runners at the same moment: one works, the other waits and finds it done; without waiting it is told."
    write_notebook(small/"nbs/workflows/make.ipynb", "from pathlib import Path\nimport time\nPath('at').touch()\nwhile not Path('go').exists(): time.sleep(.02)")
    told = []
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(notebook.run, "make")
        wait_until("cell at work", (small/"at").exists)
        with pytest.raises(notebook.Taken): notebook.run("make", wait=False)
        second = pool.submit(notebook.run, "make", on_event=lambda kind, **facts: told.append((kind, facts.get("state"))))
        wait_until("second one waiting", lambda: ("wait", None) in told)
        (small/"go").touch()
        assert [first.result().state, second.result().state] == ["done", "skipped"]
    assert told == [("wait", None), ("stage", "skipped")] and first.result().run == second.result().run
    assert len(ledger.runs()) == 1

# --- the runner ---

def test_events(small):
    write_notebook(small/"nbs/workflows/make.ipynb", "print('hello')", "1/0", parameters="rows = 5")
    events = []
    notebook.run("make", on_event=lambda kind, **facts: events.append((kind, facts)))
    assert all(f["stage"] == "make" for _, f in events)
    assert [(k, f.get("state") or f.get("i") or f.get("text")) for k, f in events] == [("stage", "running"), ("cell", 1), ("cell", 2), ("cell", 3), ("text", "hello"), ("cell", 4), ("stage", "failed")]
    rows = {}
    for kind, facts in events: rows = progress.noted(rows, kind, **facts)
    assert "ZeroDivisionError" in progress.board(rows)[0]

def test_progress_in_a_notebook(small):
    "One output that changes, whatever the thread that tells it; no control characters, no markup of what was printed."
    nb, ended = ran("from concurrent.futures import ThreadPoolExecutor\nfrom mlops_nb.run import progress", """with progress.shown() as on_event:
    on_event('pipeline', stages=['a', 'b', 'c'])
    def one(name):
        on_event('stage', stage=name, state='running'); on_event('cell', stage=name, i=1, n=2, heading='Fit')
        for i in range(50): on_event('text', stage=name, text=f'\\x1b[31m<b>{i}')
        on_event('stage', stage=name, state='done', seconds=1.5)
    with ThreadPoolExecutor(2) as pool: list(pool.map(one, 'ab'))
    on_event('stage', stage='c', state='skipped')""")
    assert ended.error is None, text(nb)
    shown, = code(nb)[1].outputs
    page = shown.data["text/html"]
    assert page.count("done") == 2 and "3 of 3, 1 unchanged" in page and "\x1b" not in page and "<b>" not in page

def test_a_failure_says_where_and_how_to_open_it(small, monkeypatch):
    path = small/"nbs/workflows/make.ipynb"
    write_notebook(path, "x = 1", "1/0", parameters="rows = 5")
    nb = json.loads(path.read_text())
    nb["cells"].insert(2, dict(cell_type="markdown", id="m", metadata={}, source="Prose\n## Fit *it*\nmore"))
    path.write_text(json.dumps(nb))
    monkeypatch.chdir(small)
    ended = notebook.run("make")
    assert ended.line == f'make.ipynb, cell 4 "Fit *it*": ZeroDivisionError: division by zero; open it: jupyter lab reports/runs/make/{ended.run}.ipynb'
    assert nbformat.read(ended.output, as_version=4).cells[0].source.startswith("<span") and '"execution_count": 4' in Path(ended.output).read_text()

def test_retries(small):
    "An accident is tried again, a verdict is not; each attempt is a run with its own notebook."
    count = "from pathlib import Path\nn = int(Path('n').read_text()) + 1 if Path('n').exists() else 1\nPath('n').write_text(str(n))\n"
    write_notebook(small/"nbs/workflows/make.ipynb", count + "if n < 2: raise ConnectionError('down')")
    ended = notebook.run("make", retries=3)
    assert (ended.state, ended.attempts) == ("done", 2) and list(ledger.runs().state) == ["failed", "done"] and sum(f.endswith(".ipynb") for f in files(small/"reports")) == 2
    for error, code in (("BadInput", 2), ("GateClosed", 3), ("DataCheckFailed", 4), ("Busy", 75)):
        write_notebook(small/"nbs/workflows/make.ipynb", f"from mlops_nb.core.finding import {error}\nraise {error}('no')")
        ended = notebook.run("make", retries=3)
        assert (ended.exit_code, ended.attempts) == (code, 1)

def test_keep_kernel(small, capfd):
    "After a failure the kernel is there with its variables, until the person is done."
    from jupyter_client import BlockingKernelClient
    write_notebook(small/"nbs/workflows/make.ipynb", "secret_number = 41", "1/0")
    seen = []
    def look(kernel, stop):
        client = BlockingKernelClient(connection_file=kernel.connection_file)
        client.load_connection_file()
        client.start_channels()
        seen.append(client.execute_interactive("secret_number + 1", user_expressions={"n": "secret_number + 1"}, timeout=20)["content"]["user_expressions"]["n"]["data"]["text/plain"])
        client.stop_channels()
        seen.append(kernel.provisioner.pid)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(notebook, "_until_stopped", look)
        m.setattr(sys, "stdin", open(os.devnull))
        ended = notebook.run("make", keep_kernel=True)
    assert ended.state == "failed" and seen[0] == "42" and "--existing" in capfd.readouterr().err
    assert gone(seen[1])

def test_nothing_to_do(small):
    write_notebook(small/"nbs/workflows/make.ipynb", "from mlops_nb.core import ledger\nledger.nothing_to_do('no news')\nprint('rest of the cell')", "1/0")
    ended = notebook.run("make")
    assert (ended.state, ended.note) == ("done", "nothing to do: no news") and ended.line == ended.note
    assert "rest of the cell" in Path(ended.output).read_text()

MAKES_A_RUN = ["import mlflow, os\nfrom mlops_nb.core import ledger\nfrom mlops_nb.registry import models",
               "client = models.tracking()\nrun = client.create_run(client.create_experiment('x') if client.get_experiment_by_name('x') is None else client.get_experiment_by_name('x').experiment_id)\nledger.wrote('mlflow_run', 'm', run.info.run_id)"]

@pytest.mark.parametrize("end", ["1", "1/0", "os._exit(3)"])
def test_the_mlflow_run_gets_the_executed_notebook(small, end):
    "From the kernel, also after a failure; from here when the kernel is dead. The one that is kept is the one that is attached."
    from mlops_nb.registry import models
    write_notebook(small/"nbs/workflows/make.ipynb", *MAKES_A_RUN, end)
    notebook.wait_for_pages()
    ended = notebook.run("make", html=True)
    assert len(notebook._PAGES) == (2 if "exit" in end else 1)
    notebook.wait_for_pages()
    run = ledger.touched(run=ended.run, kind="mlflow_run").version.iloc[0]
    folder = Path(models.tracking().download_artifacts(run, "notebook"))
    assert {p.suffix for p in folder.iterdir()} == {".ipynb", ".html"}
    assert (folder/f"{ended.run}.ipynb").read_text() == Path(ended.output).read_text()

def test_deleted_outputs(small):
    first = notebook.run("make")
    assert notebook.run("make").state == "skipped"
    Path(first.output).unlink()
    assert "is gone" in "; ".join(changes.stale(notebook.find("make"), notebook.check_parameters(notebook.find("make"), {})))
    assert notebook.run("make").state == "done"

def test_secrets_of_a_running_cell(small, monkeypatch):
    "Neither the log, nor the events, nor the notebook in the middle show them."
    monkeypatch.setenv("MY_API_TOKEN", "tok-6b1f0e99")
    write_notebook(small/"nbs/workflows/make.ipynb", "import os, time\nfor i in range(25): print('with', os.environ['MY_API_TOKEN'], end=' '); print('!', flush=True); time.sleep(.1)")
    seen, told = [], []
    def look(kind, **facts):
        told.append(json.dumps(facts))
        seen.extend(p.read_text() for p in (small/"reports/runs/make").glob("*"))
    assert notebook.run("make", on_event=look).state == "done"
    assert any("with *** !" in s for s in seen) and any("with *** !" in t for t in told)
    assert not [s for s in seen + told if "6b1f0e" in s]

# --- odd notebooks ---

def test_no_cells_at_all(small):
    write_notebook(small/"nbs/workflows/make.ipynb")
    assert notebook.run("make").state == "done" and notebook.run("make").state == "skipped"

def test_prose_only_and_skipped_cells(small):
    path = write_notebook(small/"nbs/workflows/make.ipynb", "1/0", " \n")
    nb = json.loads(path.read_text())
    nb["cells"][0]["metadata"]["tags"] = ["skip-execution"]
    nb["cells"].append(dict(cell_type="markdown", id="m", metadata={}, source="only prose"))
    nb["cells"].append(dict(cell_type="raw", id="r", metadata={}, source="raw"))
    path.write_text(json.dumps(nb))
    assert notebook.run("make").state == "done"

def test_parameters_without_a_cell_for_them(small):
    write_notebook(small/"nbs/workflows/make.ipynb", "print(rows)")
    one_line(cli("run", "make", "-p", "rows=6"), 2, "make.ipynb has no parameter 'rows'", "tag its first code cell")
    assert not (small/"reports").exists()

ECHO = """
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
class Echo(Kernel):
    implementation, implementation_version, language, language_version, banner = "echo", "1", "echo", "1", "echo"
    language_info = dict(name="echo", mimetype="text/plain", file_extension=".txt")
    def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False):
        if not silent: self.send_response(self.iopub_socket, "stream", dict(name="stdout", text=code))
        if "fail" in code: return dict(status="error", execution_count=self.execution_count, ename="Fail", evalue="as asked", traceback=[])
        return dict(status="ok", execution_count=self.execution_count, payload=[], user_expressions={})
IPKernelApp.launch_instance(kernel_class=Echo)
"""

def test_another_language(small, tmp_path, monkeypatch):
    "A kernel that is not Python's runs, fails and is skipped like any other; nobody asks it for Python modules."
    folder = tmp_path/"share/kernels/echo"
    folder.mkdir(parents=True)
    (folder/"echo.py").write_text(ECHO)
    (folder/"kernel.json").write_text(json.dumps(dict(argv=[sys.executable, str(folder/"echo.py"), "-f", "{connection_file}"], display_name="echo", language="echo")))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path/"share"))
    path = write_notebook(small/"nbs/workflows/make.ipynb", "say this <- that", kernel="echo")
    path.write_text(path.read_text().replace('"language": "python"', '"language": "echo"').replace('"name": "python"', '"name": "echo"'))
    ended = notebook.run("make")
    assert ended.state == "done" and "say this <- that" in Path(ended.output).read_text(), ended
    assert notebook.run("make").state == "skipped"
    path.write_text(path.read_text().replace("say this", "fail"))
    ended = notebook.run("make")
    assert ended.state == "failed" and ended.cell == 1, ended

# --- folders and disks ---

@pytest.fixture
def mounted(tmp_path):
    "A small file system of its own; `remount(options)` changes it."
    folder = tmp_path/"disk"
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here; run as root to see this test")
    yield folder, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)

def test_a_folder_that_cannot_be_written(small, mounted, monkeypatch):
    folder, remount = mounted
    monkeypatch.setenv("MLOPS_NB_REPORTS", str(folder/"reports"))
    remount("ro")
    with pytest.raises(BadInput, match="cannot be written.*(?i:read-only).*reports"): notebook.run("make")
    assert ledger.runs().empty
    remount("rw")
    assert notebook.run("make").state == "done"

def test_a_disk_that_is_full_in_the_middle(small, mounted, monkeypatch):
    "The cells go on; room that is made again is used; without it the run has failed, and what was saved before is whole."
    folder, _ = mounted
    monkeypatch.setenv("MLOPS_NB_REPORTS", str(folder))
    cells = [f"from pathlib import Path\nf = open({str(folder/'ballast')!r}, 'wb', buffering=0)\ntry:\n    while True: f.write(b'x'*4096)\nexcept OSError: pass\nprint('full')", "import time\nfor i in range(25): print(i, flush=True); time.sleep(.1)"]
    write_notebook(small/"nbs/workflows/make.ipynb", *cells, f"import os; os.unlink({str(folder/'ballast')!r}); f.close()")
    assert notebook.run("make").state == "done"
    write_notebook(small/"nbs/workflows/make.ipynb", *cells, "'x'*100_000")
    with pytest.raises(MlopsError, match="the disk is full"): notebook.run("make")
    assert list(ledger.runs().state) == ["done", "failed"]
    json.loads(Path(ledger.runs().output.iloc[-1]).read_text())
    assert not [f for f in files(folder) if f.split("/")[-1].startswith(".")]

def test_an_error_of_thirty_megabytes(small):
    "One line for a person and the ledger; the notebook keeps as much as a cell may show."
    write_notebook(small/"nbs/workflows/make.ipynb", "raise ValueError('x'*30_000_000)")
    ended = notebook.run("make")
    assert ended.error.startswith("ValueError: xxx") and len(ended.error) < 600 and len(ledger.runs().error.iloc[-1]) < 600
    assert Path(ended.output).stat().st_size < 30e6
