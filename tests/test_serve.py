"The server in processes of its own, asked over the network, beside `mlflow models serve` with the same model."
import asyncio, http.client, io, json, os, signal, socket, subprocess, sys, tempfile, threading, time, urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np, pandas as pd, psutil, pytest

from conftest import wait_until

pytest.importorskip("orjson"), pytest.importorskip("uvloop"), pytest.importorskip("httptools")
TOKEN = "0123456789abcdef-for-tests"
JSON = "application/json"

# --- models and servers ---

def flights(n=400):
    r = np.random.default_rng(0)
    df = pd.DataFrame({"distance": r.normal(1000, 300, n).round(1), "hour": r.integers(0, 24, n), "carrier": r.choice(["UA", "DL", "ü€"], n), "weekend": r.random(n) < .3})
    df.loc[::7, "distance"], df.loc[::9, "carrier"] = np.nan, None
    return df, (df.hour + 5*(df.carrier == "UA") + r.normal(0, 3, n) > 13).astype(int)

def fitted(seed):
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    df, y = flights()
    return make_pipeline(make_column_transformer((OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["carrier"]), remainder="passthrough"), HistGradientBoostingClassifier(max_iter=20, random_state=seed, max_leaf_nodes=5 + seed)).fit(df, y)

def sleeper():
    from sklearn.base import BaseEstimator
    class Sleeper(BaseEstimator):
        def predict(self, X):
            import time
            time.sleep(float(X["sekünden"].sum()))
            return X["sekünden"].to_numpy()
    return Sleeper()

def register(name, model, example, *aliases):
    from mlops_nb.registry import models
    v = models.register(model, name, example, {}, {"auc": .8})
    for alias in aliases: models.promote(name, v.version, "test", alias=alias)
    return v.version

@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    "A project with three models."
    from mlops_nb.core import ledger
    from mlops_nb.core.config import settings_for
    with settings_for(tmp_path_factory.mktemp("serve")) as s:
        df, _ = flights()
        register("delays", fitted(0), df.head(20), "champion")
        register("delays", fitted(3), df.head(20), "challenger")
        register("slow", sleeper(), pd.DataFrame({"sekünden": [.02]}), "champion")
        yield s.root
        ledger.close()

SERVE = "import sys, json; from mlops_nb.serve.limits import Serving; from mlops_nb.serve.server import run; o = json.loads(sys.argv[1]); run(o.pop('models'), Serving(**o.pop('serving')), told=lambda said: print(said, flush=True), **o)"

class Server:
    "A process that serves, and a client for it."
    def __init__(self, *command, port=None):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.port = port or urllib.parse.urlsplit(self.process.stdout.readline().split()[-1]).port
        self.said, self.reading = [], threading.Thread(target=lambda: self.said.extend(self.process.stdout), daemon=True)
        self.reading.start()

    def ask(self, method, path, body=None, kind=JSON, timeout=60, **heads):
        "Status, body (parsed when it is JSON), headers."
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        c.request(method, path, body, {**({"content-type": kind} if kind is not None else {}), **{k.replace("_", "-"): v for k, v in heads.items()}})
        r = c.getresponse()
        said, heads = r.read(), {k.lower(): v for k, v in r.getheaders()}
        c.close()
        return r.status, json.loads(said) if JSON in heads.get("content-type", "") and said.strip()[:1] in (b"{", b"[") else said, heads

    def score(self, body, **more): return self.ask("POST", "/invocations", body, **more)

    def up(self):
        try: return self.ask("GET", "/ping", timeout=2)[0] == 200
        except OSError: return False

    def metric(self, name, **labels):
        lines = self.ask("GET", "/metrics", authorization=f"Bearer {TOKEN}")[1].decode().splitlines()
        return sum(float(l.rpartition(" ")[2]) for l in lines if l.split("{")[0].split(" ")[0] == name and all(f'{k}="{v}"' in l for k, v in labels.items()))

    def close(self):
        if self.process.poll() is None: os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

def started(models, serving={}, **more): return Server(sys.executable, "-c", SERVE, json.dumps(dict(models=models, serving={"access": "", **serving}, port=0, **more)))

@pytest.fixture(scope="module")
def servers(registry, tmp_path_factory):
    "Ours, ours with a token and two workers, and MLflow's: started together."
    from mlops_nb.registry import models
    with socket.create_server(("127.0.0.1", 0)) as s: port = s.getsockname()[1]
    log = tmp_path_factory.mktemp("log")/"access.log"
    all = dict(ours=started(["delays", "delays@challenger", "slow"], dict(access=str(log), bytes=2**20, rows=5000, slow=1.5, seconds=2.)),
               guarded=started("delays", dict(token=TOKEN, rate=40), workers=2),
               mlflow=Server(sys.executable, "-m", "mlflow", "models", "serve", "-m", str(models.files("delays", 1)), "--env-manager", "local", "-p", str(port), "-h", "127.0.0.1", port=port))
    try:
        for name, s in all.items(): wait_until(f"answer of {name}", s.up, s.process, 120)
        yield all | dict(log=log)
    finally:
        for s in all.values(): s.close()

@pytest.fixture
def ours(servers): return servers["ours"]

# --- the same answers as MLflow ---

def split(df): return dict(columns=list(df.columns), data=json.loads(df.to_json(orient="values", double_precision=15)))
def rows(n=5): return flights()[0].head(n)
def filled(n=5): return flights()[0].dropna().head(n)

def forms():
    df, records = rows(), lambda df: json.loads(df.to_json(orient="records", double_precision=15))
    full = filled()
    yield "split", dict(dataframe_split=split(df)), JSON
    yield "split with index", dict(dataframe_split=dict(index=list("abcde"), **split(df))), JSON
    yield "columns in another order, and one more", dict(dataframe_split=split(df.assign(extra=1)[["weekend", "extra", "hour", "carrier", "distance"]])), JSON
    yield "records", dict(dataframe_records=records(df)), f"{JSON}; charset=utf-8"
    yield "records that lack keys", dict(dataframe_records=[{k: v for k, v in r.items() if v is not None} for r in records(df)]), JSON
    yield "instances", dict(instances=records(full)), JSON
    yield "inputs", dict(inputs={k: list(v) for k, v in json.loads(full.to_json(orient="columns")).items() for v in [v.values()]}), JSON
    yield "one row of values", dict(inputs=records(full)[0]), JSON
    yield "inputs by row", dict(inputs=records(full)), JSON
    yield "params", dict(dataframe_split=split(df), params={"x": 1}), JSON
    yield "numbers as text", dict(dataframe_records=[{**records(full)[0], "distance": "200.5", "hour": "7"}]), JSON
    yield "NaN", json.dumps(dict(dataframe_split=dict(columns=["distance", "hour", "carrier", "weekend"], data=[[float("nan"), 5, "UA", True], [float("inf"), 5, "UA", True]]))).encode(), JSON
    yield "a huge number", dict(dataframe_records=[{**records(full)[0], "distance": 10**30}]), JSON
    yield "CSV", full.to_csv(index=False).encode(), "text/csv"
    yield "CSV with gaps", df[df.carrier.notna()].to_csv(index=False).encode(), "text/csv; charset=utf-8"
    packed = io.BytesIO()
    df.to_parquet(packed)
    yield "Parquet", packed.getvalue(), "application/vnd.apache.parquet"

@pytest.mark.parametrize("what, body, kind", [pytest.param(*f, id=f[0]) for f in forms()])
def test_the_answers_are_those_of_mlflow(servers, what, body, kind):
    (ours, said, _), (status, theirs, _) = (servers[s].score(body, kind=kind) for s in ("ours", "mlflow"))
    assert ours == status == 200, (said, theirs)
    assert said == theirs and len(said["predictions"]) in (1, 2, 4, 5)

def test_the_small_paths_answer_as_mlflow_does(servers):
    for path in ("/ping", "/health", "/version"): assert servers["ours"].ask("GET", path)[:2] == servers["mlflow"].ask("GET", path)[:2]
    for method, path in (("GET", "/invocations"), ("POST", "/ping"), ("GET", "/nothing")): assert servers["ours"].ask(method, path)[0] == servers["mlflow"].ask(method, path)[0]

BAD = {
    "malformed": (b'{"dataframe_split": ', JSON), "nothing": (b"", JSON), "a list": (b"[1]", JSON), "an unknown form": ({"rows": []}, JSON), "two forms": ({"inputs": {}, "instances": []}, JSON), "empty batch": ({"dataframe_records": []}, JSON),
    "empty split": ({"dataframe_split": {"columns": ["distance", "hour", "carrier", "weekend"], "data": []}}, JSON), "ragged": ({"dataframe_split": {"columns": ["distance", "hour"], "data": [[1], [1, 2, 3]]}}, JSON),
    "a missing column": ({"dataframe_records": [{"distance": 1, "carrier": "UA", "weekend": True}]}, JSON), "text for a number": ({"dataframe_records": [{"distance": "far", "hour": 1, "carrier": "UA", "weekend": True}]}, JSON),
    "a list for a number": ({"dataframe_records": [{"distance": [1], "hour": 1, "carrier": "UA", "weekend": True}]}, JSON), "a number too large": ({"dataframe_records": [{"distance": 1, "hour": 10**30, "carrier": "UA", "weekend": True}]}, JSON),
    "not UTF-8": (b'{"inputs": {"\xff": 1}}', JSON), "a bad CSV": (b'distance,hour\n"1', "text/csv"), "text in a CSV": (b"distance,hour,carrier,weekend\nfar,1,UA,True\n", "text/csv"), "not Parquet": (b"PAR1....PAR1", "application/vnd.apache.parquet"),
    "another type": (b"x", "text/plain"), "another charset": (b"{}", "application/json; charset=latin-1"), "another parameter": (b"{}", "application/json; version=2"), "a pickle": (b"\x80\x04.", "application/octet-stream")}

@pytest.mark.parametrize("what", BAD)
def test_what_mlflow_refuses_we_refuse_with_the_same_status_and_without_a_trace(servers, what):
    (ours, said, _), (theirs, _, _) = (servers[s].score(BAD[what][0], kind=BAD[what][1]) for s in ("ours", "mlflow"))
    assert ours == theirs and said["error_code"] and said["field"] and said["rule"] in said["message"], (ours, theirs, said)
    assert "Traceback" not in str(said) and "/site-packages/" not in str(said)

# --- better than MLflow ---

def row(**changes): return {"distance": 200.5, "hour": 7, "carrier": "UA", "weekend": True, **changes}

@pytest.mark.parametrize("column", ["distance", "hour", "carrier", "weekend"])
def test_a_missing_value_is_one_in_every_type(ours, column):
    status, said, _ = ours.score(dict(dataframe_records=[row(**{column: None}), row()]))
    assert status == 200 and len(said["predictions"]) == 2
    frame = pd.DataFrame([row(**{column: None}), row()]).astype({"distance": float, "weekend": object})
    from mlops_nb.registry import models
    assert np.array_equal(said["predictions"], models.load("delays", 1)[0].predict_proba(frame))

@pytest.mark.parametrize("column, value", [("hour", 1.7), ("weekend", "false"), ("weekend", 3), ("carrier", 5), ("carrier", ["UA"]), ("distance", {"a": 1})])
def test_what_mlflow_would_bend_is_refused_with_its_name(ours, column, value):
    status, said, _ = ours.score(dict(dataframe_records=[row(), row(**{column: value})]))
    assert status == 400 and said["field"] == f"{column}[1]" and said["value"].startswith(repr(value)[:20])

def test_unicode_names_and_a_row_alone_are_answered_alike(ours):
    together = ours.score(dict(dataframe_records=json.loads(rows(50).to_json(orient="records"))))[1]["predictions"]
    alone = [ours.score(dict(dataframe_records=[r]))[1]["predictions"][0] for r in json.loads(rows(50).to_json(orient="records"))]
    assert together == alone
    assert ours.score(dict(dataframe_records=[row(**{"größe": 1})]))[0] == 200
    said = ours.ask("POST", "/models/slow/invocations", dict(inputs={"sekunden": [0.]}))[1]
    assert said["field"] == "sekünden" and "did you mean 'sekunden'" in said["message"] and "sekünden" in ours.ask("GET", "/docs")[1].decode()

def test_an_optional_column_may_be_absent_and_a_deep_body_is_no_fault_of_the_server(ours):
    assert ours.score(dict(dataframe_records=[{k: v for k, v in row().items() if k != "carrier"}]))[1] == ours.score(dict(dataframe_records=[row(carrier=None)]))[1]
    assert ours.score(b'{"inputs": ' + b"["*100_000)[0] == 400 == ours.score(b'{"inputs": [' + b"["*900 + b"NaN" + b"]"*901 + b"}")[0]

def test_a_further_column_is_ignored_as_mlflow_does_it_unless_it_is_an_optional_one_misspelt(servers):
    ours, mlflow = servers["ours"], servers["mlflow"]
    full = row(distance=300.5)
    slip = {("carier" if k == "carrier" else k): v for k, v in full.items()}
    for more in (dict(gate="A7"), dict(carier="DL"), dict(carrier_name="x", lag_1=3)):         # carrier itself is there
        assert ours.score(dict(dataframe_records=[full | more]))[0] == mlflow.score(dict(dataframe_records=[full | more]))[0] == 200
        assert np.allclose(ours.score(dict(dataframe_records=[full | more]))[1]["predictions"], mlflow.score(dict(dataframe_records=[full]))[1]["predictions"], atol=1e-12)
    status, said, _ = ours.score(dict(dataframe_records=[slip]))
    assert status == 400 and said["field"] == "carier" and "'carrier' is absent; did you mean 'carrier'" in said["message"]
    assert ours.score(dict(dataframe_records=[slip | dict(carrier=None)]))[1] == ours.score(dict(dataframe_records=[full | dict(carrier=None)]))[1]
    assert mlflow.score(dict(dataframe_records=[slip]))[0] == 400      # without its column the model raises; where it does not, MLflow answers in silence
    assert ours.score(dict(dataframe_records=[{f"carrie{i}x{'y'*30}": 1 for i in range(20_000)} | {k: v for k, v in full.items() if k != "carrier"}]))[0] in (200, 413)

# --- the open inference protocol ---

def tensors(df): return dict(id="a-7", inputs=[dict(name=c, shape=[len(df), 1], datatype=t, data=json.loads(df[c].to_json(orient="values"))) for c, t in dict(distance="FP64", hour="INT64", carrier="BYTES", weekend="BOOL").items()])

def test_the_open_inference_protocol_gives_the_same_answers(ours):
    status, said, heads = ours.ask("POST", "/v2/models/delays/infer", tensors(rows()))
    plain = ours.score(dict(dataframe_split=split(rows())))[1]["predictions"]
    out = said["outputs"][0]
    assert status == 200 and said["id"] == "a-7" == heads["x-request-id"] and said["model_version"] == "1" == heads["x-model-version"] and np.reshape(out["data"], out["shape"]).tolist() == plain
    assert ours.ask("POST", "/v2/models/delays/versions/2/infer", tensors(rows()))[1]["model_version"] == "2" and out["datatype"] == "FP64"
    about = ours.ask("GET", "/v2/models/delays")[1]
    assert about["versions"] == ["1", "2"] and [i["datatype"] for i in about["inputs"]] == ["FP64", "INT64", "BYTES", "BOOL"]
    assert [ours.ask("GET", p)[0] for p in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/delays/ready", "/v2/models/delays/versions/1/ready")] == [200]*5

def test_numbers_behind_the_json_are_read_too(ours):
    df = filled()
    said = tensors(df)
    packed = [df.distance.to_numpy().tobytes(), df.hour.to_numpy().tobytes(), b"".join(len(c.encode()).to_bytes(4, "little") + c.encode() for c in df.carrier), df.weekend.to_numpy().tobytes()]
    for t, p in zip(said["inputs"], packed): t.pop("data"), t.update(parameters=dict(binary_data_size=len(p)))
    head = json.dumps(said).encode()
    status, found, _ = ours.ask("POST", "/v2/models/delays/infer", head + b"".join(packed), "application/octet-stream", inference_header_content_length=str(len(head)))
    assert status == 200 and np.reshape(found["outputs"][0]["data"], (5, 2)).tolist() == ours.score(dict(dataframe_split=split(df)))[1]["predictions"]
    assert ours.ask("POST", "/v2/models/delays/infer", head, "application/octet-stream", inference_header_content_length="999999")[0] == 400

def test_a_public_client_of_the_protocol_is_at_home(ours):
    "NVIDIA's tritonclient: metadata, tensors as JSON and as bytes, both ways; text, gaps of nothing, errors as its own."
    triton = pytest.importorskip("tritonclient.http")
    client, df = triton.InferenceServerClient(f"127.0.0.1:{ours.port}"), filled()
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("delays") and client.is_model_ready("delays", "2")
    about, expected = client.get_model_metadata("delays"), ours.score(dict(dataframe_split=split(df)))[1]["predictions"]
    def sent(i, binary):
        values = df[i["name"]].to_numpy(triton.triton_to_np_dtype(i["datatype"])).reshape(-1, 1)
        tensor = triton.InferInput(i["name"], values.shape, i["datatype"])
        tensor.set_data_from_numpy(values, binary_data=binary)
        return tensor
    for binary in (False, True):
        inputs = [sent(i, binary) for i in about["inputs"]]
        for outputs in (None, [triton.InferRequestedOutput(o["name"], binary_data=binary) for o in about["outputs"]]):
            found = client.infer("delays", inputs, outputs=outputs, request_id="a-8")
            assert found.as_numpy(about["outputs"][0]["name"]).tolist() == expected and found.get_response()["id"] == "a-8"
    assert about["outputs"] == [{"name": "predictions", "datatype": "FP64", "shape": [-1, 2], "parameters": {"classes": [0, 1], "method": "predict_proba"}}]
    assert client.async_infer("delays", inputs, model_version="2").get_result().get_response()["model_version"] == "2"
    with pytest.raises(triton.InferenceServerException, match="hour is missing"): client.infer("delays", inputs[:1])
    with pytest.raises(triton.InferenceServerException, match="none of delays"): client.infer("nothing", inputs)
    client.close()

def test_unknown_models_versions_and_paths_are_404(ours):
    for path in ("/v2/models/delay/infer", "/models/nothing/invocations", "/models/delays/versions/9/invocations", "/models/delays/versions/99999999999/invocations", "/v2/models/delays/nothing"):
        status, said, _ = ours.ask("POST", path, {})
        assert status == 404 and "none of" in said["rule"] or "not one of" in said["rule"], said

def test_several_models_and_versions_answer_from_one_process(ours):
    body = dict(dataframe_split=split(rows()))
    first, second, challenger = (ours.ask("POST", f"/models/{m}/invocations", body) for m in ("delays", "delays/versions/2", "delays@challenger"))
    assert [h["x-model-version"] for _, _, h in (first, second, challenger)] == ["1", "2", "2"] and second[1] == challenger[1] != first[1] == ours.score(body)[1]
    assert ours.ask("POST", "/models/slow/invocations", dict(inputs={"sekünden": [0.]}))[1] == {"predictions": [0.]}

# --- limits ---

def test_a_large_body_is_refused_before_it_is_read_and_many_rows_after(ours):
    before = psutil.Process(ours.process.pid).memory_info().rss
    with socket.create_connection(("127.0.0.1", ours.port), 10) as s:
        s.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n{")
        assert b" 413 " in s.recv(1000)
    with socket.create_connection(("127.0.0.1", ours.port), 10) as s, pytest.raises(OSError):   # a gigabyte in pieces, of which nobody knew the size
        s.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(1024): s.sendall(b"100000\r\n" + b"x"*2**20 + b"\r\n")
    assert psutil.Process(ours.process.pid).memory_info().rss < before + 100*2**20
    status, said, _ = ours.score(dict(inputs={"distance": [1]*6000, "hour": [1]*6000, "carrier": ["UA"]*6000, "weekend": [True]*6000}))
    assert status == 413 and said["field"] == "rows" and ours.up()

def test_a_slow_client_is_told_and_silent_ones_hold_nobody_up(ours):
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", ours.port), 10) as s:
        s.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        said = s.recv(10_000)
    assert b"408" in said.split(b"\r\n")[0] and time.monotonic() - begin < 8

def test_thousands_of_idle_connections_do_not_matter(ours):
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = min(2000, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, n + 200)), hard))
    idle = [socket.create_connection(("127.0.0.1", ours.port), 10) for _ in range(n)]
    try: assert all(ours.score(dict(dataframe_records=[row()]))[0] == 200 for _ in range(20))
    finally:
        for s in idle: s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

def test_an_answer_that_takes_too_long_is_told_and_the_others_go_on(ours):
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(ours.ask, "POST", "/models/slow/invocations", dict(inputs={"sekünden": [3.5]}))
        time.sleep(.3)
        begin = time.monotonic()
        assert ours.up() and ours.score(dict(dataframe_records=[row()]))[0] == 200 and time.monotonic() - begin < 2
        status, said, _ = late.result()
    assert status == 504 and said["error_code"] == "DEADLINE_EXCEEDED"
    wait_until("the model's own end", lambda: ours.ask("POST", "/models/slow/invocations", dict(inputs={"sekünden": [0.]}))[0] == 200, seconds=10)

def test_a_token_and_a_rate(servers):
    guarded, asked = servers["guarded"], dict(dataframe_records=[row()])
    status, said, heads = guarded.score(asked)
    assert status == 401 and heads["www-authenticate"] == "Bearer" and "none" not in said["message"] and guarded.score(asked, authorization="Bearer wrong")[0] == 401 and guarded.score(asked, authorization=f"Basic {TOKEN}")[0] == 401 and guarded.score(asked, authorization=f"bearer {TOKEN}")[0] == 200 and guarded.ask("GET", "/models/x/invocations")[0] == 401
    assert guarded.up() and guarded.ask("POST", "/admin/reload")[0] == 401 and guarded.ask("GET", "/docs")[0] == 401
    time.sleep(1)
    with ThreadPoolExecutor(8) as pool: got = [r[0] for r in pool.map(lambda _: guarded.score(asked, authorization=f"Bearer {TOKEN}"), range(300))]
    assert set(got) == {200, 429} and got.count(200) >= 20

# --- many at once ---

def test_requests_of_one_moment_share_a_call_and_a_bad_one_fails_alone(ours):
    calls, scored = ours.metric("mlops_scoring_calls_total", model="delays"), ours.metric("mlops_scoring_rows_total", model="delays")
    good, bad = dict(dataframe_records=[row()]), dict(dataframe_records=[row(hour="never")])
    expected = ours.score(good)[1]
    async def one(i):
        reader, writer = await asyncio.open_connection("127.0.0.1", ours.port)
        body, got = json.dumps(bad if i % 5 == 0 else good).encode(), []
        for _ in range(20):
            writer.write(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(next(l for l in head.split(b"\r\n") if l.startswith(b"content-length")).split()[1])
            got.append((head[9:12], json.loads(await reader.readexactly(size))))
        writer.close()
        return got
    async def all(): return await asyncio.gather(*map(one, range(32)))
    for i, got in enumerate(asyncio.run(all())): assert {s for s, _ in got} == ({b"400"} if i % 5 == 0 else {b"200"}) and (i % 5 == 0 or [b for _, b in got] == [expected]*20)
    rows_, calls_ = ours.metric("mlops_scoring_rows_total", model="delays") - scored, ours.metric("mlops_scoring_calls_total", model="delays") - calls
    assert rows_ == 25*20 + 1 and calls_ < rows_*.8

# --- what the server says of itself ---

def test_workers_add_up_their_counts(servers):
    guarded = servers["guarded"]
    time.sleep(1.2)
    before, head = guarded.metric("mlops_requests_total", status="200", model="delays"), f"Bearer {TOKEN}"
    n = sum(guarded.score(dict(dataframe_records=[row()]), authorization=head)[0] == 200 for _ in range(10) if not time.sleep(.1))
    time.sleep(1.5)
    assert n >= 8 and {guarded.metric("mlops_requests_total", status="200", model="delays") for _ in range(6) if not time.sleep(.1)} == {before + n}

def test_metrics_are_what_prometheus_reads(ours):
    from prometheus_client.parser import text_string_to_metric_families
    found = {f.name: f for f in text_string_to_metric_families(ours.ask("GET", "/metrics")[1].decode())}
    info = [s.labels for s in found["mlops_model_info"].samples]
    assert {(i["model"], i["version"]) for i in info} == {("delays", "1"), ("delays@challenger", "2"), ("slow", "1")} and next(i for i in info if i["model"] == "delays")["scorer"] != "plain"
    assert found["mlops_requests"].samples and found["mlops_request_seconds"].type == "histogram" and all(s.value == 1 for s in found["mlops_registry_up"].samples)

def test_every_request_leaves_a_line_without_its_values(servers):
    ours, log = servers["ours"], servers["log"]
    ours.score(dict(dataframe_records=[row(carrier="SECRET-CARRIER")]), x_request_id="find-me:1")
    ours.score(b"{", x_request_id="bad id with spaces")
    wait_until("lines", lambda: '"find-me:1"' in log.read_text())
    line = next(json.loads(l) for l in log.read_text().splitlines() if '"find-me:1"' in l)
    assert line["status"] == 200 and line["rows"] == 1 and line["model"] == "delays" and line["version"] == 1 and line["ms"] > 0 and "SECRET-CARRIER" not in log.read_text() and "bad id" not in log.read_text()

def test_documents_name_every_path(ours):
    said = ours.ask("GET", "/openapi.json")[1]
    assert said["openapi"].startswith("3.1") and {"/invocations", "/v2/models/delays/infer", "/models/delays@challenger/invocations"} <= said["paths"].keys()
    page = ours.ask("GET", "/docs")[1]
    assert f"http://127.0.0.1:{ours.port}/models/delays/invocations".encode() in page and b"NaN" not in page and b"null" in page
    assert b"<script" not in page and "default-src 'none'" in ours.ask("GET", "/docs")[2]["content-security-policy"]
    assert b"probabilities of the classes, in this order: 0, 1" in page

def test_the_document_is_true_of_the_answers_and_says_what_their_columns_mean(ours):
    from jsonschema import Draft202012Validator as Checked
    said = ours.ask("GET", "/openapi.json")[1]
    for path, methods in said["paths"].items():
        for method, about in methods.items():
            schemas = [c["schema"] for r in (about.get("requestBody", {}), *about["responses"].values()) for c in r.get("content", {}).values() if "schema" in c]
            for schema in schemas: Checked.check_schema(schema)
            if method == "get" and (schema := about["responses"]["200"]["content"].get(JSON, {}).get("schema")): Checked(schema).validate(ours.ask("GET", path)[1])
    about = said["paths"]["/invocations"]["post"]
    body, answer = about["requestBody"]["content"][JSON]["schema"], about["responses"]["200"]["content"][JSON]["schema"]
    for sent in (dict(dataframe_split=split(rows())), dict(dataframe_records=[row()])):
        Checked(body).validate(sent)
        Checked(answer).validate(ours.score(sent)[1])
    columns = answer["properties"]["predictions"]["items"]["prefixItems"]
    assert [c["title"] for c in columns] == ["class 0", "class 1"] and "/health" in said["paths"] and "/outcomes" not in said["paths"]
    (output,) = ours.ask("GET", "/v2/models/delays")[1]["outputs"]
    assert output["parameters"] == {"classes": [0, 1], "method": "predict_proba"} and output["shape"] == [-1, 2]

def test_one_answer_is_one_write_and_a_second_request_may_be_sent_before_it(ours):
    body = json.dumps(dict(dataframe_records=[row()])).encode()
    request = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", ours.port), 10) as s:
        s.sendall(request*5 + b"HEAD /ping HTTP/1.0\r\n\r\n")
        said = b""
        while part := s.recv(1 << 16): said += part
    assert said.count(b"HTTP/1.1 200") == 6 and said.count(b"predictions") == 5 and said.endswith(b"\r\n\r\n") and b"connection: close" in said

def test_nonsense_never_is_a_fault_of_the_server(ours):
    "Bodies bent at random, from a seed: 200 or a reason, never 500, never silence."
    r, seen = np.random.default_rng(8), set()
    base = [json.dumps(b).encode() if isinstance(b, dict) else b for _, b, _ in forms()]
    kinds = [kind for _, _, kind in forms()]
    odd = [b"null", b"[]", b"{}", b"-1e999", b"1e308", b'"\\ud800"', b"\xff", b"true", b"NaN", b"99999999999999999999", b'""', b"[[[]]]", b"\x00"]
    for i in range(600):
        body, kind = bytearray(base[i % len(base)]), kinds[i % len(base)]
        for _ in range(r.integers(1, 4)):
            at = int(r.integers(0, len(body)))
            body[at:at + int(r.integers(0, 12))] = odd[r.integers(len(odd))]
        status, said, _ = ours.ask("POST", ("/invocations", "/v2/models/delays/infer")[int(r.integers(10) == 0)], bytes(body), kind, timeout=10)
        seen.add(status)
        assert status == 200 or status in (400, 413, 415) and said["rule"], (bytes(body), status, said)
    assert {200, 400} <= seen

# --- heads that are known ---

def packed(hour, *heads, body=None):
    body = json.dumps(dict(dataframe_records=[row(hour=hour)])).encode() if body is None else body
    return b"\r\n".join([b"POST /invocations HTTP/1.1", b"host: x", b"content-type: application/json", *heads, b"content-length: %d" % len(body), b"", body])

def spoken(port, pieces, n, pause=0.):
    "Sends the pieces one after another; status, headers and body of n answers."
    with socket.create_connection(("127.0.0.1", port), 20) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            s.sendall(piece)
            time.sleep(pause)
        file, said = s.makefile("rb"), []
        for _ in range(n):
            status, heads = int(file.readline().split()[1]), {}
            while line := file.readline().strip(): name, _, value = line.decode().partition(": "); heads[name] = value
            said.append((status, heads, json.loads(file.read(int(heads["content-length"])))))
        return said

def test_the_short_way_answers_as_the_long_one_does(ours):
    bodies = [json.dumps(b).encode() for b in (dict(dataframe_records=[row()]), dict(dataframe_records=[row(hour=1.7)]), dict(dataframe_records=[]), dict(inputs=3), dict(dataframe_split=split(rows())))] + [b"{"]
    bodies = [body.ljust(max(map(len, bodies))) for body in bodies]      # one length, so one head
    spoken(ours.port, [packed(7, body=bodies[0])], 1)
    for body in bodies:
        long, = spoken(ours.port, [packed(7, b"x-request-id: long", body=body)], 1)
        short, = spoken(ours.port, [packed(7, body=body)], 1)
        assert long[0] == short[0] and long[2] == short[2] and long[1].keys() == short[1].keys() and short[1]["x-request-id"] != "long", body

def test_answers_keep_their_order_however_the_bytes_are_cut(ours):
    hours = [*range(24)]
    want = [spoken(ours.port, [packed(h, b"x-request-id: %d" % h)], 1)[0][2] for h in hours]
    r, said = np.random.default_rng(0), b"".join(packed(h) for h in hours)
    for pieces in (1, 2, 3, 24, 60):
        cuts = [0, *sorted(r.choice(len(said), pieces - 1, replace=False).tolist()), len(said)]
        got = spoken(ours.port, [said[a:b] for a, b in zip(cuts, cuts[1:])], len(hours), .005)
        assert [g[2] for g in got] == want and {g[0] for g in got} == {200}
    got = spoken(ours.port, [packed(h) for h in hours], len(hours))
    assert [g[2] for g in got] == want

def test_every_request_is_counted_on_either_way(ours):
    before = ours.metric("mlops_requests_total", model="delays", status="200")
    for heads in ((), (), (), (b"x-request-id: a",), (b"connection: close",)): spoken(ours.port, [packed(7, *heads)], 1)
    assert ours.metric("mlops_requests_total", model="delays", status="200") == before + 5

def test_a_token_is_part_of_the_head_that_is_known(servers):
    port, right, wrong = servers["guarded"].port, b"authorization: Bearer " + TOKEN.encode(), b"authorization: Bearer " + TOKEN[::-1].encode()
    assert [spoken(port, [packed(7, head)], 1)[0][0] for head in (right, right, wrong, right)] == [200, 200, 401, 200]

# --- the end of a parent ---

def test_workers_end_with_their_parent_and_answer_what_was_begun(registry):
    from mlops_nb.core.config import settings_for
    with settings_for(registry): server = started(["slow"], dict(seconds=20.), workers=2)
    try:
        wait_until("an answer", server.up, server.process, 120)
        workers = psutil.Process(server.process.pid).children(recursive=True)
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(server.ask, "POST", "/invocations", dict(inputs={"sekünden": [2.]}))
            time.sleep(.5)
            server.process.kill()
            assert late.result()[0] == 200
        assert not psutil.wait_procs(workers, 20)[1]
        from mlops_nb.serve.server import shared_folder
        (left,) = [p for p in Path(tempfile.gettempdir()).glob("mlops-nb-serve-*") if (p/f"{workers[-1].pid}.json").exists()]
        with shared_folder(): assert not left.exists()                  # the next that starts clears it
        socket.create_server(("127.0.0.1", server.port)).close()        # the port is free
        server.reading.join(10)
        assert not [l for l in server.said if "Traceback" in l], server.said
    finally:
        for w in workers:
            if w.is_running(): w.kill()
        server.close()
