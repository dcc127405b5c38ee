"""One notebook and a sweep of twenty, from the shell: stock papermill, stock papermill on our kernel, `mlops-nb run`, and the floor: a fork that runs the cells as a
script. Alternating in one run; wall and CPU seconds, the CPU of forked kernels included."""
import json, os, platform, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import psutil

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)   # bytecode is kept between starts, as on a person's machine

PAIRS = int(os.environ.get("PAIRS", 5))
BIN = Path(sys.executable).parent
CELLS = ["import pandas as pd, mlflow, mlflow.sklearn", "from sklearn.datasets import load_iris\nfrom sklearn.ensemble import HistGradientBoostingClassifier",
         "x, y = load_iris(return_X_y=True)", "model = HistGradientBoostingClassifier(max_iter=max_iter).fit(x, y)", "model.score(x, y)"]

def project(folder):
    cell = lambda i, source, *tags: dict(cell_type="code", id=f"c{i}", metadata=dict(tags=list(tags)), source=source, outputs=[], execution_count=None)
    book = dict(cells=[cell("p", "max_iter = 5", "parameters"), *(cell(i, s) for i, s in enumerate(CELLS))], nbformat=4, nbformat_minor=5,
                metadata=dict(kernelspec=dict(name="python3", display_name="Python 3", language="python")))
    (folder/"nbs/workflows").mkdir(parents=True)
    (folder/"nbs/workflows/fit.ipynb").write_text(json.dumps(book))
    (folder/"settings.ini").write_text("[mlops_nb]\n[pipeline]\nfit =\n")
    (folder/"floor.py").write_text("def main(words):\n" + "\n".join(f"    {line}" for c in ["max_iter = 5", *CELLS] for line in c.splitlines()))

def cpu(zygote):
    "CPU seconds of all that we have waited for, and all that the zygote has."
    mine, its = resource.getrusage(resource.RUSAGE_CHILDREN), zygote.cpu_times()
    return mine.ru_utime + mine.ru_stime + its.user + its.system + its.children_user + its.children_system

def timed(words, zygote, calls=1):
    before, began = cpu(zygote), time.perf_counter()
    for _ in range(calls): subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    while zygote.children(): time.sleep(.01)   # a kernel may still be at its end
    return wall, cpu(zygote) - before

def show(title, base, figures):
    print(f"\n{title}\n{'':38}{'wall s':>8}{'CPU s':>8}{'x wall':>8}{'x CPU':>8}")
    medians = {name: [statistics.median(f[i] for f in fs) for i in (0, 1)] for name, fs in figures.items()}
    for name, (wall, used) in medians.items(): print(f"{name:38}{wall:8.2f}{used:8.2f}{medians[base][0]/wall:8.1f}{medians[base][1]/used:8.1f}")

def main():
    from mlops_nb.run import warm
    os.environ.update({**warm.QUIET, "NO_COLOR": "1"})
    with tempfile.TemporaryDirectory() as tmp:
        project(Path(tmp))
        os.chdir(tmp)
        warm.wait()
        zygote = psutil.Process(next(r["pid"] for r in warm.status() if r["zygote"] == warm.zygote_name(dict(os.environ))))
        floor = "import sys; from mlops_nb.run import warm; sys.path.insert(0, '.'); sys.exit(warm.hand_over('floor:main', []))"
        one = {"papermill": [BIN/"papermill", "nbs/workflows/fit.ipynb", "out.ipynb"],
               "papermill -k mlops-nb": [BIN/"papermill", "-k", "mlops-nb", "nbs/workflows/fit.ipynb", "out.ipynb"],
               "mlops-nb run --force": [BIN/"mlops-nb", "run", "fit", "--force"], "floor: a fork, no notebook": [sys.executable, "-c", floor]}
        figures = {name: [] for name in one}
        for words in one.values(): timed(words, zygote)
        for _ in range(PAIRS):
            for name, words in one.items(): figures[name].append(timed(words, zygote))
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; medians of {PAIRS} rounds")
        show("one notebook", "papermill", figures)
        many = {"20 x papermill": [timed(one["papermill"], zygote, 20)],
                "mlops-nb run --sweep, 20 values": [timed([BIN/"mlops-nb", "run", "fit", "--force", "--sweep", "max_iter=" + ",".join(map(str, range(1, 21)))], zygote)]}
        show("a sweep of 20", "20 x papermill", many)

if __name__ == "__main__": main()
