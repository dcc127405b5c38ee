"""How many labels each strategy of `label.guide` needs, and what the next 100 of a million cost.
Digits with logistic regression (raw pixels and scaled) and flights with a random forest: start 20, batch 10, median of SEEDS seeds of labels to 95 and 99 % of the score of all labels; half of the digits and
2,000 of 4,000 flights are the pool, the rest the test. `10 % lot` is the default of the loop: a tenth of each batch is drawn at random. Then the next 100 of a pool of ROWS x 20: everything looked at, and 50,000
drawn at random, alternating, CPU medians, and whether both end at the same accuracy. SEEDS, ROWS, ONLY=digits,flights,pool limit the work."""
import os, platform, statistics, time, warnings
os.environ.setdefault("OMP_NUM_THREADS", "1")   # before numpy is imported
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from mlops_nb.data.samples import digits, flight_outcomes, flights
from mlops_nb.label import guide

SEEDS, ROWS = int(os.environ.get("SEEDS", 10)), int(os.environ.get("ROWS", 1_000_000))
ONLY = os.environ.get("ONLY", "digits,flights,pool").split(",")

def digit_set():
    df = digits()
    return df.drop(columns="target"), df.target.to_numpy()

def flight_set(n=4000):
    "Flights of early 2013, what is known before departure; columns of words as numbers."
    late = flight_outcomes(until="2013-04-01").set_index("flight_id").dep_delay
    df = flights(until="2013-04-01").assign(late=lambda d: (d.flight_id.map(late[~late.index.duplicated()]) > 15).astype(int)).sample(n, random_state=0)
    X = df[["carrier", "origin", "dest", "distance", "hour_departures", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib", "seats", "plane_year"]].assign(hour=df.scheduled.dt.hour, day=df.scheduled.dt.dayofweek)
    for c in ("carrier", "origin", "dest"): X[c] = X[c].astype("category").cat.codes
    return X.fillna(X.median()).astype(float), df.late.to_numpy()

def curve(X, y, model, strategy, seed, *, explore=0., until=300, enough=.99):
    "Labels -> share of the score of all labels, until `enough` or `until`."
    a, b, ya, yb = train_test_split(X, y, test_size=.5, random_state=seed, stratify=y)
    full, rng, found = model().fit(a, ya).score(b, yb), np.random.default_rng(seed), {}
    labeled = [*guide.rank(None, a, 20, strategy="random" if strategy == "random" else "margin+cluster", explore=0., random_state=rng).index]
    while True:
        fitted = model().fit(a.iloc[labeled], ya[labeled])
        found[len(labeled)] = fitted.score(b, yb)/full
        if len(labeled) >= until or found[len(labeled)] >= enough: return found
        labeled += [*guide.rank(fitted if len(fitted.classes_) > 1 else None, a, 10, labeled=labeled, strategy=strategy, explore=explore, random_state=rng).index]

def needed(found, share): return next((n for n, s in found.items() if s >= share), max(found) + 10)

def table(name, X, y, model):
    print(f"\n{name}: labels to 95 % and 99 % (median of {SEEDS} seeds)")
    for strategy, explore in ((*((s, 0.) for s in guide.STRATEGIES), ("margin+cluster", .1))):
        runs = [curve(X, y, model, strategy, seed, explore=explore) for seed in range(SEEDS)]
        print(f"  {strategy + (', 10 % lot' if explore else ''):28} {statistics.median(needed(r, .95) for r in runs):5.0f} {statistics.median(needed(r, .99) for r in runs):5.0f}", flush=True)

def pool_set(rows, seed=0):
    rng = np.random.default_rng(seed)
    centers, y = rng.normal(size=(8, 20))*1.2, rng.integers(0, 8, rows)
    return (centers[y] + rng.normal(size=(rows, 20))*1.3).astype(np.float32), y

def cpu(f):
    start = time.process_time()
    result = f()
    return time.process_time() - start, result

def pool():
    X, y = pool_set(ROWS)
    test, truth = X[:20_000], y[:20_000]
    model = lambda: LogisticRegression(max_iter=200)
    fitted, whole, thin = model().fit(X[-200:], y[-200:]), [], []
    for i in range(7):
        whole.append(cpu(lambda: guide.rank(fitted, X, 100, limit=len(X), random_state=i))[0])
        thin.append(cpu(lambda: guide.rank(fitted, X, 100, random_state=i))[0])
    print(f"\nnext 100 of {ROWS:,} x 20: all {statistics.median(whole):.3f} s, 50,000 at random {statistics.median(thin):.3f} s, ratio {statistics.median(thin)/statistics.median(whole):.3f}")
    ends = {}
    for limit in (len(X), 50_000):
        for seed in range(3):
            labeled = [*np.random.default_rng(seed).choice(len(X), 50, replace=False)]
            for _ in range(5): labeled += [*guide.rank(model().fit(X[labeled], y[labeled]), X, 100, labeled=labeled, limit=limit, random_state=seed).index]
            ends.setdefault(limit, []).append(model().fit(X[labeled], y[labeled]).score(test, truth))
    print("accuracy after 550 labels: " + ", ".join(f"{'all' if n == len(X) else f'{n:,}'} {np.mean(v):.4f} ({min(v):.4f} to {max(v):.4f})" for n, v in ends.items()))

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    if "digits" in ONLY:
        table("digits, logistic regression, scaled", *digit_set(), lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)))
        table("digits, logistic regression, pixels / 16", digit_set()[0]/16, digit_set()[1], lambda: LogisticRegression(max_iter=300))
    if "flights" in ONLY: table("flights, random forest, accuracy", *flight_set(), lambda: RandomForestClassifier(100, random_state=0))
    if "pool" in ONLY: pool()
