"A search that is killed with -9, alone or with its processes, goes on as if it had not been."
import os, signal, subprocess, sys, time

import pandas as pd, psutil, pytest

from conftest import wait_until
from mlops_nb.core import config
from mlops_nb.train import trials, tune

pytest.importorskip("optuna", reason="the extra tune is not installed")
from test_tune import drawn, project, search, wine   # noqa: fixtures

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_tune, test_tune_kills
from mlops_nb.data import samples
test_tune.search(samples.load("wine"), "killed", n=12, workers={workers}, estimator="test_tune_kills.Slow", space={{"C": "0.0001..10.0 log"}})
"""

class Slow:
    "Logistic regression that says that it has begun, and takes its time."
    def __init__(self, C=1., max_iter=100): self.C, self.max_iter = C, max_iter
    def get_params(self, deep=True): return dict(C=self.C, max_iter=self.max_iter)
    def set_params(self, **p):
        self.__dict__.update(p)
        return self
    def __sklearn_tags__(self):
        from mlops_nb.train.frameworks import tags
        return tags(True)
    def fit(self, X, y):
        from sklearn.linear_model import LogisticRegression
        open(config.root()/"begun", "a").write("x")
        time.sleep(.1)
        self.inner = LogisticRegression(C=self.C, max_iter=self.max_iter).fit(X, y)
        self.classes_ = self.inner.classes_
        return self
    def predict_proba(self, X): return self.inner.predict_proba(X)
    def predict(self, X): return self.inner.predict(X)

def killed(folder, workers, after):
    "A search in a process of its own, killed with -9 in the middle of a trial."
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(tests=os.path.dirname(__file__), workers=workers)], env=env, stderr=subprocess.PIPE)
    begun = lambda: (folder/"begun").stat().st_size if (folder/"begun").exists() else 0
    try:
        wait_until("some trials", lambda: begun() >= after, process)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    wait_until("the end of its processes", lambda: not any(c.is_running() and c.status() != "zombie" for c in children))
    return begun()

def test_killed_and_resumed_is_as_if_it_had_not_been(project, wine, monkeypatch):
    "Trial by trial the same parameters and values; the one in work is tried again, nothing twice."
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    how = dict(estimator="test_tune_kills.Slow", space={"C": "0.0001..10.0 log"})
    before = killed(project, 1, 14)
    whole = search(wine, "whole", **how)
    (project/"begun").unlink()
    resumed = search(wine, "killed", **how)
    assert (project/"begun").stat().st_size < 36 - before + 6          # only the rest, and the lost one again
    pd.testing.assert_frame_equal(drawn(whole), drawn(resumed))
    assert len(resumed.trials) == 12 and trials.lost(trials.optuna().load_study(study_name="killed", storage=tune.storage())) == 1

def test_killed_with_its_processes(project, wine, monkeypatch):
    "Its workers end with it, and the rest is done by the next call."
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    killed(project, 2, 8)
    found = search(wine, "killed", n=12, workers=2, estimator="test_tune_kills.Slow", space={"C": "0.0001..10.0 log"})
    assert len(found.trials) == 12 and not (found.trials["state"] == "running").any() and found.value < .2

def test_a_worker_that_is_killed_gives_its_trial_back(project, wine, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    hit = []
    def kill_one(tuned):
        running = psutil.Process().children()
        if not hit and len(tuned.trials) >= 3 and running: hit.append(running[0].pid), os.kill(running[0].pid, signal.SIGKILL)
    found = search(wine, n=10, workers=2, progress=kill_one, estimator="test_tune_kills.Slow", space={"C": "0.0001..10.0 log"})
    assert hit and len(found.trials) == 10 and set(found.trials["state"]) <= {"done", "pruned"}
