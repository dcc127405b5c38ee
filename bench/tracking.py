"""Bookkeeping of one training run: ours (`registry.models.register`) against MLflow's `log_model` with its defaults, alternating, each on its own store.

    python bench/tracking.py [--rounds 5]
"""
import argparse, logging, os, platform, statistics, tempfile, time, warnings

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

def clock(work, *args):
    wall, cpu = time.perf_counter(), time.process_time()
    work(*args)
    return time.perf_counter() - wall, time.process_time() - cpu

def main(rounds):
    for name in ("mlflow", "mlflow.sklearn", "mlflow.models.model"): logging.getLogger(name).setLevel(logging.ERROR)
    X = flights(until="2013-01-05").select_dtypes("number")
    y = X.index % 5 == 0
    contenders = {"logistic regression": make_pipeline(StandardScaler(), LogisticRegression()).fit(X.fillna(0), y), "100 boosted trees": HistGradientBoostingClassifier(max_iter=100).fit(X.fillna(0), y)}
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, MLflow {mlflow.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as tmp, settings_for(tmp):
        dataset.commit(X.head(1000), "flights")
        dataset.read("flights")
        for name, model in contenders.items():
            took = {"ours": [], "plain": []}
            for _ in range(rounds + 1):
                track.tracking()
                took["ours"].append(clock(ours, model, X.fillna(0)))
                mlflow.set_tracking_uri(f"sqlite:///{tmp}/plain.db")
                mlflow.set_experiment("late")
                took["plain"].append(clock(plain, model, X.fillna(0)))
                track._tracking.cache_clear()
            a, b = ({k: statistics.median(t[i] for t in v[1:]) for k, v in took.items()} for i in (0, 1))
            print(f"{name:22} ours {a['ours']*1000:5.0f} ms ({b['ours']*1000:.0f} CPU)   log_model {a['plain']*1000:6.0f} ms   {a['plain']/a['ours']:.0f}x")
        ledger.close()

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5)
    main(p.parse_args().rounds)
