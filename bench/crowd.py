"""Crowd labels: `label.crowd.dawid_skene` and `label.agree` beside crowd-kit and krippendorff, alternating, CPU medians, equal accuracy; and majority, Dawid-Skene and CROWDLAB on simulated crowds.
The public sets (D_Product and others of Zheng and others, 2017; NIST TREC) come from servers that are no package registry. Put one into a folder as answer.csv (question,worker,answer) and truth.csv
(question,truth) and name it in CROWD to measure on it; without it the simulated crowds have the same shape. Peers live in ~/.cache/mlops-nb/bench/crowd."""
import json, os, platform, statistics, subprocess, sys, tempfile, time, warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROUNDS = int(os.environ.get("ROUNDS", 5))
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/crowd"
PEERS = ["crowd-kit==1.4.2", "krippendorff==0.9.0", "pandas==2.3.3"]
QUIET = dict(DO_NOT_TRACK="true", OMP_NUM_THREADS="1")

def simulated(items, workers, answers, classes, skill, one_sided=.0, seed=0):
    "Answers and truth: each worker confuses classes in a way of his own; few workers give most of the answers, as in real crowds."
    import numpy as np, pandas as pd
    rng = np.random.default_rng(seed)
    truth, tables = rng.choice(classes, items, p=rng.dirichlet([5.]*classes)), rng.dirichlet([1.]*classes, (workers, classes))*(1 - rng.beta(*skill, (workers, 1, 1)))
    right = 1 - tables.sum(axis=2)
    tables[:, range(classes), range(classes)] += right
    tables[:int(one_sided*workers)] = np.eye(classes)[0]
    busy = rng.pareto(1.2, workers) + .05
    item = np.resize(rng.permutation(items), answers)
    who = rng.choice(workers, answers, p=busy/busy.sum())
    said = (tables[who, truth[item]].cumsum(axis=1) > rng.random((answers, 1))).argmax(axis=1)
    df = pd.DataFrame(dict(item=item, annotator=[f"w{w}" for w in who], label=said)).drop_duplicates(["item", "annotator"], ignore_index=True)
    return df, pd.Series(truth)

SETS = {"like NIST TREC (20,232 items, 766 people, 98,453 answers, 4 classes)": lambda: simulated(20_232, 766, 98_453, 4, (6, 3)),
        "like D_Product (8,315 items, 176 people, 24,945 answers, 2 classes)": lambda: simulated(8_315, 176, 24_945, 2, (12, 2.2), .05)}

def public():
    import pandas as pd
    answers, truth = pd.read_csv(Path(os.environ["CROWD"])/"answer.csv"), pd.read_csv(Path(os.environ["CROWD"])/"truth.csv")
    return answers.set_axis(["item", "annotator", "label"], axis=1).drop_duplicates(["item", "annotator"], keep="last"), truth.set_index("question")["truth"]

def cpu(f):
    start = time.process_time()
    found = f()
    return time.process_time() - start, found

# --- candidates: each takes the answers and gives labels by item, or a number ---

def ours():
    from mlops_nb.label import agree, crowd
    return dict(ds=lambda df: crowd.dawid_skene(df, tolerance=1e-5).labels.set_index("item")["label"], alpha=agree.krippendorff_alpha)

def peers():
    import krippendorff
    from crowdkit.aggregation import DawidSkene
    renamed = lambda df: df.set_axis(["task", "worker", "label"], axis=1)
    return dict(ds=lambda df: DawidSkene(n_iter=100).fit_predict(renamed(df)), alpha=lambda df: float(krippendorff.alpha(df.pivot(index="annotator", columns="item", values="label").to_numpy(float), level_of_measurement="nominal")))

def served(path):
    "In a process of its own: a line of JSON for each line read."
    import pandas as pd
    df, jobs = pd.read_pickle(path), (ours if sys.argv[1] == "ours" else peers)()
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        seconds, found = cpu(lambda: jobs[line.strip()](df))
        print(json.dumps([seconds, found if isinstance(found, float) else {str(k): str(v) for k, v in found.items()}]), flush=True)

def ask(p, what):
    p.stdin.write(what + "\n"); p.stdin.flush()
    return json.loads(p.stdout.readline())

def race(df, truth):
    with tempfile.TemporaryDirectory() as tmp:
        df.to_pickle(f"{tmp}/df.pkl")
        run = lambda python, who: subprocess.Popen([python, __file__, who, f"{tmp}/df.pkl"], stdin=-1, stdout=-1, text=True, env={**os.environ, **QUIET})
        both = dict(ours=run(sys.executable, "ours"), peer=run(HOME/"bin/python", "peer"))
        for what, name in (("ds", "Dawid-Skene"), ("alpha", "Krippendorff's alpha")):
            runs = {w: [] for w in both}
            for _ in range(ROUNDS):
                for w, p in both.items(): runs[w].append(ask(p, what))
            seconds = {w: statistics.median(s for s, _ in r) for w, r in runs.items()}
            told = {w: r[-1][1] if what == "alpha" else sum(str(truth[k]) == r[-1][1].get(str(k)) for k in truth.index)/len(truth) for w, r in runs.items()}
            print(f"  {name:22} ours {seconds['ours']:.3f} s, peer {seconds['peer']:.3f} s: {seconds['peer']/seconds['ours']:.1f}x; {'value' if what == 'alpha' else 'accuracy'} {told['ours']:.4f} and {told['peer']:.4f}", flush=True)
        for p in both.values(): p.stdin.close(); p.wait()

def share(found, truth): return float((found.labels.set_index("item")["label"].reindex(truth.index) == truth).mean())

def crowdlab():
    "Twenty mediocre people, three answers an item, and a classifier that is right in 95 %."
    import numpy as np, pandas as pd
    from mlops_nb.label import crowd
    rng = np.random.default_rng(0)
    df, truth = simulated(1500, 20, 4500, 5, (5, 5), seed=3)
    guess = np.where(rng.random(len(truth)) < .95, truth, rng.integers(0, 5, len(truth)))
    proba = pd.DataFrame(.03 + .85*np.eye(5)[guess]).rename_axis("item")
    proba = proba.loc[np.unique(df["item"])]
    print("20 mediocre people: " + ", ".join(f"{name} {share(f, truth.loc[proba.index]):.3f}" for name, f in (("majority", crowd.majority(df)), ("Dawid-Skene", crowd.dawid_skene(df)), ("CROWDLAB", crowd.crowdlab(df, proba)))))

def main():
    from mlops_nb.label import crowd
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    if not (HOME/"bin/python").exists():
        subprocess.run(["uv", "venv", "-q", HOME], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--python", HOME/"bin/python", *PEERS], check=True)
    for name, make in ({os.environ["CROWD"]: public} if "CROWD" in os.environ else SETS).items():
        df, truth = make()
        print(f"{name}: majority {share(crowd.majority(df), truth):.4f}")
        race(df, truth)
    crowdlab()

if __name__ == "__main__": served(sys.argv[2]) if len(sys.argv) == 3 else main()
