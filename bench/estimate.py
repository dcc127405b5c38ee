"""Performance without outcomes: `monitor.estimate` beside NannyML 0.13 on the data sets that come with it (US census of Massachusetts, 69 thousand rows with outcomes and 209 thousand
without; synthetic regression), alternating, CPU medians. Each candidate runs in a process of its own; reading the data and importing are not counted. Both count from raw scores to the table of
metrics with intervals, chunks of 5,000 rows. Then: how far the two are apart, how far each is from the truth, and how often our intervals hold it where nothing has changed.
NannyML lives in ~/.cache/mlops-nb/bench/estimate, its telemetry off (it forgets to ask for statsmodels, which is added, and does not take the words of pandas 3). ROUNDS, ONLY=cbpe,dle limit the work."""
import json, os, platform, statistics, subprocess, sys, time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROUNDS = int(os.environ.get("ROUNDS", 5))
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/estimate"
PEERS = ["nannyml==0.13.1", "statsmodels==0.15.0", "pandas==2.3.3"]
QUIET = dict(NML_DISABLE_USAGE_LOGGING="1", DO_NOT_TRACK="true", OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
CHUNK, METRICS, INPUTS = 5_000, ["roc_auc", "f1", "precision", "recall", "accuracy"], ["car_age", "km_driven", "price_new", "accident_count", "door_count", "fuel", "transmission"]

def frame(name):
    import pandas as pd
    return pd.read_parquet(HOME/f"{name}.parquet")

# --- candidates: each loads, and returns a function that answers {metric: [value of each chunk]} ---

def ours_cbpe(metrics):
    import numpy as np
    from mlops_nb.monitor.estimate import cbpe
    from mlops_nb.monitor.scores import scores
    reference, current = frame("census_reference"), frame("census_analysis")
    p, y, q = (x.to_numpy(float) for x in (reference["predicted_probability"], reference["employed"], current["predicted_probability"]))
    def run():
        code = np.arange(len(q))//CHUNK
        e = cbpe(scores(p, y), scores(q, code=code, windows=code[-1] + 1), metrics, each=True)
        return {m: e.table.loc[e.table.metric == m, "value"].tolist() for m in metrics}
    return run

def nannyml_cbpe(metrics):
    import nannyml
    reference, current = frame("census_reference"), frame("census_analysis")
    def run():
        e = nannyml.CBPE(problem_type="classification_binary", y_pred_proba="predicted_probability", y_pred="prediction", y_true="employed", metrics=metrics, chunk_size=CHUNK).fit(reference)
        d = e.estimate(current).filter(period="analysis").to_df().xs("value", axis=1, level=1)
        return {m: d[m].tolist() for m in metrics}
    return run

def ours_dle():
    from mlops_nb.monitor.estimate import dle
    reference, current = frame("cars_reference"), frame("cars_analysis")
    reference, current = reference.rename(columns={"y_pred": "score", "y_true": "label"}), current.rename(columns={"y_pred": "score"})
    def run():
        e = dle(reference, current, INPUTS, ("mae", "rmse"))
        return {m: [e[m][0]] for m in ("mae", "rmse")}
    return run

def nannyml_dle():
    import nannyml
    reference, current = frame("cars_reference"), frame("cars_analysis")
    def run():
        e = nannyml.DLE(feature_column_names=INPUTS, y_pred="y_pred", y_true="y_true", metrics=["mae", "rmse"], chunk_number=1).fit(reference)
        d = e.estimate(current).filter(period="analysis").to_df().xs("value", axis=1, level=1)
        return {m: d[m].tolist() for m in ("mae", "rmse")}
    return run

CANDIDATES = {"cbpe, AUC: ours": lambda: ours_cbpe(METRICS[:1]), "cbpe, AUC: NannyML": lambda: nannyml_cbpe(METRICS[:1]), "cbpe, 5 metrics: ours": lambda: ours_cbpe(METRICS),
              "cbpe, 5 metrics: NannyML": lambda: nannyml_cbpe(METRICS), "dle: ours": ours_dle, "dle: NannyML": nannyml_dle}

def one(name):
    run = CANDIDATES[name]()
    if name.endswith("ours"): run()   # what is imported within
    began = time.process_time()
    found = run()
    print("\n" + json.dumps([time.process_time() - began, found]))

DATA = """import nannyml, sys
for name, (reference, current, truth) in dict(census=nannyml.load_us_census_ma_employment_data(), cars=nannyml.load_synthetic_car_price_dataset()).items():
    reference.to_parquet(f"{sys.argv[1]}/{name}_reference.parquet"); current.to_parquet(f"{sys.argv[1]}/{name}_analysis.parquet"); truth.to_parquet(f"{sys.argv[1]}/{name}_truth.parquet")"""

def peers():
    python = HOME/"venv/bin/python"
    if not (HOME/"done").exists() or (HOME/"done").read_text() != " ".join(PEERS):
        subprocess.run(["uv", "venv", "-q", "--clear", "-p", sys.executable, HOME/"venv"], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--compile-bytecode", "-p", python, *PEERS], check=True)
        subprocess.run([python, "-c", DATA, HOME], env={**os.environ, **QUIET}, check=True)
        (HOME/"done").write_text(" ".join(PEERS))
    return python

# --- the truth, and what the intervals hold ---

def truth():
    "{candidate's topic: {metric: [realized of each chunk]}}."
    import numpy as np
    from sklearn import metrics as sk
    p, d, y = frame("census_analysis")["predicted_probability"].to_numpy(), frame("census_analysis")["prediction"].to_numpy(), frame("census_truth")["employed"].to_numpy()
    parts = [slice(i, i + CHUNK) for i in range(0, len(p), CHUNK)]
    score = dict(roc_auc=sk.roc_auc_score, f1=sk.f1_score, precision=sk.precision_score, recall=sk.recall_score, accuracy=sk.accuracy_score)
    e = frame("cars_truth")["y_true"].to_numpy() - frame("cars_analysis")["y_pred"].to_numpy()
    return dict(cbpe={m: [f(y[s], (p if m == "roc_auc" else d)[s]) for s in parts] for m, f in score.items()}, dle=dict(mae=[np.abs(e).mean()], rmse=[(e**2).mean()**.5]))

def held(trials=300, n=3_000, days=20, mood=.0):
    "Share of windows where nothing changed whose realized AUC, recall and log loss lie within our intervals; `mood`: sd of a day's own log odds."
    import numpy as np
    from mlops_nb.monitor.estimate import cbpe
    from mlops_nb.monitor.performance import realized
    from mlops_nb.monitor.scores import scores
    rng, names, inside = np.random.default_rng(0), ["roc_auc", "recall", "log_loss"], []
    def window(k):
        day = np.repeat(np.arange(k), n//10)
        p = rng.beta(2, 4, len(day))
        true = 1/(1 + np.exp(-np.log(p/(1 - p)) - rng.normal(0, mood, k)[day]))
        return scores(p, (rng.random(len(day)) < true)*1., code=day, windows=k)
    for _ in range(trials):
        reference, now = window(days), window(10)
        e, r = cbpe(reference, now, names), realized(now, names, n_boot=1)
        inside.append([e[m][1] <= r.loc[m, "value"] <= e[m][2] for m in names])
    return dict(zip(names, np.mean(inside, axis=0)))

def main():
    python, figures, answers = peers(), {}, {}
    asked = os.environ.get("ONLY", "").split(",")
    chosen = [n for n in CANDIDATES if any(a.lower() in n.lower() for a in asked)]
    for _ in range(ROUNDS):
        for name in chosen:
            env = {**os.environ, **QUIET, "MLOPS_NB_ROOT": str(HOME), "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
            done = subprocess.run([sys.executable if name.endswith("ours") else python, __file__, name], env=env, capture_output=True, text=True)
            if done.returncode: sys.exit(f"{name}: {done.stderr[-2000:]}")
            seconds, answers[name] = json.loads(done.stdout.strip().splitlines()[-1])
            figures.setdefault(name, []).append(seconds)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; CPU s, medians of {ROUNDS} rounds")
    middle, real = {n: statistics.median(s) for n, s in figures.items()}, truth()
    for name, seconds in middle.items():
        base = middle.get(f"{name.rpartition(':')[0]}: ours")
        off = {m: max(abs(a - b) for a, b in zip(v, real[name[:4].strip(":,")][m], strict=True)) for m, v in answers[name].items()}
        print(f"{name:28}{seconds:9.4f}{seconds/base:8.1f}x   furthest from the truth: " + ", ".join(f"{m} {v:.4g}" for m, v in off.items()))
    for topic in {n.rpartition(":")[0] for n in chosen if n.startswith("cbpe")}:
        a, b = (answers[f"{topic}: {who}"] for who in ("ours", "NannyML"))
        print(f"{topic}: furthest apart " + ", ".join(f"{m} {max(abs(x - y) for x, y in zip(a[m], b[m], strict=True)):.1e}" for m in a))
    for mood in (0., .3): print(f"held by the 95 % interval where nothing changed (day moods {mood}):", {m: round(float(v), 3) for m, v in held(mood=mood).items()})

if __name__ == "__main__": one(sys.argv[1]) if len(sys.argv) == 2 else main()
