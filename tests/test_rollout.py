"Roll-outs with a server in a process of its own, a real ledger and real clients: who is answered by whom, what ends a plan, and how often the test is wrong."
import json, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

import numpy as np, pandas as pd, pytest

from conftest import load_bench, wait_until
from test_serve import Server, fitted, flights, register, row, rows, split

from mlops_nb.core import ledger
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput, Busy, GateClosed
from mlops_nb.registry import models
from mlops_nb.serve import rollout, sequential
from mlops_nb.serve.plan import Plan, State
from mlops_nb.serve.router import Router, chooser
from mlops_nb.serve.verdict import losses, named, scores, verdict

# --- a project with a champion, a challenger, one that fails, and one that gates kept out ---

def moody():
    "Fails on every row with an hour below 12; answers its example."
    from sklearn.base import BaseEstimator
    class Moody(BaseEstimator):
        def predict(self, X):
            import numpy as np
            if (X["hour"] > 100).any(): raise ValueError("no such hour")
            return np.full(len(X), .5)
    return Moody()

@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with settings_for(tmp_path_factory.mktemp("rollout")) as s:
        df, _ = flights()
        for seed in (0, 3): register("delays", fitted(seed), df.head(20))
        register("delays", moody(), df.head(20))
        register("delays", fitted(5), df.head(20))
        ledger.event("keep", "delays", challenger=4, closed=["auc"])
        models.promote("delays", 1, "the first")
        yield s.root
        ledger.close()

@pytest.fixture
def project(registry):
    "No plan runs, version 1 is in charge."
    with settings_for(registry):
        yield registry
        if rollout.running("delays"): rollout.halt("delays", "end of the test")
        if models.in_charge("delays") != 1: models.promote("delays", 1, "end of the test")

SERVE = """
import json, os, sys
from mlops_nb.serve.limits import Serving
from mlops_nb.serve.rollout import Router
from mlops_nb.serve.server import run

class Log:
    "One line a prediction."
    def __init__(self): self.file = open(sys.argv[1], "a")
    async def put(self, records):
        for r in records:
            at = 0
            for t, n in zip(r.tickets, r.counts):
                for i in range(at, at + n): self.file.write(json.dumps(dict(id=t.id, at=t.at, role=t.role, key=t.key, version=r.version, ms=r.ms, outputs=[float(v) for v in (r.predictions[i] if r.predictions.ndim > 1 else [r.predictions[i]])])) + "\\n")
                at += n
        self.file.flush()
    def close(self): self.file.close()

if __name__ == "__main__": run("delays", Serving(access=""), port=0, workers=int(sys.argv[2]), log=Log if sys.argv[3] else None, router=Router, told=lambda said: print(said, flush=True))
"""

@pytest.fixture(scope="module")
def serve(registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    (folder/"serve.py").write_text(SERVE)
    made = []
    def start(workers=1, log="log"):
        kept, log = log, folder/f"{len(made)}.jsonl"
        with settings_for(registry): made.append(s := Server(sys.executable, str(folder/"serve.py"), str(log), str(workers), kept))
        wait_until("an answer", s.up, s.process, 120)
        s.log = lambda: pd.DataFrame([json.loads(l) for l in log.read_text().splitlines()]).assign(at=lambda d: pd.to_datetime(d["at"], utc=True))
        s.version = lambda key: int(s.score(dict(dataframe_records=[row()]), x_route_key=key)[2]["x-model-version"])
        return s
    yield start
    for s in made: s.close()

@pytest.fixture(scope="module")
def server(serve): return serve()

KEYS = [f"client-{i}" for i in range(60)]

def challenged(server, share=.5, version=2, keys=KEYS):
    "Wait until the server answers each client as the plan says."
    plan = rollout.running("delays").plan
    choose = chooser(plan, share)
    for key in keys: wait_until(f"{key} at {share}", lambda: server.version(key) == (version if choose(key) else 1), server.process, 30)

# --- who is answered by whom ---

def test_the_same_client_keeps_its_version_in_every_worker_after_a_restart_and_when_the_share_is_raised(project, server, serve):
    plan = rollout.start("delays", 2, "new", share=.3, keys=["acme"])
    challenged(server, .3)
    before = {k: server.version(k) for k in KEYS}
    assert server.version("acme") == 2 and {server.version(k) for k in ["acme"]*3} == {2} and before == {k: server.version(k) for k in KEYS} and {*before.values()} == {1, 2}
    rollout.ramp("delays", .8, "well so far")
    challenged(server, .8)
    after = {k: server.version(k) for k in KEYS}
    assert {k for k, v in before.items() if v == 2} < {k for k, v in after.items() if v == 2}
    two = serve(workers=2)      # other processes, started in the middle: they go on with the plan
    wait_until("both workers", lambda: all({two.version(k) for _ in range(4)} == {after[k]} for k in KEYS[:10]), two.process, 60)
    assert all({two.version(k) for _ in range(6)} == {after[k]} for k in KEYS)
    assert two.ask("POST", "/models/delays/versions/1/invocations", dict(dataframe_records=[row()]), x_route_key="acme")[2]["x-model-version"] == "1"     # who asks for a version gets it
    two.close()
    rollout.ramp("delays", .3, "slower")
    challenged(server, .3)
    assert before == {k: server.version(k) for k in KEYS}

def test_every_step_takes_effect_under_load_and_no_answer_mixes_versions(project, server):
    body, got, done = dict(dataframe_split=split(rows(20))), [], threading.Event()
    expected = {str(v): models.load("delays", v)[0].predict_proba(rows(20)) for v in (1, 2)}
    def ask(n):
        for i in range(100_000):
            if done.is_set(): return
            key = KEYS[(i*4 + n) % len(KEYS)]
            got.append((time.monotonic(), key, *server.score(body, x_route_key=key)))
    fits = lambda choose, some: [h["x-model-version"] == ("2" if choose(key) else "1") for _, key, *_, h in some]
    with ThreadPoolExecutor(4) as pool:
        for n in range(4): pool.submit(ask, n)
        try:
            plan = rollout.start("delays", 2, "new", share=.5)
            wait_until("the challenger", lambda: any(h["x-model-version"] == "2" for *_, h in got), server.process)
            for what, step, choose in (("ramp", lambda: rollout.ramp("delays", .9, "good"), chooser(plan, .9)), ("promote", lambda: rollout.promote("delays", "better"), lambda key: True), ("rollback", lambda: rollout.rollback("delays", "worse"), lambda key: False)):
                step()
                begin = len(got)
                wait_until(what, lambda: len(got) > begin + 60 and all(fits(choose, got[-60:])), server.process, 30)
                there = len(got)
                wait_until("as many more answers", lambda: len(got) > there + 300, server.process)
                assert all(fits(choose, got[there:there + 300])), what      # everybody is where he belongs, and stays there
        finally: done.set()
    assert {s for _, _, s, _, _ in got} == {200}
    assert all(np.allclose(said["predictions"], expected[h["x-model-version"]], rtol=0, atol=1e-12) for *_, said, h in got)

def test_a_shadow_is_never_heard_and_its_failures_hurt_nobody(project, server):
    rollout.start("delays", 2, "look at it", "shadow", metric="brier")
    wait_until("shadows", lambda: (server.version("s"), (server.log()["role"] == "shadow").any())[1], server.process)
    ids = [f"shadow-{i}" for i in range(40)]
    answers = [server.score(dict(dataframe_records=[row(hour=i % 24)]), x_request_id=id, x_route_key=f"s{i % 7}") for i, id in enumerate(ids)]
    assert {h["x-model-version"] for *_, h in answers} == {"1"}
    pairs = lambda: server.log().loc[lambda d: d["id"].isin(ids)]
    wait_until("pairs", lambda: len(pairs()) == 80)
    log = pairs()
    assert set(log.groupby("id")["version"].agg(tuple).map(sorted).map(tuple)) == {(1, 2)} and (log["role"].eq("shadow") == log["version"].eq(2)).all()
    found = verdict(rollout.running("delays"), log.assign(outcome=log["id"].str[-1].isin(list("02468")).astype(int)))
    assert found.rows == 40 and found.action == "go on" and rollout.status("delays", log).count("\n") < 24
    rollout.halt("delays", "enough")
    rollout.start("delays", 3, "and one that fails", "shadow")
    wait_until("its shadows", lambda: (server.version("s"), (server.log()["version"] == 3).any())[1], server.process)
    assert all(server.score(dict(dataframe_records=[row(hour=200)]), x_route_key=f"f{i}")[0] == 200 for i in range(60))
    wait_until("the halt", lambda: rollout.state("delays").over == "halt", seconds=20)
    assert "failures" in rollout.state("delays").steps[-1]["reason"] and rollout.state("delays").steps[-1]["by"] == "guard"

# --- what ends a plan ---

@pytest.mark.parametrize("kept", [True, False], ids=["log", "no log"])
def test_the_champion_answers_what_the_challenger_raises_on_and_the_server_halts_it(project, serve, server, kept):
    server = server if kept else serve(log="")
    stood_in = lambda: server.metric("mlops_stand_ins_total", model="delays", version="3")
    before = stood_in()
    rollout.start("delays", 3, "new", share=.5)
    challenged(server, .5, 3, KEYS[:12])
    choose = chooser(rollout.running("delays").plan, .5)
    hit = [k for k in (f"k{i}" for i in range(400)) if choose(k)]
    ask = lambda key, hour=200, **more: server.score(dict(dataframe_records=[row(hour=hour)]), x_route_key=key, **more)
    assert ask(hit[0], 7)[2]["x-model-version"] == "3" and ask(hit[0], "never")[0] == 400 and stood_in() == before       # what breaks the contract is the client's
    want = ask("nobody", x_request_id="as-the-champion")[1] if not choose("nobody") else None
    status, said, heads = server.ask("POST", "/v2/models/delays/infer", dict(inputs=[dict(name=n, shape=[1], datatype=t, data=[row(hour=200)[n]]) for n, t in dict(distance="FP64", hour="INT64", carrier="BYTES", weekend="BOOL").items()]), x_route_key=hit[0])
    assert status == 200 and said["model_version"] == heads["x-model-version"] == "1" and stood_in() == before + 1
    with ThreadPoolExecutor(4) as pool: got = [*pool.map(lambda k: ask(k, x_request_id=f"{kept}-{k}"), hit)]
    assert {(s, h["x-model-version"]) for s, _, h in got} == {(200, "1")} and len({json.dumps(said) for _, said, _ in got} | ({json.dumps(want)} if want else set())) == 1
    wait_until("the halt", lambda: rollout.running("delays") is None, seconds=20)
    last, failures = rollout.state("delays").steps[-1], stood_in() - before
    assert last["by"] == "guard" and last["evidence"]["check"] == "failures" and last["evidence"]["p"] < .001 and 5 < last["evidence"]["challenger"] <= failures < 60
    server.process.poll() is None and wait_until("lines", lambda: any("version 3 of delays failed" in l and "version 1 answers" in l for l in server.said))
    if not kept: return server.close()
    log = server.log()
    mine = log[log["id"].isin([f"{kept}-{k}" for k in hit])]
    assert len(mine) == len(hit) and set(mine["version"]) == {1} and set(mine["role"]) == {"answer"} and set(mine["key"]) == set(hit)
    assert rollout.start("delays", 2, "mended") and not rollout.state("delays").over

def test_bad_requests_of_one_client_or_of_all_halt_nothing(project, server):
    rollout.start("delays", 2, "new", share=.5)
    challenged(server)
    for key in ["stubborn"]*60 + KEYS: assert server.score(dict(dataframe_records=[row(hour="never")]), x_route_key=key)[0] == 400
    time.sleep(.6)
    assert rollout.running("delays")

def test_a_version_that_cannot_be_loaded_ends_the_plan_and_the_champion_answers(project, serve):
    df, _ = flights()
    version = register("delays", fitted(7), df.head(20))
    folder = models.files("delays", version)
    rollout.start("delays", version, "new", share=.5)
    kept = (folder/"requirements.txt").read_text()
    (folder/"requirements.txt").write_text(f"{kept}\nscikit-learn==0.1.0\n")     # after the plan was made
    fresh = serve()
    wait_until("the halt", lambda: rollout.running("delays") is None, fresh.process, 30)
    assert "cannot serve" in rollout.state("delays").steps[-1]["reason"] and all(fresh.version(k) == 1 for k in KEYS[:5])
    fresh.close()

def test_an_ab_test_from_the_first_request_to_the_verdict_over_the_durable_log(project, tmp_path):
    "Requests, captured predictions and outcomes sent later, all over the network; the verdict reads the warehouse."
    drain = pytest.importorskip("mlops_nb.serve.drain")
    (tmp_path/"serve.py").write_text("""
from functools import partial
from mlops_nb.serve.drain import durable, endpoint
from mlops_nb.serve.limits import Serving
from mlops_nb.serve.rollout import Router
from mlops_nb.serve.server import run
if __name__ == "__main__": run("delays", Serving(access=""), port=0, log=durable, outcomes=endpoint, router=Router, told=lambda said: print(said, flush=True))
""")
    whole = Server(sys.executable, str(tmp_path/"serve.py"))
    try:
        wait_until("an answer", whole.up, whole.process, 120)
        plan = rollout.start("delays", 2, "new", "ab", metric="brier")
        choose = chooser(plan, .5)
        ask = lambda i, key: whole.score(dict(dataframe_records=[row(hour=i % 24)]), x_route_key=key, x_request_id=f"ab-{i}")
        wait_until("the challenger", lambda: {ask(0, k)[2]["x-model-version"] for k in KEYS[:20]} == {"1", "2"}, whole.process, 60)
        with ThreadPoolExecutor(4) as pool: got = list(pool.map(lambda i: ask(i, f"client-{i % 90}"), range(1, 301)))
        assert all(h["x-model-version"] == ("2" if choose(f"client-{i % 90}") else "1") for i, (_, _, h) in enumerate(got, 1))
        assert whole.ask("POST", "/outcomes", [dict(id=f"ab-{i}", label=int(i % 24 > 12)) for i in range(1, 301)])[0] == 200
    finally:
        whole.process.terminate()
        whole.process.wait(30)
        whole.close()
    drain.drain()
    rows_ = rollout.window(rollout.running("delays"))
    told = rollout.decide("delays")
    assert told.interval.n == 300 and 80 <= told.interval.units <= 90 and told.rows >= 300 and {"clients' share", "clients with an outcome"} <= {f.check for f in told.findings}
    assert (rows_["role"] == "answer").all() and f"ab of version 2 beside 1" in rollout.status("delays")

def test_outcomes_may_be_the_names_of_classes_and_guardrails_are_judged_whatever_they_say(project):
    from sklearn.linear_model import LogisticRegression
    from mlops_nb.serve import capture, outcomes
    df, y = flights(300)
    df = df[["hour"]].astype(float)
    for c in (1., .01): register("tumours", LogisticRegression(C=c).fit(df, np.where(y, "malignant", "benign")), df.head(20))
    models.promote("tumours", 1, "the first")
    plan = rollout.start("tumours", 2, "new", "shadow", metric="brier")
    for version, role in ((1, "answer"), (2, "shadow")): capture.log(df, models.load("tumours", version)[0].predict_proba(df), "tumours", version, pd.Series([f"t{i}" for i in range(300)]), pd.Timestamp.now("UTC").tz_localize(None), role=role)
    words = np.where(y, "malignant", "benign").astype(object)
    words[:7] = "benigm"
    outcomes.join(pd.DataFrame({"id": [f"t{i}" for i in range(300)], "label": words}))
    told, said = rollout.decide("tumours"), rollout.status("tumours")
    numbers = rollout.window(rollout.running("tumours")).assign(label=lambda d: [{"malignant": 1., "benign": 0.}.get(w, np.nan) for w in d.label])
    assert told.interval == verdict(rollout.running("tumours"), numbers).interval and told.interval.n == 293
    odd = next(f for f in told.findings if f.check == "outcomes that are no class")
    assert odd.value == 7 and "benigm" in odd.note and "did you mean 'benign'" in odd.note and "benigm" in said and len(rollout.curve(rollout.running("tumours")))
    told = verdict(rollout.running("tumours"), numbers.assign(label=7.))
    assert told.action == "go on" and "7 is none of the 2 classes" in told.reason and {f.check for f in told.findings} == {"scores that are no numbers", "distance of the scores"}
    rollout.halt("tumours", "end of the test")

# --- plans that cannot be ---

@pytest.mark.parametrize("change, said", [
    (dict(version=9), "no version 9"), (dict(name="delay"), "did you mean 'delays'"), (dict(version=1), "in charge already"), (dict(reason=" "), "the reason is"), (dict(kind="blue"), "unknown kind"), (dict(share=50), "10 %"), (dict(share=1.), "promote"),
    (dict(share=float("nan")), "share"), (dict(metric="briar"), "did you mean 'brier'"), (dict(shares=.5), "did you mean 'share'"), (dict(alpha=0.), "0.05"), (dict(keys="acme"), "list"), (dict(metric="brier", keys=["acme"]), "by name"), (dict(tuned="many"), "not a number")])
def test_a_plan_that_cannot_be_says_what_to_do(project, change, said):
    with pytest.raises(BadInput, match=said): rollout.start(**{**dict(name="delays", version=2, reason="new"), **change})
    assert rollout.running("delays") is None

def test_only_what_passed_its_gates_and_is_whole_gets_traffic(project):
    with pytest.raises(GateClosed, match="kept out by auc"): rollout.start("delays", 4, "new")
    plan = rollout.start("delays", 4, "we know", force=True)
    assert rollout.running("delays").steps[0]["despite"] == ["auc"]
    rollout.halt("delays", "no")
    df, _ = flights()
    version = register("delays", fitted(8), df.head(20))
    next(models.files("delays", version).glob("model*")).write_bytes(b"another")
    with pytest.raises(BadInput, match="changed after it was registered"): rollout.start("delays", version, "new")

def test_a_second_plan_is_refused_and_of_many_at_once_one_begins(project):
    with ThreadPoolExecutor(4) as pool: made = [pool.submit(lambda: rollout.start("delays", 2, "new")) for _ in range(4)]
    errors = [m.exception() for m in made]
    assert sum(e is None for e in errors) == 1 and all("halt or promote it first" in str(e) for e in errors if e)
    with pytest.raises(BadInput, match="no roll-out"): rollout.halt("delay", "x")

def test_who_takes_charge_meanwhile_ends_the_plan(project):
    rollout.start("delays", 2, "new")
    models.promote("delays", 4, "by hand", force=True)
    assert rollout.state("delays").over == "promote" and rollout.running("delays") is None
    with pytest.raises(BadInput, match="ended with promote"): rollout.promote("delays", "mine")
    models.promote("delays", 1, "back")
    old = rollout.start("delays", 2, "new")
    rollout.halt("delays", "no")
    rollout.start("delays", 4, "another", force=True)
    assert not rollout.halt("delays", "late", plan=old.id) and rollout.running("delays").plan.version == 4
    with pytest.raises(Busy, match="another roll-out"): rollout.promote("delays", "late", plan=old.id)
    for share in (0, 1, -.1, "half"):
        with pytest.raises(BadInput, match="share"): rollout.ramp("delays", share, "x")

def test_a_look_at_the_log_halts_what_has_lost_and_promotes_only_when_told(project):
    r, n = np.random.default_rng(2), 4000
    truth, y = r.random(n), None
    y = (r.random(n) < truth).astype(int)
    noisy = lambda sd: np.clip(truth + r.normal(0, sd, n), .01, .99)
    def log(old, new):
        at = pd.Timestamp(rollout.running("delays").steps[0]["at"]) + pd.to_timedelta(np.arange(n), "ms")
        base = pd.DataFrame(dict(id=np.arange(n).astype(str), at=at, key=np.arange(n) % 900, outcome=y))
        return pd.concat([base.assign(version=1, role="answer", outputs=old), base.assign(version=2, role="shadow", outputs=new)])
    later = pd.Timestamp.now("UTC") + pd.Timedelta("1h")
    rollout.start("delays", 2, "new", "shadow", metric="brier")
    assert rollout.decide("delays", log(noisy(.3), noisy(.3)), now=later).action == "go on" and rollout.running("delays")
    good = log(noisy(.3), noisy(.1))
    assert rollout.decide("delays", good, now=later).action == "promote" and models.in_charge("delays") == 1
    assert "rollout promote delays" in rollout.status("delays", good, later) and (rollout.curve(rollout.running("delays"), good, now=later)["lo"].iloc[-1] > 0)
    told = rollout.decide("delays", good, winner=True, now=later)
    assert models.in_charge("delays") == 2 and rollout.running("delays") is None
    last = ledger.events("promote", "delays").iloc[-1].detail
    assert last["evidence"]["lo"] == told.interval.lo > 0 and last["before"] == 1 and "better" in last["reason"] and last["rollout"] == "shadow"
    assert rollout.rollback("delays", "no") == 1
    rollout.start("delays", 2, "again", "shadow", metric="brier")
    assert rollout.decide("delays", log(noisy(.1), noisy(.3)), now=later).action == "halt" and rollout.state("delays").steps[-1]["by"] == "verdict"
    assert {"scores that are no numbers", "distance of the scores"} <= {*ledger.findings("delays")["check"]}

# --- figures ---

def test_the_false_promotion_rate_of_equal_pairs_and_the_power_against_a_fixed_test():
    bench = load_bench("ab")
    naive, ours = bench.looks("naive", 0., sims=300), bench.looks("asymptotic", 0., sims=300)
    assert naive["promoted"] + naive["halted"] > .2 and ours["promoted"] <= .05 and ours["promoted"] + ours["halted"] <= .08
    assert bench.looks("asymptotic", .05, sims=100)["promoted"] > .9
    rare = bench.looks("asymptotic", 0., sims=200, rate=.01, share=.1)
    assert rare["promoted"] + rare["halted"] <= .06
    assert bench.looks("exact", 0., sims=60, rows=2000)["promoted"] <= .07

def test_losses_are_those_of_scikit_learn_and_logs_of_both_forms_are_read():
    from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error, zero_one_loss
    r = np.random.default_rng(0)
    p, y, three, k = r.random(300), r.integers(0, 2, 300), r.dirichlet([1, 1, 1], 300), r.integers(0, 3, 300)
    for metric, theirs in dict(brier=brier_score_loss(y, p), log_loss=log_loss(y, p), error=zero_one_loss(y, p > .5), squared=mean_squared_error(y, p), absolute=mean_absolute_error(y, p)).items(): assert np.isclose(losses(metric, p, y).mean(), theirs)
    assert np.isclose(losses("log_loss", scores(pd.Series(list(three))), k).mean(), log_loss(k, three, labels=[0, 1, 2]))
    with pytest.raises(BadInput, match="numbers of classes"): losses("brier", p, y*2)
    for odd in (["late", "fine"], [1., np.inf]):
        with pytest.raises(BadInput, match="is no number"): losses("squared", p[:2], pd.Series(odd))
    with pytest.raises(BadInput, match="neither numbers"): scores(pd.Series(["late", "fine"]))
    window = pd.DataFrame(dict(item=["a", "b"], happened=0, scored_at=pd.Timestamp("2026-01-01"), model_version=[1, 2], role="answer", route_key="k", latency_ms=1., score=[np.nan, np.nan], outputs=["[0.2, 0.3, 0.5]", "[0.1, 0.1, 0.8]"], label=[1., np.nan]))
    assert list(scores(named(window)["outputs"])[:, 2]) == [.5, .8] and {"id", "at", "version", "key", "ms", "outcome"} <= {*named(window)}

def test_logs_that_say_nothing_or_nonsense():
    s = State(Plan("m", 2, 1, "ab", .5, metric="brier", id="x"), (dict(no=1, at="2026-01-01T00:00:00+00:00", actor="a", step="start", share=.5, reason="r"),))
    empty = pd.DataFrame(dict(id=[], at=[], version=[], role=[], outputs=[]))
    assert verdict(s, empty).action == "go on"
    with pytest.raises(BadInput, match="no column 'role'"): verdict(s, empty.drop(columns="role"))
    one = pd.DataFrame(dict(id=["a"], at=[pd.Timestamp("2026-01-02")], version=[2], role="answer", outputs=[.5], key="k", outcome=[1.]))
    assert verdict(s, one).action == "go on" and "too few" in verdict(s, one).reason
    assert verdict(s, one.assign(version=7)).rows == 0       # of another version
    with pytest.raises(BadInput, match="not finite"): sequential.paired([1., np.nan])
    with pytest.raises(BadInput, match="outside"): sequential.bounded([2.], 0, 1)

def test_the_exact_interval_is_that_of_the_authors_formula_step_by_step():
    "Hedged capital, written out row by row as in the paper."
    r = np.random.default_rng(1)
    x = (r.random(80) < .7).astype(float)
    def capital(m, side):
        s, q, log, best = .5, .25, 0., 0.
        for t, v in enumerate(x, 1):
            bet = np.sqrt(2*np.log(2/.05)/((q/t if t > 1 else .25)*t*np.log(t + 1)))
            log += np.log(1 + side*min(bet, .5/(m if side > 0 else 1 - m))*(v - m))
            s += v
            q += (v - s/(t + 1))**2
            best = max(best, log)
        return best
    grid = np.linspace(.001, .999, 999)
    inside = [m for m in grid if capital(m, 1) < np.log(2/.05) and capital(m, -1) < np.log(2/.05)]
    told = sequential.bounded(x, 0, 1)
    assert abs(told.lo - inside[0]) < .002 and abs(told.hi - inside[-1]) < .002
