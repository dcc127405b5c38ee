"""A/B and shadow: how often a test that is looked at after every look promotes one of two equals, and how soon it finds a difference; ours beside the naive test and the test with a fixed number of rows.
Also what routing costs, and what a verdict over a million rows costs.

    python bench/ab.py                       # 2,000 pairs for each line, about ten minutes
    SIMS=200 python bench/ab.py null power   # parts: null, power, units, exact, drift, cost"""
import os
os.environ.setdefault("OMP_NUM_THREADS", "1"); os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import math, platform, statistics, sys, time
import numpy as np, pandas as pd

SIMS, ROWS = int(os.environ.get("SIMS", 2000)), int(os.environ.get("ROWS", 10_000))
FIRST = 100   # rows before the first look

# --- two groups, looked at after every row: the library's formula on running sums, checked against the library ---

def half(V, information, alpha, tuned):
    from mlops_nb.serve.sequential import radius
    return radius(np.maximum(information, 1e-9), alpha, tuned)*np.sqrt(V)

def running(y, arm):
    "Difference, its variance, rows' worth of information and the heaviest row's share, after each row; rows of (sims, n)."
    n = np.arange(1, y.shape[1] + 1)
    n1 = arm.cumsum(1)
    n0, s1, s = n - n1, (y*arm).cumsum(1), y.cumsum(1)
    q1, q = (y**2*arm).cumsum(1), (y**2).cumsum(1)
    with np.errstate(all="ignore"):
        m1, m0, m = s1/n1, (s - s1)/n0, s/n
        spread = q/n - m**2
        own = (q1/n1 - m1**2)/n1 + ((q - q1)/n0 - m0**2)/n0
        V = np.maximum(own, spread*(1/n1 + 1/n0))
        far = np.maximum(np.maximum.accumulate(y, 1) - m, m - np.minimum.accumulate(y, 1))**2
        return m1 - m0, V, spread/V, far/np.minimum(n1, n0)**2/V

def ends(up, down):
    "Which came first, and after how many rows."
    n = up.shape[1]
    u, d = (np.where(x.any(1), x.argmax(1), n) for x in (up, down))
    return dict(promoted=float((u < d).mean()), halted=float((d < u).mean()), rows=float(np.median(u[u < d]) + 1) if (u < d).any() else math.nan)

def draw(r, n, rows, rate, lift, share):
    arm = r.random((n, rows)) < share
    return (r.random((n, rows)) < rate + lift*arm).astype(float), arm

def looks(how, lift, sims=SIMS, rows=ROWS, rate=.2, share=.5, alpha=.05, tuned=1000, seed=0):
    "Share of pairs promoted and halted when somebody looks after each row; a rate of events, the challenger's raised by `lift`."
    from mlops_nb.serve import sequential
    r, found, block = np.random.default_rng(seed), [], 50
    for at in range(0, sims, block):
        y, arm = draw(r, min(block, sims - at), rows, rate, lift, share)
        if how == "exact": found.append(_exact(y, arm, share, alpha)); continue
        d, V, information, heavy = running(y, arm)
        ok = (np.arange(1, rows + 1) >= FIRST) & (V > 0)
        if how == "asymptotic": ok &= heavy <= sequential.LIGHT
        reach = 1.959964*np.sqrt(V) if how == "naive" else half(V, information, alpha, tuned)
        if how == "hundred": ok &= np.arange(1, rows + 1) % (rows//100) == 0; reach = 1.959964*np.sqrt(V)
        if how == "fixed": ok &= np.arange(1, rows + 1) == rows; reach = 1.959964*np.sqrt(V)
        with np.errstate(invalid="ignore"): found.append((ok & (d > reach), ok & (-d > reach)))
    return ends(np.vstack([u for u, _ in found]), np.vstack([d for _, d in found]))

def _exact(y, arm, share, alpha):
    from mlops_nb.serve.sequential import _bets, weighted
    up, down = np.zeros(y.shape, bool), np.zeros(y.shape, bool)
    for i in range(len(y)):
        x, lo, hi = weighted(y[i], arm[i], share)
        bet = _bets(x, lo.min(), hi.max(), alpha)
        for out, side, room in ((up, 1, -lo), (down, -1, hi)): out[i] = np.cumsum(np.log1p(side*np.minimum(bet, .5/room)*x)) >= math.log(2/alpha)
    return up, down

def same_as_the_library():
    "The running sums above are the library's figures."
    from mlops_nb.serve.sequential import LIGHT, difference
    r, off = np.random.default_rng(1), 0.
    for rate, share in ((.2, .5), (.03, .1)):
        y, arm = draw(r, 1, 4000, rate, 0., share)
        d, V, information, heavy = running(y, arm)
        for n in (150, 900, 4000):
            i = difference(y[0, :n], arm[0, :n])
            want = d[0, n - 1] - half(V, information, .05, 1000)[0, n - 1] if heavy[0, n - 1] <= LIGHT else -np.inf
            off = max(off, 0. if i.lo == want else abs(i.lo - want))
    return off

# --- parts ---

def null():
    print(f"largest difference of the running sums to the library's intervals: {same_as_the_library():.1e}")
    print(f"two equals, {SIMS:,} pairs x {ROWS:,} rows, a look after every row from {FIRST} on: share that got a winner (challenger promoted + halted)")
    for rate in (.5, .2, .05, .01):
        for share in (.5, .1, .02):
            told = {how: looks(how, 0., rate=rate, share=share) for how in ("naive", "hundred", "asymptotic")}
            print(f"  events {rate:4.0%}, share {share:3.0%}: " + ", ".join(f"{how} {t['promoted'] + t['halted']:.1%} ({t['promoted']:.1%} + {t['halted']:.1%})" for how, t in told.items()), flush=True)

def power():
    print(f"a difference, {SIMS:,} pairs x {ROWS:,} rows, events 20 %, half and half: share promoted, median rows until then (a fixed test needs all {ROWS:,})")
    for lift in (.01, .02, .03, .05, .1):
        told = {how: looks(how, lift) for how in ("fixed", "asymptotic")} | {f"tuned for {t:,}": looks("asymptotic", lift, tuned=t) for t in (200, 3000)}
        print(f"  20 % and {20 + 100*lift:.0f} %: " + ", ".join(f"{how} {t['promoted']:.1%}" + (f" after {t['rows']:,.0f}" if how != "fixed" and t["promoted"] else "") for how, t in told.items()), flush=True)

def exact():
    sims = min(SIMS, 500)
    print(f"few rows, {sims} pairs x 2,000 rows, half and half: exact (bets) beside asymptotic")
    for rate, lift in ((.5, 0.), (.05, 0.), (.01, 0.), (.2, .05), (.2, .1), (.2, .3), (.02, .05)):
        told = {how: looks(how, lift, sims, 2000, rate) for how in ("exact", "asymptotic")}
        print(f"  {rate:.0%} and {rate + lift:.0%}: " + ", ".join(f"{how} promoted {t['promoted']:.1%}, halted {t['halted']:.1%}, after {t['rows']:,.0f}" for how, t in told.items()), flush=True)

def units():
    "Clients with many rows each: two equals, A/B with sticky clients; rows as independent, and clients."
    from mlops_nb.serve.sequential import difference, paired
    sims, rows = min(SIMS, 500), 4000
    r, wrong = np.random.default_rng(0), {k: 0 for k in ("A/B by rows", "A/B by clients", "shadow by rows", "shadow by days", "ramp without stages", "ramp with stages")}
    at, often = np.unique(np.geomspace(200, rows, 40).astype(int)), r.dirichlet(np.ones(400))
    for _ in range(sims):
        client = r.choice(400, rows, p=often)
        arm, mood = (r.random(400) < .5)[client], r.normal(0, 1, 400)[client]
        y = (mood + r.normal(0, 1, rows) > .5).astype(float)
        day = np.arange(rows)//20
        x = r.normal(0, 1, rows) + r.normal(0, .5, rows)[day]
        late = np.arange(rows) >= rows//2
        hit = r.random(rows) < np.where(late, .5, .1)
        z = (r.random(rows) < np.where(late, .4, .2)).astype(float)
        calls = {"A/B by rows": lambda n: difference(y[:n], arm[:n]), "A/B by clients": lambda n: difference(y[:n], arm[:n], client[:n]), "shadow by rows": lambda n: paired(x[:n]), "shadow by days": lambda n: paired(x[:n], day[:n]),
                 "ramp without stages": lambda n: difference(z[:n], hit[:n]), "ramp with stages": lambda n: difference(z[:n], hit[:n], stage=late[:n])}
        for what, call in calls.items(): wrong[what] += any(i.lo > 0 or i.hi < 0 for i in map(call, at))
    print(f"dependent rows, {sims} pairs of equals x {rows:,} rows, 40 looks: share that got a winner: " + ", ".join(f"{k} {v/sims:.1%}" for k, v in wrong.items()), flush=True)

def drift():
    "The guardrails on two equals: share that was ever halted."
    from mlops_nb.serve.sequential import apart, blame, mismatch
    r, sims = np.random.default_rng(0), min(SIMS, 500)
    wrong = {"distance": 0, "blame": 0, "mismatch": 0}
    for _ in range(sims):
        a, b, hit = r.random(5000), r.random(5000), r.random(5000) < .1
        k = hit.cumsum()
        wrong["distance"] += any(apart(a[:n], b[:n], alpha=.05)[1] > 0 for n in (100, 300, 1000, 5000))
        wrong["blame"] += any(blame(int(k[n - 1]), n, .1) > math.log(20) for n in range(1, 400))
        wrong["mismatch"] += any(mismatch([(int(k[n - 1]), n - int(k[n - 1]))], [.1]) < .05 for n in range(10, 5000, 50))
    print(f"guardrails at 5 % on {sims} pairs of equals, many looks: " + ", ".join(f"{k} {v/sims:.1%}" for k, v in wrong.items()), flush=True)

def cost():
    from mlops_nb.serve.plan import Plan, State
    from mlops_nb.serve.router import Router, Watch, chooser
    from mlops_nb.serve.verdict import verdict
    router, plan = Router(poll=0), Plan("flights", 2, 1, "ab", .5, metric="brier", id="spring")
    router.table["flights"], router.watches["flights"] = chooser(plan, .5), Watch(plan, .5)
    keys = [f"client-{i}" for i in range(100_000)]
    def ns(call):
        began = time.process_time()
        for k in keys: call(k)
        return (time.process_time() - began)/len(keys)*1e9
    for what, call in (("route", lambda k: router.route("flights", k)), ("route without a plan", lambda k: router.route("other", k)), ("saw", lambda k: router.saw("flights", 1, k, True, .001))):
        print(f"{what}: {statistics.median(ns(call) - ns(lambda k: None) for _ in range(7)):,.0f} ns CPU")
    r, n = np.random.default_rng(0), 1_000_000
    s = State(plan, (dict(no=1, at="2026-01-01T00:00:00+00:00", actor="a", step="start", share=.5, reason="r"),))
    key = np.array(keys)[r.integers(0, 100_000, n)]
    hit = pd.Series(key).map({k: chooser(plan, .5)(k) is not None for k in keys}).to_numpy()
    log = pd.DataFrame(dict(id=np.arange(n).astype(str), at=pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(n) + 1, "s"), version=np.where(hit, 2, 1), role="answer", key=key, outputs=r.random(n), ms=1., outcome=r.integers(0, 2, n)))
    began = time.process_time()
    told = verdict(s, log)
    print(f"verdict over {n:,} rows of {len(set(key)):,} clients: {time.process_time() - began:.1f} s CPU; {told}")

# --- how soon a step takes effect, with a server under load ---

SERVE = "import sys; from mlops_nb.serve.limits import Serving; from mlops_nb.serve.rollout import Router; from mlops_nb.serve.server import run; run('flights', Serving(access=''), port=0, workers=int(sys.argv[1]), router=Router, told=lambda said: print(said, flush=True))"

def _clients(port, got, done, n):
    import http.client, json
    c, body = http.client.HTTPConnection("127.0.0.1", port, timeout=60), json.dumps(dict(dataframe_records=[dict(distance=5., hour=3)])).encode()
    for i in range(10**9):
        if done.is_set(): return
        key = f"client-{(4*i + n) % 200}"
        c.request("POST", "/invocations", body, {"content-type": "application/json", "x-route-key": key})
        r = c.getresponse()
        r.read()
        got.append((time.monotonic(), key, r.status, int(r.headers.get("x-model-version") or 0)))

def _up(port, seconds=180):
    "Wait for its first answers: of all workers, we hope."
    import http.client
    for _ in range(seconds):
        time.sleep(1)
        try:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            c.request("GET", "/ping")
            if c.getresponse().status == 200: return time.sleep(10)
        except OSError: pass
    raise SystemExit("the server does not answer")

def _settled(got, at, choose, until=2.):
    "Seconds after `at` of the last answer by a version that should no longer have given it."
    time.sleep(until)
    wrong = [t - at for t, key, _, v in list(got) if t > at and v != (2 if choose(key) else 1)]
    return max(wrong, default=0.)

def effect(workers=2, rounds=int(os.environ.get("ROUNDS", 10))):
    import subprocess, tempfile, threading
    os.environ.update(MLOPS_NB_ROOT=tempfile.mkdtemp(prefix="mlops-nb-ab-"), MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    from sklearn.ensemble import HistGradientBoostingClassifier
    from mlops_nb.registry import models
    from mlops_nb.serve import rollout
    from mlops_nb.serve.router import chooser
    X = pd.DataFrame({"distance": np.arange(500.), "hour": np.arange(500) % 24})
    for n in (20, 40): models.register(HistGradientBoostingClassifier(max_iter=n).fit(X, X.hour > 12), "flights", X.head(20), {}, {"auc": .8})
    models.promote("flights", 1, "the first")
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(workers)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    port, got, done, took = int(server.stdout.readline().rsplit(":", 1)[1]), [], threading.Event(), {}
    try:
        _up(port)
        threads = [threading.Thread(target=_clients, args=(port, got, done, n), daemon=True) for n in range(4)]
        for t in threads: t.start()
        for i in range(rounds):
            plan = rollout.start("flights", 2, "round")
            begin = time.monotonic()
            took.setdefault("start (loads the challenger)" if i == 0 else "start (challenger still loaded)", []).append(_settled(got, begin, chooser(plan, .1), 12. if i == 0 else 2.))
            for what, step, choose in (("ramp", lambda: rollout.ramp("flights", .5, "good"), chooser(plan, .5)), ("promote", lambda: rollout.promote("flights", "better"), lambda k: True), ("rollback", lambda: rollout.rollback("flights", "worse"), lambda k: False)):
                step()
                took.setdefault(what, []).append(_settled(got, time.monotonic(), choose))
            plan = rollout.start("flights", 2, "again", share=.5)
            time.sleep(2)
            rollout.halt("flights", "enough")
            took.setdefault("halt", []).append(_settled(got, time.monotonic(), lambda k: False))
        done.set()
        for t in threads: t.join()
    finally: os.killpg(server.pid, 9)
    print(f"{len(got):,} requests by 4 clients at {workers} workers, {sum(s != 200 for _, _, s, _ in got)} failed; seconds from the step until the last answer of before: " + "; ".join(f"{what} median {statistics.median(t):.2f}, most {max(t):.2f}" for what, t in took.items()), flush=True)

PARTS = dict(effect=effect, null=null, power=power, units=units, exact=exact, drift=drift, cost=cost)

if __name__ == "__main__":
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, numpy {np.__version__}", flush=True)
    for part in sys.argv[1:] or PARTS: PARTS[part]()
