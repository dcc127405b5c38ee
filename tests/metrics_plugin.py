"""A pytest plug-in: scikit-learn's own tests of its metrics, with ours beside every call that ours can answer. What they say is compared, and ours is what the test gets.

    python -m pytest -p metrics_plugin --pyargs sklearn.metrics.tests.test_ranking
"""
import functools, inspect, json, os
import numpy as np
from mlops_nb.train import intervals
from mlops_nb.train.scoring import metric

AVERAGED = {"f1_score": "f1", "precision_score": "precision", "recall_score": "recall", "jaccard_score": "jaccard"}
PLAIN = {"roc_auc_score": "roc_auc", "average_precision_score": "average_precision", "accuracy_score": "accuracy", "balanced_accuracy_score": "balanced_accuracy", "matthews_corrcoef": "matthews_corrcoef",
         "cohen_kappa_score": "cohen_kappa", "log_loss": "log_loss", "brier_score_loss": "brier_score", "mean_absolute_error": "mae", "mean_squared_error": "mse", "root_mean_squared_error": "rmse",
         "mean_absolute_percentage_error": "mape", "mean_squared_log_error": "msle", "root_mean_squared_log_error": "rmsle", "r2_score": "r2", "explained_variance_score": "explained_variance",
         "mean_poisson_deviance": "mean_poisson_deviance", "mean_gamma_deviance": "mean_gamma_deviance"}
answered = {}

def asked(name, function, given):
    "Name of our metric for a call with these arguments; None when it has options of its own."
    usual = {k: p.default for k, p in inspect.signature(inspect.unwrap(function)).parameters.items()}
    own = {k: v for k, v in given.items() if k in usual and k not in ("y_true", "y_pred", "y_score", "y_proba", "y1", "y2", "sample_weight", "average") and not (v is usual[k] or np.isscalar(v) and v == usual[k])}
    if own: return None
    if name in PLAIN: return PLAIN[name] if given.get("average", "macro") == "macro" else None
    how = given.get("average", "binary")
    return AVERAGED[name] + {"binary": "", "macro": "_macro", "micro": "_micro", "weighted": "_weighted"}[how] if how in ("binary", "macro", "micro", "weighted") else None

def wrapped(name, function):
    @functools.wraps(function)
    def call(*args, **more):
        want = function(*args, **more)     # what it warns of or refuses, it warns of and refuses
        given = inspect.signature(inspect.unwrap(function)).bind(*args, **more).arguments
        ours = asked(name, function, given)
        y, p = (np.asarray(v) for v in list(given.values())[:2])
        if ours is None or not fits(metric(ours), y, p, want): return want
        weights = given.get("sample_weight")
        got = intervals.replicates(metric(ours), y, p, np.arange(len(y)) % 7, np.ones((2, min(len(y), 7))), None if weights is None else np.asarray(weights, float))[1]
        np.testing.assert_allclose(got, want, **close(p))
        answered[ours] = answered.get(ours, 0) + 1
        return got
    return call

def close(p): return dict(rtol=1e-9, atol=1e-9) if p.dtype != np.float32 and p.dtype != np.float16 else dict(rtol=2e-3, atol=1e-6)

def fits(m, y, p, want):
    "Answers in a column, of a kind the metric is for, with a value that is defined."
    if y.ndim != 1 or len(y) < 2 or len(y) != len(p) or y.dtype.kind not in "biufUO" or not np.isscalar(want) or not np.isfinite(want): return False
    if m.kinds == ("regression",): return p.ndim == 1 and y.dtype.kind in "biuf"
    classes = np.unique(y)
    if len(classes) < 2 or ("binary" if len(classes) == 2 else "multiclass") not in m.kinds: return False
    if m.needs == "predict": return p.ndim == 1 and p.dtype.kind == y.dtype.kind and bool(np.isin(p, classes).all()) and p.dtype.kind != "f"
    return p.ndim == 1 and p.dtype.kind in "fiu" and len(classes) == 2 or p.ndim == 2 and p.shape[1] == len(classes) and bool(np.allclose(p.sum(axis=1), 1, atol=1e-3))

def pytest_collection_modifyitems(items):
    for module in {i.module for i in items}:
        for name in {*PLAIN, *AVERAGED} & {*vars(module)}: setattr(module, name, wrapped(name, getattr(module, name)))

def pytest_sessionfinish(session):
    if path := os.environ.get("ANSWERED"): open(path, "w").write(json.dumps(answered))
