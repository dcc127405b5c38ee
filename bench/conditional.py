"""Conditional importance, ours and hidimstat's CFI, alternating in one process: CPU medians and ratios. First the same draws for both (the numbers must be the same), then each with
its own (ours chooses between regressions, bends and trees per column; theirs is RidgeCV). HistGradientBoosting on correlated normal columns, Friedman's function.

    python bench/conditional.py                                   # 20,000 x 30, 5 repeats; 5,000 x 30, 50 repeats (hidimstat's default); 5,000 x 100, 5
    python bench/conditional.py --rows 2000 --columns 10 --repeats 5 --rounds 1
hidimstat lives in a virtual environment below ~/.cache/mlops-nb/bench/importance and is used from there with our numpy and scikit-learn."""
import os
os.environ.setdefault("OMP_NUM_THREADS", "1"); os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import argparse, json, platform, statistics, subprocess, sys, time
from pathlib import Path
import numpy as np

HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/importance"
PEER = "hidimstat==0.4.0"

def peer():
    if not (HOME/"hidimstat.done").exists() or (HOME/"hidimstat.done").read_text() != PEER:
        subprocess.run(["uv", "venv", "-q", "--clear", "-p", sys.executable, HOME/"hidimstat"], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", HOME/"hidimstat/bin/python", PEER], check=True)
        (HOME/"hidimstat.done").write_text(PEER)
    sys.path.append(str(next((HOME/"hidimstat/lib").glob("python*"))/"site-packages"))     # last: all else is ours
    from hidimstat import CFI
    return CFI

def data(n, p):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) @ (np.eye(p) + .7*rng.normal(size=(p, p))/np.sqrt(p))
    return X, 10*np.sin(X[:, 0]*X[:, 1]) + 20*(X[:, 2] - .5)**2 + 10*X[:, 3] + 5*X[:, 4] + rng.normal(size=n)

def cost(call):
    began = time.process_time()
    result = call()
    return result, time.process_time() - began

def oracle(CFI):
    "The construction of hidimstat's own exact test of CFI (150 x 200, ten columns that count, linear model, linear imputers, ten draws): the same numbers, and the ten come first."
    from hidimstat._utils.scenario import multivariate_simulation
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import mean_squared_error
    from sklearn.model_selection import train_test_split
    from mlops_nb.features.conditional import conditional_importance
    found = []
    for noise, serial in ((np.inf, 0.), (10., 0.), (10., .2)):
        X, y, beta, _ = multivariate_simulation(n_samples=150, n_features=200, support_size=10, rho=0., value=1., signal_noise_ratio=noise, rho_serial=serial, shuffle=False, seed=42)
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
        model, kept = LinearRegression().fit(X_train, y_train), {}
        cfi = CFI(model, imputation_model_continuous=LinearRegression(), n_permutations=10, method="predict", loss=mean_squared_error, random_state=5)
        draw = cfi._permutation
        def keep(X, features_group_id, random_state=None):
            kept[features_group_id] = draw(X, features_group_id=features_group_id, random_state=random_state)
            return kept[features_group_id]
        cfi._permutation = keep
        cfi.fit(X_train)
        _, theirs = cost(lambda: cfi.importance(X_test, y_test))
        ours, spent = cost(lambda: conditional_importance(model, X_test, y_test, scoring="neg_mean_squared_error", n_repeats=10,
                                                          sampler=lambda X, c, r, s: np.asarray(kept[c[0]]).reshape(r, len(X), 1)))
        want = np.array([cfi.loss_[j] - cfi.loss_reference_ for j in range(200)])
        top = set(np.argsort(ours.importances_mean)[-10:].tolist())
        found.append(dict(noise=str(noise), serial=serial, identical=bool(np.array_equal(ours.importances, want)), largest_gap=float(np.abs(ours.importances - want).max()),
                          the_ten_first=top == set(np.flatnonzero(beta).tolist()), cpu_ratio=round(theirs/spent, 1)))
    return dict(test="hidimstat's own", cases=found)

def run(CFI, n, p, repeats, rounds):
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.metrics import mean_squared_error
    from mlops_nb.features.conditional import conditional_importance
    X, y = data(n, p)
    model, how, kept = HistGradientBoostingRegressor(random_state=0).fit(X, y), dict(scoring="neg_mean_squared_error", n_repeats=repeats, random_state=0), {}
    import mlops_nb.features._walk                                                        # loaded once per process
    conditional_importance(model, X, y, **how | dict(n_repeats=2))
    def theirs():
        cfi = CFI(model, method="predict", loss=mean_squared_error, n_permutations=repeats, random_state=0)
        draw = cfi._permutation
        def keep(X, features_group_id, random_state=None):
            kept[features_group_id] = draw(X, features_group_id=features_group_id, random_state=random_state)
            return kept[features_group_id]
        cfi._permutation = keep
        cfi.fit(X, y).importance(X, y)
        return cfi
    same = lambda: conditional_importance(model, X, y, sampler=lambda X, c, r, s: np.asarray(kept[c[0]]).reshape(r, n, 1), **how)
    own = lambda: conditional_importance(model, X, y, **how)
    spent = dict(theirs=[], same=[], own=[])
    for _ in range(rounds):
        cfi, t = cost(theirs); spent["theirs"].append(t)
        ours, t = cost(same); spent["same"].append(t)
        free, t = cost(own); spent["own"].append(t)
    want = np.array([cfi.loss_[j] - cfi.loss_reference_ for j in range(p)])
    m = {k: statistics.median(v) for k, v in spent.items()}
    return dict(rows=n, columns=p, repeats=repeats, hidimstat_cpu=round(m["theirs"], 2), same_draws_cpu=round(m["same"], 2), own_draws_cpu=round(m["own"], 2), same_draws_ratio=round(m["theirs"]/m["same"], 1),
                own_draws_ratio=round(m["theirs"]/m["own"], 1), identical=bool(np.array_equal(ours.importances, want)), correlation=round(float(np.corrcoef(free.importances_mean, cfi.importances_)[0, 1]), 4),
                load=round(os.getloadavg()[0], 1))

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("rows", "columns", "repeats"): a.add_argument("--" + name, type=int)
    a.add_argument("--rounds", type=int, default=1)
    a = a.parse_args()
    print(json.dumps(dict(machine=platform.processor() or platform.machine(), cores=os.cpu_count(), load=os.getloadavg()[0], python=platform.python_version(), peer=PEER)))
    if not a.rows: print(json.dumps(oracle(peer())), flush=True)
    for n, p, r in [(a.rows, a.columns or 30, a.repeats or 5)] if a.rows else [(20_000, 30, 5), (5_000, 30, 50), (5_000, 100, 5)]: print(json.dumps(run(peer(), n, p, r, a.rounds)), flush=True)

if __name__ == "__main__": main()
