"The server while versions come and go: switches, the log, the end, a roll-out, a registry that is gone, models that must not serve."
import asyncio, json, os, signal, socket, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np, pandas as pd, pytest

from conftest import cli, wait_until
from test_serve import Server, fitted, flights, register, registry, row, rows, split, started

# --- versions come and go ---

LOGGED = """
import asyncio, json, os, sys, time
from mlops_nb.serve.limits import Serving
from mlops_nb.serve.server import run

class Log:
    "One line a request; `full` in its folder makes it fail."
    def __init__(self): self.folder, self.file = sys.argv[1], open(f"{sys.argv[1]}/log.jsonl", "a")
    async def put(self, records):
        if os.path.exists(f"{self.folder}/full"): raise OSError(28, "No space left on device")
        at = 0
        for r in records:
            for t, n in zip(r.tickets, r.counts): self.file.write(json.dumps(dict(id=t.id, role=t.role, key=t.key, flight=t.extra.get("flight"), version=r.version, rows=n, score=[float(p[1]) for p in r.predictions[at:at + n]])) + "\\n"); at += n
            at = 0
        self.file.flush(); os.fsync(self.file.fileno())
        await asyncio.sleep(.001)
    def close(self): self.file.write(json.dumps("closed") + "\\n"); self.file.close()

class Router:
    "Keys that begin with c go to version 2, and every row is shadowed by the other one."
    def versions(self, name): return (1, 2)
    def route(self, name, key): return (2, 1) if key.startswith("c") else None

if __name__ == "__main__": run("delays", Serving(access="", keys=("flight",)), port=0, log=Log, router=Router if "router" in sys.argv else None, told=lambda said: print(said, flush=True))
"""

@pytest.fixture
def logged(registry, tmp_path):
    (tmp_path/"logged.py").write_text(LOGGED)
    made = []
    def start(*words):
        made.append(s := Server(sys.executable, str(tmp_path/"logged.py"), str(tmp_path), *words))
        wait_until("an answer", s.up, s.process, 120)
        s.lines = lambda: [json.loads(l) for l in (tmp_path/"log.jsonl").read_text().splitlines()]
        return s
    yield start
    for s in made: s.close()

def test_a_hot_switch_under_load_fails_nobody_and_no_answer_mixes_versions(logged, registry):
    from mlops_nb.core.config import settings_for
    from mlops_nb.registry import models
    server, done, got = logged(), threading.Event(), []
    body = dict(dataframe_split=split(rows(20)))
    with settings_for(registry): expected = {str(v): models.load("delays", v)[0].predict_proba(rows(20)) for v in (1, 2)}
    def ask():
        while not done.is_set(): got.append((time.monotonic(), *server.score(body)))
    with settings_for(registry), ThreadPoolExecutor(4) as pool:
        for _ in range(4): pool.submit(ask)
        took = []
        try:
            for to in (2, 1, 2, 1):
                models.promote("delays", to, "switch")
                at = time.monotonic()
                wait_until("the switch", lambda: got and got[-1][3].get("x-model-version", got[-1]) == str(to), seconds=30)
                took.append(time.monotonic() - at)
                time.sleep(.2)
        finally: done.set()
    assert len(got) > 50 and {s for _, s, _, _ in got} == {200} and sorted(took)[1] < 5
    assert all(np.allclose(said["predictions"], expected[h["x-model-version"]], rtol=0, atol=1e-12) for _, _, said, h in got)
    lines = server.lines()
    assert len(lines) == len(got) == len({l["id"] for l in lines}) and {(l["id"], str(l["version"])) for l in lines} == {(h["x-request-id"], h["x-model-version"]) for _, _, _, h in got}

def test_what_is_answered_is_in_the_log_and_a_full_disk_refuses(logged, tmp_path):
    server = logged()
    with ThreadPoolExecutor(8) as pool: got = list(pool.map(lambda i: server.score(dict(dataframe_records=[row(flight=f"F{i}"), row(hour=i % 24, flight=f"G{i}")]), x_request_id=f"r-{i}"), range(60)))
    lines = {l["id"]: l for l in server.lines()}
    assert all(s == 200 and [p[1] for p in said["predictions"]] == lines[f"r-{i}"]["score"] and lines[f"r-{i}"]["flight"] == [f"F{i}", f"G{i}"] for i, (s, said, _) in enumerate(got))
    (tmp_path/"full").touch()
    status, said, heads = server.score(dict(dataframe_records=[row()]))
    assert status == 503 and said["field"] == "log" and heads["retry-after"] and "errno" not in str(said).lower() and server.metric("mlops_log_failures_total") == 1
    (tmp_path/"full").unlink()
    assert server.score(dict(dataframe_records=[row()]))[0] == 200

def test_an_end_in_the_middle_answers_what_was_begun_and_closes_the_log(logged):
    server = logged()
    def ask(i):
        try: return server.score(dict(dataframe_split=split(rows(300))), x_request_id=f"e-{i}")[0]
        except OSError: return None
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, i) for i in range(200)]
        time.sleep(.3)
        server.process.send_signal(signal.SIGTERM)
        got = [a.result() for a in asked]
    assert server.process.wait(30) in (0, -signal.SIGTERM) and set(got) <= {200, None} and 200 in got
    assert server.lines()[-1] == "closed" and {f"e-{i}" for i, s in enumerate(got) if s == 200} == {l["id"] for l in server.lines()[:-1]}

def test_a_roll_out_routes_by_key_and_shadows_without_being_heard(logged):
    server, body = logged("router"), dict(dataframe_records=[row()])
    assert [server.score(body, x_route_key=k)[2]["x-model-version"] for k in ("c1", "a1", "c1")] == ["2", "1", "2"]
    wait_until("shadows", lambda: len(server.lines()) == 5)
    assert sorted((l["version"], l["role"]) for l in server.lines() if l["key"] == "c1") == [(1, "shadow")]*2 + [(2, "answer")]*2

def test_the_registry_goes_down_and_the_last_good_model_goes_on(local):
    import sqlite3
    from mlops_nb.registry import models
    df, _ = flights()
    for seed in (0, 3): register("delays", fitted(seed), df.head(20))
    models.promote("delays", 1, "first")
    server, db = started("delays"), local/".mlops/mlflow.db"
    try:
        wait_until("an answer", server.up, server.process, 120)
        assert server.metric("mlops_registry_up") == 1
        def rename(a, b):
            with sqlite3.connect(db, timeout=20) as c: c.execute(f"ALTER TABLE {a} RENAME TO {b}")
            c.close()
        rename("registered_model_aliases", "gone")
        wait_until("a word about it", lambda: server.metric("mlops_registry_up") == 0, seconds=30)
        assert all(server.score(dict(dataframe_records=[row()]))[0] == 200 for _ in range(20)) and "does not answer" in server.ask("POST", "/admin/reload")[1]["delays"]["trouble"]
        rename("gone", "registered_model_aliases")
        wait_until("the registry", lambda: server.metric("mlops_registry_up") == 1, seconds=30)
        models.promote("delays", 2, "better")
        wait_until("the switch", lambda: server.score(dict(dataframe_records=[row()]))[2]["x-model-version"] == "2", seconds=30)
    finally: server.close()

# --- models that must not, or cannot, serve ---

def test_what_cannot_serve_is_told_before_it_listens_to_anybody(registry, local):
    from mlops_nb.core.finding import BadInput
    from mlops_nb.registry import models
    from mlops_nb.serve.limits import Serving
    from mlops_nb.serve.server import run
    df, _ = flights()
    with pytest.raises(BadInput, match="there is no model 'delays'"): run("delays", port=0, told=lambda said: None)
    register("delays", fitted(0), df.head(20), "champion")
    folder = Path(models.files("delays", 1))
    before = (folder/"requirements.txt").read_text()
    (folder/"requirements.txt").write_text(f"{before}\nscikit-learn==0.1.0\n")
    with pytest.raises(BadInput, match="were changed after it was registered"): run("delays", port=0, told=lambda said: None)
    from mlops_nb.core import ledger
    from mlops_nb.train import persistence
    fact = ledger.events("register", "delays").detail.iloc[0]
    ledger.event("register", "delays", **{**fact, "sha256": persistence.checksum(folder)})
    with pytest.raises(BadInput, match="environment of scikit-learn"): run("delays", port=0, told=lambda said: None)
    with socket.create_server(("127.0.0.1", 0)) as s, pytest.raises(BadInput, match="cannot listen"): run("delays", port=s.getsockname()[1], told=lambda said: None)

def test_models_of_other_kinds_are_answered_as_mlflow_answers_them(local):
    import mlflow
    from mlflow.models import infer_signature
    from mlops_nb.core.finding import BadInput
    from mlops_nb.train.persistence import quiet
    from mlops_nb.train.track import experiment, tracking
    from sklearn.linear_model import LinearRegression
    tracking()
    mlflow.set_experiment(experiment_id=experiment("kinds"))
    X = np.arange(12.).reshape(6, 2)
    class Named(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None): return pd.DataFrame({"twice": model_input["x"]*2, "said": [(params or {}).get("word", "no")]*len(model_input)})
    with quiet():
        for name, save in dict(tensor=lambda n: mlflow.sklearn.log_model(LinearRegression().fit(X, X[:, 0]), name=n, registered_model_name=n, signature=infer_signature(X, X[:, 0]), pip_requirements=[], serialization_format="cloudpickle"),
                               named=lambda n: mlflow.pyfunc.log_model(name=n, python_model=Named(), registered_model_name=n, signature=infer_signature(pd.DataFrame({"x": [1.]}), params={"word": "yes"}), pip_requirements=[])).items(): save(name)
    with pytest.raises(BadInput, match="nobody wrote down its checksum"):
        from mlops_nb.serve import served
        served.ready("tensor", 1)
    server = started(["tensor/1", "named/1"], dict(unverified=True))
    try:
        wait_until("an answer", server.up, server.process, 120)
        assert np.allclose(server.score(dict(inputs=X.tolist()))[1]["predictions"], X[:, 0]) and server.score(dict(inputs=[["x", 1]]))[0] == 400
        v2 = server.ask("POST", "/v2/models/tensor/infer", dict(inputs=[dict(name="x", shape=[6, 2], datatype="FP64", data=X.tolist())]))
        assert v2[0] == 200 and np.allclose(v2[1]["outputs"][0]["data"], X[:, 0])
        assert server.ask("POST", "/models/named/invocations", dict(dataframe_records=[{"x": 2.}], params={"word": "ü"}))[1] == {"predictions": [{"twice": 4., "said": "ü"}]}
    finally: server.close()

# --- missing text ---

@pytest.mark.parametrize("gone", [np.nan, None], ids=["as a CSV is read", "as a data set is"])
def test_missing_text_is_what_the_model_was_trained_with(tmp_path, gone):
    "On every way, the compiled one and a batch job too, and where nothing but a gap is sent."
    import io
    from mlops_nb.core.config import settings_for
    from mlops_nb.registry import models
    from mlops_nb.serve import capture, scoring
    from mlops_nb.serve.codec import CSV, JSON, PARQUET, decode
    from mlops_nb.serve.contract import aligned
    from mlops_nb.serve.limits import Serving
    from mlops_nb.serve.served import ready
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import OneHotEncoder
    df, y = flights()
    df, text = df[["hour", "carrier"]].assign(carrier=df.carrier.astype(object).where(df.carrier.notna(), gone)), ["carrier"]
    filled = make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=gone), OneHotEncoder())
    steps = dict(strict=make_column_transformer((OneHotEncoder(), text), remainder="passthrough"), filled=make_column_transformer((filled, text), remainder="passthrough"), union=make_union(make_column_transformer((filled, text)), make_column_transformer(("passthrough", ["hour"]))))
    def answers(made, body, kind): return made.batches.score(aligned(decode(body, kind, made.signature), made.signature))[1]
    with settings_for(tmp_path):
        for name, step in steps.items():
            fitted = make_pipeline(step, LogisticRegression()).fit(df, y)
            name, loop = f"text-{name}-{gone}", asyncio.new_event_loop()
            version = register(name, fitted, df.head(20), "champion")
            table = io.BytesIO()
            df.to_parquet(table)
            want, sent = fitted.predict_proba(df), json.dumps(dict(dataframe_split=split(df))).encode()
            for compiled in (True, False):
                made = ready(name, version, Serving(compiled=compiled), loop=loop)
                for body, kind in ((sent, JSON), (df.to_csv(index=False).encode(), CSV), (table.getvalue(), PARQUET)): assert np.allclose(answers(made, body, kind), want, atol=1e-12), (name, compiled, kind)
                for i in range(20): assert np.allclose(answers(made, json.dumps(dict(dataframe_split=split(df.iloc[i:i + 1]))).encode(), JSON), want[i:i + 1], atol=1e-12), (name, compiled, i)
            file = tmp_path/"rows.csv"
            df.to_csv(file, index=False)
            scoring.score(file, name, version)
            kept = capture.window(name, "2000-01-01", "2100-01-01")
            assert np.allclose(kept.assign(row=kept["item"].str.rpartition("/")[2].astype(int)).sort_values("row").score, want[:, 1], atol=1e-12) and kept.carrier.isna().sum() == df.carrier.isna().sum()
            loop.close()

def test_a_model_that_does_not_answer_its_own_example_is_named(tmp_path):
    from mlops_nb.core.config import settings_for
    from mlops_nb.core.finding import BadInput
    from mlops_nb.serve.served import ready
    from sklearn.base import BaseEstimator
    class Odd(BaseEstimator):
        def predict(self, X):
            if any(v is None for v in X["y"]): raise ValueError("what is that?\nlong story")
            return np.arange(len(X))
    with settings_for(tmp_path):
        version = register("odd", Odd(), pd.DataFrame({"x": ["a", "b"]}).assign(y=[np.nan, "c"]))
        with pytest.raises(BadInput, match="odd version 1 does not answer its own input example .*what is that.*register it again"): ready("odd", version, loop=asyncio.new_event_loop())

# --- the command line ---

@pytest.mark.parametrize("words, said", [
    (("serve", "nope"), "there is no model 'nope'"), (("serve", "nope", "--rate", "-1"), "rate -1"), (("serve", "nope", "--access", "/nope/x.log"), "access log /nope/x.log cannot be written"),
    (("serve", "nope", "--log", "slow"), "--log 'slow' is none of safe, fast, off"), (("rollout", "start", "m", "2", "--reason", "r", "--kind", "shadw"), "--kind 'shadw' is none of shadow, canary, ab; did you mean 'shadow'"), (("sevre",), "there is no verb 'sevre'; did you mean 'serve'"), (("rollout", "strat"), "there is no verb 'strat'; did you mean 'start'")])
def test_what_the_command_line_cannot_mean_is_one_line(tmp_path, words, said):
    done = cli(*words, *(("--port", "0") if words[0] == "serve" else ()), MLOPS_NB_ROOT=str(tmp_path))
    assert done.returncode == 2 and done.stdout == "" and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done

def test_a_version_that_is_not_there_is_told_before_anything_is_served(registry):
    for name, said in (("delays/9", "model 'delays' has no version 9; it has 1, 2; serve one of them"), ("dleays/1", "there is no model 'dleays'; did you mean 'delays'")):
        done = cli("serve", name, "--port", "0", MLOPS_NB_ROOT=str(registry))
        assert done.returncode == 2 and said in done.stderr and "serving" not in done.stderr and "Traceback" not in done.stderr, done

def test_an_unknown_version_names_the_option(tmp_path, registry):
    from mlops_nb.core.config import settings_for
    from mlops_nb.core.finding import BadInput
    from mlops_nb.serve.served import ready
    with settings_for(registry), pytest.raises(BadInput, match="--unverified"): ready("delays", 9)
