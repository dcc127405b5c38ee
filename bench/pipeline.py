"`mlops-nb run` and `mlops-nb status` on pipelines of 10, 100 and 1,000 stages in which nothing has changed, through the real command: wall and CPU seconds, medians."
import json, os, platform, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from mlops_nb.core import config, ledger, source
from mlops_nb.run import notebook, pipeline

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)   # bytecode is kept between starts, as on a person's machine

SIZES, TRIES = (10, 100, 1000), 7
COMMAND = Path(sys.executable).with_name("mlops-nb")

def cell(i, text, *tags): return dict(cell_type="code", id=f"c{i}", metadata=dict(tags=[*tags]), source=text, execution_count=None, outputs=[])

def write_stages(folder, n):
    "A chain: each stage reads what the one before wrote, and a settings section."
    meta = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    (folder/"nbs/workflows").mkdir(parents=True)
    for i in range(n):
        cells = [cell(0, f"n = {i}", "parameters"), *(cell(k, f"from mlops_nb.core import ledger\n# {'x'*500}\nledger.wrote('thing', 's{i}', {k})") for k in range(1, 7))]
        (folder/f"nbs/workflows/s{i:04}.ipynb").write_text(json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5)))
    (folder/"settings.ini").write_text("[mlops_nb]\n[goal]\nminimum = 0.6\n[pipeline]\n" + "".join(f"s{i:04} = {f's{i-1:04}' if i else ''}\n" for i in range(n)))

def record(folder, n):
    "What the runs would have left in the ledger, without running a thousand kernels: read and written, modules, packages, executed notebook."
    packages, modules = ledger.snapshot(source.packages_text()), source.modules([m.__file__ for m in (config, ledger, source)], time.time())
    for i, stage in enumerate(pipeline.stages().values()):
        os.environ["MLOPS_NB_RUN"] = id = ledger.start_run(source.place(stage.path), notebook.defaults(stage.path), stage.name, source.code_hash(stage.path), packages)
        if i: ledger.read("thing", f"s{i-1}", 6)
        ledger.read("settings", "goal", config.fingerprint("goal"))
        ledger.wrote("thing", f"s{i}", 6)
        out = folder/f"reports/runs/{stage.name}/{id}.ipynb"
        out.parent.mkdir(parents=True)
        out.write_text("{}")
        ledger.end_run(id, "done", "", str(out), modules)
    os.environ.pop("MLOPS_NB_RUN")
    ledger.close()

def seconds(*words):
    "(wall, CPU) of the command; every stage must be skipped."
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([COMMAND, *words, "--json"], capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and not [r for r in json.loads(done.stdout) if r["state"] not in ("skipped", "done") or r.get("stale")], done.stdout[-500:] + done.stderr
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

def measure(n):
    with tempfile.TemporaryDirectory() as tmp, config.settings_for(tmp):
        write_stages(Path(tmp), n)
        record(Path(tmp), n)
        assert not (bad := [r for r in pipeline.plan() if r["would"] != "skip"]), bad[:3]
        return {word: [statistics.median(c) for c in zip(*[seconds(word) for _ in range(TRIES)])] for word in ("run", "status")}

def main():
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; medians of {TRIES}; wall and CPU seconds")
    bare = statistics.median(timed([sys.executable, "-c", "pass"]) for _ in range(TRIES))
    print(f"an empty Python process: {bare:.2f} s")
    found = {n: measure(n) for n in SIZES}
    for n, rows in found.items(): print(f"{n:5} stages   " + "   ".join(f"{word}: {wall:.2f} s wall, {cpu:.2f} s CPU" for word, (wall, cpu) in rows.items()))
    (a, b), (x, y) = SIZES[-2:], [found[n]["run"][0] for n in SIZES[-2:]]
    print(f"each further stage: {1000*(y - x)/(b - a):.2f} ms")

def timed(command):
    began = time.perf_counter()
    subprocess.run(command)
    return time.perf_counter() - began

if __name__ == "__main__": main()
