"The registry away and back, decisions of any kind of model, approval by policy, two at once."
import getpass, json, multiprocessing, os, signal, subprocess, sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression

from conftest import cli, free_port, one_line, wait_until
from mlops_nb.core import ledger
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput, Busy, Finding, GateClosed
from mlops_nb.registry import contest, gates, models
from mlops_nb.registry.contest import Candidate
from mlops_nb.train import track
from mlops_nb.train.goal import Goal
from mlops_nb.train.splits import split

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X = X[["mean radius", "mean texture"]]

@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    yield tmp_path
    ledger.close()

@pytest.fixture
def fitted(): return LogisticRegression().fit(X, y)

def policy(folder, **keys): (folder/"settings.ini").write_text("[mlops_nb]\n[policy]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()))

# --- a server that goes away ---

def serve(folder, port):
    "A real MLflow server on this machine."
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/served"]
    p = subprocess.Popen(words, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until("MLflow server", track.reachable, p)
    return p

def stop(p):
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()

@pytest.fixture
def server(project, monkeypatch):
    port, running = free_port(), []
    monkeypatch.setenv("MLOPS_NB_TRACKING_URI", f"http://127.0.0.1:{port}")
    def start():
        running.append(p := serve(project, port))
        return p
    yield start
    for p in running:
        if p.poll() is None: stop(p)

def test_work_waits_for_a_server_that_is_away_and_is_sent_once(project, server, fitted, capfd):
    "Registered, served, away, kept, back, sent: nothing is lost, nothing is there twice, and who made it is known."
    first = server()
    v1 = models.register(fitted, "tumours", X.head(), {"C": 1}, {"auc": .9})
    models.promote("tumours", v1.version, "first")
    expected, _ = models.load("tumours")
    stop(first)

    away = models.register(fitted, "tumours", X.head(), {"C": 2}, {"auc": .95}, {"purpose": "night shift"}, files={"note.txt": "kept too"})
    assert away.version == 0 and len(track.waiting()) == 1 and "does not answer: the run is kept" in capfd.readouterr().out
    loaded, version = models.load("tumours")                                  # this machine has served it, and goes on
    assert version == 1 and (loaded.predict_proba(X) == expected.predict_proba(X)).all()
    for call in (lambda: models.promote("tumours", 1, "again"), lambda: models.champion("tumours"), models.send):
        with pytest.raises(Busy, match="does not answer"): call()
    held = Candidate(away, fitted, X.assign(label=y), [], fitted.predict_proba(X)[:, 1], by_time=False)
    outcome = contest.decide(held, Goal(), checks=[lambda c: [Finding("odds", "sex", .2, .1, ok=False, note="asked by the caller")]])
    assert outcome.action == "wait" and outcome.champion == 1 and "mlops-nb send" in outcome.reason
    waits = models.history("tumours").iloc[-1]
    assert waits.action == "wait" and "did not answer" in waits.reason and "mlops-nb send" in waits.reason
    one_line(cli("send"), 75, "does not answer")

    server()
    done = cli("send", "--json")
    assert done.returncode == 0 and [(s["model"], s["version"]) for s in json.loads(done.stdout)] == [("tumours", 2)], done.stderr
    assert track.waiting() == [] and contest.undecided() == [] and contest.send() == []
    assert json.loads(done.stdout)[0]["decision"].startswith("keep: asked by the caller (odds 0.2, limit 0.1)") and ledger.events("keep", "tumours").detail[0]["challenger"] == 2
    assert [(e.action, e.version) for e in models.history("tumours").itertuples()][2:] == [("wait", 2), ("register", 2), ("send", 2), ("keep", 2)]
    assert sorted(models.versions("tumours")) == [1, 2] and models.search("purpose = 'night shift'").version.tolist() == [2]
    run = models.registered("tumours", 2)["mlflow_run"]
    assert {f.path for f in track.tracking().list_artifacts(run)} >= {"note.txt"} and track.tracking().get_run(run).data.metrics == {"auc": .95}
    assert ledger.lineage("model", "tumours", 2)[0]["run"] == ledger.lineage("model", "tumours", 1)[0]["run"]   # of the run that trained it, not of the one that sent it
    assert (models.load("tumours", 2)[0].predict_proba(X) == fitted.predict_proba(X)).all()

@pytest.mark.filterwarnings("ignore")
def test_a_contest_that_had_to_wait_is_held_before_the_next_one(project, capfd, monkeypatch):
    "Two nights away: each candidate meets whoever is in charge by then, once, and a killed sender holds none twice."
    df, goal, estimator = KINDS["words"]
    candidate = lambda **how: contest.train(df, "m", goal, holdout=drawn(len(df)), estimator="sklearn.tree.DecisionTreeClassifier", random_state=0, **how)
    with settings_for(project, tracking_uri="http://127.0.0.1:9"):
        for depth in (1, 3): assert contest.decide(candidate(max_depth=depth), goal).action == "wait"
    models.register(LogisticRegression().fit(X, y), "other", X.head(), {}, {})                     # sends them, and decides nothing
    assert models.in_charge("m") is None and "not compared with the champion yet: `mlops-nb send`" in models.history("m").reason.tolist()[-1]
    class Killed(BaseException): pass
    def die(*_): raise Killed
    with monkeypatch.context() as patch:                                                           # after the decision, before its folder is gone
        patch.setattr(contest.shutil, "rmtree", die)
        with pytest.raises(Killed): contest.send()
    assert models.in_charge("m") == 1
    out = contest.decide(candidate(max_depth=3), goal)
    assert "version 2 promote: gains" in capfd.readouterr().out and out.champion == 2 and contest.undecided() == []
    told = [(e.action, e.version) for e in models.history("m").itertuples() if e.action in ("promote", "keep")]
    assert told == [("promote", 1), ("promote", 2), ("keep", 3)]

def test_a_sender_that_is_killed_sends_nothing_twice(project, fitted, monkeypatch):
    with settings_for(project, tracking_uri="http://127.0.0.1:9"): models.register(fitted, "tumours", X.head(), {}, {"auc": .9})
    class Killed(BaseException): pass
    def die(*_): raise Killed
    for name in ("_registered", "_name"):
        with monkeypatch.context() as m:
            m.setattr(models, name, die)
            with pytest.raises(Killed): models.send()
    with monkeypatch.context() as m:                                           # after the version, before the ledger
        m.setattr(models, "wrote", die)
        with pytest.raises(Killed): models.send()
    assert [s["error"] for s in models.send()] == [""]
    runs = track.tracking().search_runs([track.experiment("tumours")])
    assert len(runs) == 1 and len(models.versions("tumours")) == 1 and len(ledger.events("register", "tumours")) == 1

def test_a_waiting_model_that_somebody_changed_is_not_sent(project, fitted):
    with settings_for(project, tracking_uri="http://127.0.0.1:9"): models.register(fitted, "tumours", X.head(), {}, {})
    folder, = track.waiting()
    (folder/"model/requirements.txt").write_text("something-else")
    sent, = models.send()
    assert "were changed after it was registered" in sent["error"] and track.waiting() == [folder] and models.versions("tumours") == {}
    models.register(fitted, "tumours", X.head(), {}, {})                       # and it does not stand in the way of others
    assert sorted(models.versions("tumours")) == [1]

# --- decisions of any kind of model ---

def drawn(n, seed=0):
    order = np.random.default_rng(seed).permutation(n)
    return SimpleNamespace(train=order[n//3:], test=order[:n//3], how="random", findings=())

def rows(loader, label=lambda v: v):
    df = loader(as_frame=True).frame
    df = df.rename(columns={"target": "label"}).assign(label=lambda d: d.label.map(label), id=range(len(df)))
    df.attrs = {"item": "id"}
    return df

NAMES = {0: "barolo", 1: "grignolino", 2: "barbera"}
KINDS = {"words": (rows(load_breast_cancer, {0: "malignant", 1: "benign"}.get), Goal(minimum=.6), "sklearn.linear_model.LogisticRegression"),
         "numbers": (rows(load_diabetes), Goal(metric="r2", minimum=0., baseline=-1.), "sklearn.linear_model.Ridge"),
         "several words": (rows(load_wine, NAMES.get), Goal(metric="accuracy", minimum=.4, baseline=.3), "sklearn.linear_model.LogisticRegression")}

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_contest_of_any_answer_without_a_time(project, kind):
    df, goal, estimator = KINDS[kind]
    first = contest.train(df, "m", goal, holdout=drawn(len(df)), estimator=estimator)
    assert first.scores.ndim == (2 if kind == "several words" else 1) and contest.decide(first, goal).action == "promote"
    model, _ = models.load("m")
    assert set(model.predict(df.drop(columns="label"))) <= set(df.label) or kind == "numbers"

@pytest.mark.filterwarnings("ignore")
def test_a_holdout_the_champion_has_learned_from_decides_nothing(project):
    df, goal, estimator = KINDS["words"]
    contest.decide(contest.train(df, "m", goal, holdout=drawn(len(df)), estimator=estimator), goal)
    met = contest.decide(contest.train(df, "m", goal, holdout=SimpleNamespace(**{**vars(drawn(len(df))), "test": drawn(len(df)).train[:50]}), estimator=estimator), goal)
    assert met.action == "keep" and "has learned from 50 of the 50 rows" in met.reason and met.comparison is None
    other = df.assign(label=df.label.map({"malignant": "bad", "benign": "good"}))
    other.attrs = df.attrs
    assert "answers with other words" in contest.decide(contest.train(other, "m", goal, holdout=drawn(len(df)), estimator=estimator), goal).reason

def test_what_cannot_be_judged_is_said_before_it_is_registered(project):
    df, goal, estimator = KINDS["several words"]
    rare = df.assign(label=df.label.where(df.index != 0, "nebbiolo"))
    split = SimpleNamespace(train=np.arange(1, len(df)), test=np.r_[0, np.arange(60, 120)], how="random", findings=())
    with pytest.raises(BadInput, match="the answer 'nebbiolo', which is not among those that were learned"): contest.train(rare, "m", goal, holdout=split, estimator=estimator)
    with pytest.raises(BadInput, match="pass time='...'"): contest.train(df, "m", goal, estimator=estimator)
    assert ledger.rows("event", action="register") == []

def test_leaks_of_the_split_and_checks_of_the_caller_close_the_gate(project):
    df, goal, estimator = KINDS["numbers"]
    leak = Finding("same_key", "id", .3, 0., ok=False, note="30 % of the holdout was learned from")
    split = SimpleNamespace(**{**vars(drawn(len(df))), "findings": (leak,)})
    out = contest.decide(contest.train(df, "m", goal, holdout=split, estimator=estimator), goal, checks=[lambda c: [Finding("equalised_odds", "sex", .2, .1, ok=False, note="women are found less often")]])
    assert out.action == "keep" and leak.note in out.reason and "women" in out.reason
    assert ledger.events("keep", "m").detail[0]["closed"] == ["same_key", "equalised_odds"]

def test_a_slice_that_pays_for_the_gain_closes_the_gate(project):
    "A challenger that is better on average and surely worse for one carrier."
    rng, n = np.random.default_rng(0), 12_000
    truth, part = rng.normal(size=n), rng.choice(["AA", "UA"], n, p=[.8, .2])
    answer = (truth + rng.normal(size=n) > 0).astype(int)
    old, new = truth + rng.normal(size=n)*.7, truth + rng.normal(size=n)*np.where(part == "AA", .1, 3.)
    squash = lambda s: 1/(1 + np.exp(-s))
    frame = pd.DataFrame({"carrier": part})
    asked = SimpleNamespace(slices=(), slice_rows=500)
    duels = contest._duels(frame, answer, squash(old), squash(new), None, asked, {})
    assert set(duels) == {"carrier=AA", "carrier=UA"}
    assert [f.subject for f in gates.no_worse("v2", duels, .02) if not f.ok] == ["v2 on carrier=UA"]
    with pytest.raises(BadInput, match="slices names 'carier'"): contest._duels(frame, answer, old, new, None, SimpleNamespace(slices=("carier",), slice_rows=500), {})

def test_no_slice_is_blamed_by_chance(project):
    "Two models that differ by noise alone, 10 slices, 30 tables: the gate may close wrongly once in twenty."
    wrong = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        truth, part = rng.normal(size=4000), rng.integers(0, 10, 4000).astype(str)
        answer = (truth + rng.normal(size=4000) > 0).astype(int)
        p = [1/(1 + np.exp(-(truth + rng.normal(size=4000)))) for _ in range(2)]
        duels = contest._duels(pd.DataFrame({"part": part}), answer, *p, None, SimpleNamespace(slices=("part",), slice_rows=300), {})
        wrong += any(not f.ok for f in gates.no_worse("v2", duels, 0.))
    assert wrong <= 5   # 30 at 5 %: more than 5 in one of 300 such tests

@pytest.mark.filterwarnings("ignore")
def test_groups_that_are_not_treated_alike_close_the_gate(project):
    "Of one clinic everything is called benign."
    df, goal, estimator = KINDS["words"]
    clinic = np.where(np.arange(len(df)) % 2, "north", "south")
    skewed = df.assign(clinic=clinic, **{"mean radius": df["mean radius"].where(clinic == "north", 5.)})[["clinic", "mean radius", "id", "label"]]
    skewed.attrs = df.attrs
    policy(project, groups="clinic", max_difference="0.05", group_rows="30")
    out = contest.decide(contest.train(skewed, "m", goal, holdout=drawn(len(df)), estimator="sklearn.tree.DecisionTreeClassifier", max_depth=2), goal)
    assert out.action == "keep" and any(f.subject.startswith("clinic: ") and not f.ok for f in out.findings)
    policy(project, groups="clinik")
    with pytest.raises(BadInput, match="groups names 'clinik'"): contest.decide(contest.train(skewed, "m", goal, holdout=drawn(len(df)), estimator=estimator), goal)

# --- policy ---

@pytest.mark.filterwarnings("ignore")
def test_a_good_challenger_waits_for_an_approval(project, fitted):
    df, goal, estimator = KINDS["words"]
    policy(project, approval=f"{getpass.getuser()}, ann")
    out = contest.decide(contest.train(df, "m", goal, holdout=drawn(len(df)), estimator=estimator), goal)
    assert out.action == "propose" and models.in_charge("m") is None
    with pytest.raises(GateClosed, match="waits for the approval of"): models.promote("m", 1, "by hand")
    done = cli("approve", "m", "1", "--reason", "seen in the ward", "--json")
    assert json.loads(done.stdout)[0]["champion"] == 1, done.stderr
    assert list(models.history("m").action) == ["register", "propose", "approve", "promote"] and "seen in the ward" in models.history("m").reason.iloc[-1]
    policy(project, approval="ann")
    one_line(cli("approve", "m", "1", "--reason", "x"), 2, "is not one of those who approve (ann)")
    models.register(fitted, "m", X.head(), {}, {})
    one_line(cli("promote", "m", "2", "--reason", "x"), 3, "approval of m version 2: nobody")
    policy(project)
    models.promote("m", 2, "nobody is asked")
    policy(project, approval="ann")
    assert models.rollback("m", "alarms") == 1                                 # going back asks nobody

def test_an_approval_of_what_was_compared_with_another_champion_is_refused(project, fitted):
    policy(project, approval=getpass.getuser())
    for _ in range(3): models.register(fitted, "m", X.head(), {}, {})
    for version in (2, 3): ledger.event("propose", "m", version=version, before=None, reason="better")
    assert models.approve("m", 2, "yes") and models.in_charge("m") == 2
    with pytest.raises(Busy, match="version 2 of 'm' took charge while version 3 was compared with nobody"): models.approve("m", 3, "yes")

def test_limits_of_the_policy_close_the_gate(project, fitted):
    policy(project, max_latency_ms="0.0001", max_size_mb="0.00001", lineage="true")
    v = models.register(fitted, "m", X.head(), {}, {})
    out = contest.decide(contest.Candidate(v, fitted, X.assign(label=y), []), Goal())
    assert out.action == "keep" and ledger.events("keep", "m").detail[0]["closed"] == ["latency_ms", "size_mb", "lineage"]

@pytest.mark.parametrize("line, said", [("aproval = ann", "did you mean 'approval'"), ("max_size_mb = big", "is not a number of 0 or more"), ("lineage = 1", "neither true nor false")])
def test_a_policy_that_cannot_be_is_refused(project, line, said):
    (project/"settings.ini").write_text(f"[mlops_nb]\n[policy]\n{line}\n")
    with pytest.raises(BadInput, match=said): models.policy.policy()

# --- two at once, in processes of their own ---

def _promote(root, version, gate, told):
    os.environ["MLOPS_NB_ROOT"] = root
    track.tracking()
    gate.wait()
    try: models.promote("m", version, "better than 1", over=1)
    except Busy as e: told.put(str(e))
    else: told.put(version)

def test_of_two_processes_one_wins_and_the_other_is_told(project, fitted):
    for _ in range(3): models.register(fitted, "m", X.head(), {}, {})
    models.promote("m", 1, "first")
    spawn = multiprocessing.get_context("spawn")
    gate, told = spawn.Barrier(2), spawn.Queue()
    both = [spawn.Process(target=_promote, args=(str(project), v, gate, told)) for v in (2, 3)]
    for p in both: p.start()
    answers = [told.get(timeout=120) for _ in both]
    for p in both: p.join()
    winner, loser = sorted(answers, key=lambda a: isinstance(a, str))
    assert models.in_charge("m") == models.champion("m").version == winner and f"version {winner} of 'm' took charge while" in loser
    assert ledger.events("promote", "m").detail.map(lambda d: d["version"]).tolist() == [1, winner]

# --- search ---

def test_search_from_the_command_line(project, fitted):
    models.register(fitted, "m", X.head(), {"C": 1}, {"auc": .9}, {"owner": "operations"})
    models.register(fitted, "m", X.head(), {"C": 2}, {"auc": .8}, {"owner": "risk"})
    done = cli("search", "owner = operations", "auc >= .85", "--show", "C", "--json")
    assert [(r["version"], r["parameters.C"]) for r in json.loads(done.stdout)] == [(1, 1)], done.stderr
    one_line(cli("search", "ownr = x"), 2, "did you mean", "owner")
    one_line(cli("search", "owner"), 2, "is not a comparison")
    one_line(cli("history", "n"), 2, "nothing ever happened to a model 'n'")
    assert json.loads(cli("history", "m", "--json").stdout)[1]["action"] == "register"

# --- what a second reader found ---

def test_by_hand_as_by_contest(project, capsys):
    "A version that gates kept out takes charge only by force, which is written down; two rollbacks go back twice."
    from mlops_nb.cli.cli import main
    X = pd.DataFrame({"a": [0., 1, 2, 3]})
    for _ in range(4): models.register(LogisticRegression().fit(X, [0, 0, 1, 1]), "hand", X, {}, {})
    for v in (1, 2, 3): models.promote("hand", v, "first")
    ledger.event("keep", "hand", version=3, challenger=4, reason="too weak", closed=["roc_auc"])
    with pytest.raises(GateClosed, match="kept out by roc_auc"): models.promote("hand", 4, "I like it")
    assert main(["promote", "hand", "4", "--reason", "x"]) == 3 and "--force" in capsys.readouterr().err
    assert main(["promote", "hand", "4", "--reason", "x", "--force"]) == 0 and ledger.events("promote", "hand").detail.iloc[-1]["despite"] == ["roc_auc"]
    assert [models.rollback("hand", "alarms") for _ in range(3)] == [3, 2, 1]
    with pytest.raises(BadInput, match="no version in charge before"): models.rollback("hand", "alarms")

def test_the_key_is_not_learned_and_misfits_are_said_first(project):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"pid": np.arange(1500), "a": rng.normal(size=1500), "label": np.repeat([0, 1], 750)})
    frame.attrs = {"item": "pid"}
    some = split(frame, "label", "random", key="pid")
    candidate = contest.train(frame, "noise", Goal(minimum=.6), holdout=some)
    assert contest.decide(candidate, Goal(minimum=.6)).action == "keep" and "pid" not in candidate.model.feature_names_in_
    for goal, words in ((Goal(metric="mae", baseline=2., minimum=1.), "metric mae is for regression"), (Goal(segments="shp=* minimum 0.6"), "segments names .shp."), (Goal(minimum=float("nan")), "minimum = nan")):
        with pytest.raises(BadInput, match=words): contest.train(frame, "never", goal, holdout=some)
    with pytest.raises(BadInput, match="time names 'typo'"): contest.train(frame, "never", Goal(), "typo", some)

@pytest.mark.parametrize("where", ["roc_auc => 0.6", "roc_auc == 0.6"])
def test_a_comparison_that_is_none(project, where):
    with pytest.raises(BadInput, match="the comparisons are"): models.search(where)

def test_a_ranker_competes_by_its_lists(project):
    pytest.importorskip("lightgbm")
    rng, goal = np.random.default_rng(0), Goal(metric="ndcg@5", baseline=.3, minimum=.4)
    frame = pd.DataFrame({"id": np.arange(2400), "query": np.arange(2400)//12, "a": rng.normal(size=2400), "shop": rng.choice(["x", "y"], 2400)})
    frame["label"] = np.clip((frame["a"]*1.5 + rng.normal(size=2400)).round() + 2, 0, 4).astype(int)
    frame.attrs = {"item": "id"}
    cut, found = split(frame, "label", "group", group="query"), []
    for trees in (5, 40): found.append(contest.decide(contest.train(frame, "order", goal, "", cut, "lightgbm.LGBMRanker", training={"group": "query"}, n_estimators=trees), goal))
    assert [f.action for f in found] == ["promote", "keep"] and found[1].comparison.metric == "ndcg@5" and "ndcg_at_5" in models.leaderboard("order").columns
    with pytest.raises(BadInput, match="training={'group'"): contest.train(frame, "order", goal, "", cut, "lightgbm.LGBMRanker")
    from mlops_nb.train import evaluate
    with pytest.raises(BadInput, match="pass lists="): evaluate.metrics(frame["label"], frame["a"], asked="ndcg@5")
