"""Bookkeeping of one training run: ours (`registry.models.register`) against MLflow's `log_model` with its defaults, and of one run of a sweep, which keeps no model
(`track.track` against `log_params` and `log_metrics`); alternating, each on its own store.

    python bench/tracking.py [--rounds 5] [--sweep 100]
"""
import argparse, logging, os, platform, resource, statistics, tempfile, time, warnings

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
warnings.simplefilter("ignore")
import mlflow
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlops_nb.core import ledger
from mlops_nb.core.config import settings_for
from mlops_nb.data import dataset
from mlops_nb.data.samples import flights
from mlops_nb.registry import models
from mlops_nb.train import track

PARAMETERS, METRICS = {f"p{i}": i for i in range(20)}, {f"m{i}": i/20 for i in range(20)}

def ours(model, X):
    models.register(model, "late", X.head(20), PARAMETERS, METRICS)

def plain(model, X):
    "As MLflow's documentation does it; skops refuses gradient boosting, so the format is named."
    with mlflow.start_run():
        mlflow.log_params(PARAMETERS)
        mlflow.log_metrics(METRICS)
        mlflow.sklearn.log_model(model, name="model", input_example=X.head(5), registered_model_name="late", serialization_format="cloudpickle")

def ours_without():
    track.track("late", PARAMETERS, METRICS)

def plain_without():
    with mlflow.start_run():
        mlflow.log_params(PARAMETERS)
        mlflow.log_metrics(METRICS)

def clock(work, *args):
    "Seconds on the clock, and of CPU with that of the processes it started: `log_model` imports the model in another one to see what it needs."
    wall, cpu = time.perf_counter(), spent()
    work(*args)
    return time.perf_counter() - wall, spent() - cpu

def spent():
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime

def alternating(tmp, rounds, ours, plain, *args):
    "Seconds on the clock and of CPU of every round but the first."
    took, plain_store = {"ours": [], "plain": []}, f"sqlite:///{tmp}/plain.db"
    if not (client := mlflow.MlflowClient(plain_store)).get_experiment_by_name("late"): client.create_experiment("late", f"file://{tmp}/plain")
    for _ in range(rounds + 1):
        mlflow.set_tracking_uri(track.settings().tracking_uri)
        took["ours"].append(clock(ours, *args))
        mlflow.set_tracking_uri(plain_store)
        mlflow.set_experiment("late")
        took["plain"].append(clock(plain, *args))
    return {k: v[1:] for k, v in took.items()}

def shown(name, took, peer):
    (a, a_cpu), (b, b_cpu) = ([statistics.median(t[i] for t in took[k])*1000 for i in (0, 1)] for k in ("ours", "plain"))
    print(f"{name:22} ours {a:6.1f} ms ({a_cpu:.1f} CPU)   {peer} {b:7.1f} ms ({b_cpu:.1f} CPU)   {b/a:.1f}x ({b_cpu/a_cpu:.1f}x CPU)")

def main(rounds, sweep):
    for name in ("mlflow", "mlflow.sklearn", "mlflow.models.model"): logging.getLogger(name).setLevel(logging.ERROR)
    X = flights(until="2013-01-05").select_dtypes("number")
    y = X.index % 5 == 0
    contenders = {"logistic regression": make_pipeline(StandardScaler(), LogisticRegression()).fit(X.fillna(0), y), "100 boosted trees": HistGradientBoostingClassifier(max_iter=100).fit(X.fillna(0), y)}
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, MLflow {mlflow.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as tmp, settings_for(tmp):
        dataset.commit(X.head(1000), "flights")
        dataset.read("flights")
        for name, model in contenders.items():
            shown(name, alternating(tmp, rounds, ours, plain, model, X.fillna(0)), "log_model")
        shown(f"a run of {sweep}, no model", alternating(tmp, sweep, ours_without, plain_without), "plain")
        ledger.close()

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--sweep", type=int, default=100)
    main(**vars(p.parse_args()))
