"What a server answered is in the log, once, whatever is killed, full or sent again."
import asyncio, json, os, random, signal, socket, subprocess, sys, threading, time, urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np, pandas as pd, pytest

from conftest import MAIN, cli, load_bench, wait_until
from mlops_nb.core import database

pytest.importorskip("orjson"), pytest.importorskip("uvloop"), pytest.importorskip("httptools")
from test_serve import JSON, Server, fitted, flights, register, rows, sleeper, split

SERVE = """import sys, json
from functools import partial
from mlops_nb.serve.drain import durable, endpoint
from mlops_nb.serve.limits import Serving
from mlops_nb.serve.server import run
o = json.loads(sys.argv[1])
log = o.pop("log")
run(o.pop("models"), Serving(access="", **o.pop("serving")), port=0, told=lambda said: print(said, flush=True), log=partial(durable, **log), outcomes=partial(endpoint, **log), **o)"""

def started(models, serving={}, env={}, **more):
    log = {k: more.pop(k) for k in ("mode", "full", "every", "way", "folder") if k in more}
    return answering(env, sys.executable, "-c", SERVE, json.dumps(dict(models=models, serving=serving, log=log, **more)))

def answering(env, *command, port=None):
    "The server of a command, with more in its environment, once it answers."
    before = dict(os.environ)
    os.environ.update(env)
    try: s = Server(*command, port=port)
    finally:
        os.environ.clear()
        os.environ.update(before)
    wait_until("answer", s.up, s.process, 120)
    return s

def ended(s):
    s.process.send_signal(signal.SIGTERM)
    s.process.wait(60)
    s.reading.join(10)
    s.close()
    assert not [l for l in s.said if "Traceback" in l], s.said

def unnamed():
    "Models of tensors and of nested columns, which MLflow answers as a whole."
    import mlflow
    from mlflow.models import infer_signature
    from mlops_nb.train.persistence import quiet
    from mlops_nb.train.track import experiment
    from sklearn.linear_model import LinearRegression
    X = np.arange(12.).reshape(6, 2)
    mlflow.set_experiment(experiment_id=experiment("tensor"))
    class Total(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None): return model_input["cart"].map(lambda things: sum(t["price"] for t in things)).to_numpy(float)
    with quiet():
        mlflow.sklearn.log_model(LinearRegression().fit(X, X[:, 0]), name="tensor", registered_model_name="tensor", signature=infer_signature(X, X[:, 0]), pip_requirements=[], serialization_format="cloudpickle")
        mlflow.pyfunc.log_model(name="nested", python_model=Total(), registered_model_name="nested", signature=infer_signature(pd.DataFrame({"cart": [[{"price": 2.}]], "new": [True]})), pip_requirements=[])

@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    "A project with a model, and one that was made from personal data."
    from mlops_nb.core import ledger
    from mlops_nb.data import dataset, privacy
    folder, before = tmp_path_factory.mktemp("capture"), os.environ.get("MLOPS_NB_ROOT")
    os.environ["MLOPS_NB_ROOT"] = str(folder)
    df, _ = flights()
    register("delays", fitted(0), df.head(20), "champion")
    dataset.commit(privacy.tag(df.assign(carrier="Jane Doe"), {"carrier": "name"}), "people")
    dataset.read("people")
    register("known", fitted(1), df.head(20), "champion")
    unnamed()
    yield folder
    ledger.close()
    os.environ["MLOPS_NB_ROOT"] = before

@pytest.fixture(scope="module")
def server(registry):
    "Its segments go to the warehouse every third of a second; columns that only the log wants."
    s = started("delays", dict(keys=["gate", "passengers"]), every=.3)
    yield s
    ended(s)

def moved(server, *items):
    "The log, once it has these."
    wait_until("predictions in the warehouse", lambda: set(items) <= set(log()["item"]), server.process, 60)
    return log()

def log(**where):
    from mlops_nb.data import dataset
    if dataset.latest("predictions") is None: return pd.DataFrame({"item": []})
    return dataset.read("predictions", where=[(k, "==", v) for k, v in where.items()] or None)

def captured(project): return project/".mlops"/"captured"
def body(n=1): return dict(dataframe_split=split(rows(n)))

# --- a server and its log ---

def test_what_was_answered_is_in_the_data_set(server):
    from mlops_nb.serve import capture
    df = rows(5)
    one, many, extra = (server.score(dict(dataframe_split=split(d)), x_request_id=i) for d, i in ((df.head(1), "one"), (df, "many"), (df.head(2).assign(gate=["A", None], passengers=[3, "many"]), "extra")))
    own = server.score(body())
    infer = server.ask("POST", "/v2/models/delays/infer", dict(id="v2", inputs=[dict(name=c, shape=[1], datatype=dict(carrier="BYTES", weekend="BOOL").get(c, "FP64" if c == "distance" else "INT64"), data=[v]) for c, v in json.loads(rows(2).tail(1).to_json(orient="records"))[0].items()]))
    refused = server.score(dict(dataframe_records=[{"distance": "far"}]), x_request_id="refused")
    assert [s[0] for s in (one, many, extra, own, infer, refused)] == [200]*5 + [400], infer
    assert server.metric("mlops_log_rows_total") == 10 and server.metric("mlops_log_lost_total") == 0
    seen = moved(server, "one", "many/4", "extra/1", "v2", own[2]["x-request-id"]).set_index("item")
    assert len(seen) == 10 and seen.index.is_unique and "refused" not in seen.index
    assert seen.score["one"] == one[1]["predictions"][0][1] and [[1 - seen.score[f"many/{i}"], seen.score[f"many/{i}"]] for i in range(5)] == many[1]["predictions"] and seen.outputs.isna().all() and seen.score["v2"] == infer[1]["outputs"][0]["data"][1]
    again = seen.loc[[f"many/{i}" for i in range(5)], list(df)].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.where(again.notna(), None), df.where(df.notna(), None), check_dtype=False)
    assert seen.loc[["extra/0", "extra/1"], "gate"].tolist() == ["A", None] and seen.passengers["extra/0"] == "3" and seen.passengers["extra/1"] == "many"
    assert (seen.role == "answer").all() and (seen.latency_ms > 0).all() and (pd.Timestamp.now("UTC").tz_localize(None) - seen.happened.max()).total_seconds() < 600
    assert len(capture.window("delays", "2000-01-01", "2100-01-01")) == 10 and capture.summary("delays").predictions.sum() == 10

def test_outcomes_come_late_twice_corrected_and_before_their_prediction(server, registry):
    from mlops_nb.data import dataset
    from mlops_nb.serve import capture, outcomes
    from jsonschema import Draft202012Validator as Checked
    about = server.ask("GET", "/openapi.json")[1]["paths"]["/outcomes"]["post"]
    body_schema, answer = (Checked(part["content"][JSON]["schema"]) for part in (about["requestBody"], about["responses"]["200"]))
    def tell(said, kind=JSON):
        status, got, _ = server.ask("POST", "/outcomes", said, kind=kind)
        if kind == JSON and isinstance(said, list) and status == 200: body_schema.validate(said), answer.validate(got)
        return status, got
    for i in "abc": assert server.score(body(), x_request_id=i)[0] == 200
    assert tell([dict(id="a", label=1), dict(id="later", label=0)]) == (200, {"kept": 2})
    assert tell([dict(id="a", label=1)])[0] == 200 and tell(b"id,label\nb,0\n", "text/csv")[0] == 200                # the first again
    assert tell(dict(dataframe_split=dict(columns=["id", "label"], data=[["b", 1]])))[0] == 200                       # corrected
    status, said = tell([dict(id="c", label=1), dict(id="x", label=0), dict(id="c", label=0)])
    assert status == 400 and "row 0: c is 1.0; row 2: c is 0.0" in said["message"]
    for bad in ([dict(id="c")], [dict(label=1)], [], b"{", [dict(id="c", label=1, at="soon")], [dict(id="c", label=None)]): assert tell(bad)[0] == 400, bad
    assert not any(body_schema.is_valid(bad) for bad in ([dict(id="c")], [dict(label=1)], [], [dict(id=" ", label=1)], [dict(id="c", label=None)], [dict(id="c", label=1, y=1)]))
    for bad in (b"{", {"id": "c"}, [dict(id="c")]): assert "dataframe" not in (said := tell(bad)[1]["message"]) and "outcomes is " in said and ("send [{" in said or "need a column 'label'" in said), said
    assert tell(b"x", "text/plain")[0] == 415
    assert server.score(body(), x_request_id="later")[0] == 200
    moved(server, "a", "b", "c", "later")
    wait_until("outcomes in the warehouse", lambda: dataset.latest("outcomes") is not None and len(dataset.read("outcomes")) == 4, server.process, 60)
    seen = capture.window("delays", "2000-01-01", "2100-01-01", truth="outcomes").set_index("item")
    assert seen.label.loc[["a", "b", "later"]].tolist() == [1, 1, 0] and np.isnan(seen.label["c"])
    assert dataset.read("outcomes").id.value_counts().to_dict() == {"b": 2, "a": 1, "later": 1}                            # what it was stays; what was said twice does not
    file = registry/"late.csv"
    file.write_text("id,label\nc,1\na,1\nb,0\nnobody,1\n")
    joined = outcomes.join(file)
    assert joined == outcomes.Joined(new=2, corrected=1, repeated=1, unknown=1) and joined.examples == ("nobody",)
    file.write_text("id,label\nnobody/2,1\nc,1\n")
    told = cli("outcomes", str(file), MLOPS_NB_ROOT=str(registry))
    assert told.returncode == 0 and "no prediction has 1 of these ids (nobody/2); kept until one has" in told.stderr, told
    assert capture.window("delays", "2000-01-01", "2100-01-01", truth="outcomes").set_index("item").label.loc[["a", "b", "c"]].tolist() == [1, 0, 1]

def test_two_workers_mask_what_is_personal_and_log_models_without_columns(registry):
    server = started(["known", "tensor/1", "nested/1"], dict(unverified=True, keys=["order"]), workers=2, every=.2)
    try:
        def one(i): return server.score(dict(dataframe_records=[dict(distance=200.5, hour=5, carrier=f"Jane{i} Doe", weekend=True)]), x_request_id=f"p{i}")[0]
        whole = server.ask("POST", "/models/tensor/invocations", dict(inputs=[[1, 2]]), x_request_id="t1")
        tensor = server.ask("POST", "/v2/models/tensor/infer", dict(inputs=[dict(name="x", shape=[1, 2], datatype="FP64", data=[[3., 4.]])]), x_request_id="t2")
        assert whole[0] == tensor[0] == 200 and server.ask("POST", "/models/tensor/invocations", dict(inputs=[["x"]]), x_request_id="t3")[0] == 400
        carts = [dict(cart=[dict(price=2.), dict(price=3.)], new=True, order="o1"), dict(cart=[], new=False, order="o2")]
        assert server.ask("POST", "/models/nested/invocations", dict(dataframe_records=carts), x_request_id="n")[1] == {"predictions": [5., 0.]}
        with ThreadPoolExecutor(8) as pool: assert {*pool.map(one, range(60))} == {200}
        writers = {p.name.split("-")[1].split(".")[0] for p in captured(registry).iterdir()}
        assert not any(b"Jane" in p.read_bytes() for p in captured(registry).glob("*") if p.exists())
    finally: ended(server)
    seen = log()
    nested = seen[seen.model_name == "nested"].set_index("item").sort_index()   # rows, as they were sent
    assert nested.index.tolist() == ["n/0", "n/1"] and nested.score.tolist() == [5., 0.] and [*map(json.loads, nested.cart)] == [carts[0]["cart"], []] and nested.new.tolist() == [True, False] and nested.order.tolist() == ["o1", "o2"]
    tensors, seen = seen[seen.model_name == "tensor"].set_index("item"), seen[seen.model_name == "known"]
    assert set(tensors.index) == {"t1", "t2"} and json.loads(tensors.outputs["t1"]) == whole[1] and json.loads(tensors.request["t1"]) == dict(inputs=[[1, 2]]) and np.allclose(json.loads(tensors.outputs["t2"]), 3)
    assert sorted(seen["item"]) == sorted(f"p{i}" for i in range(60)) and set(seen.carrier) <= {"Xxxx9 Xxx", "Xxxx99 Xxx"} and writers

def commanded(*words, **env):
    "A server from the command line."
    with socket.create_server(("127.0.0.1", 0)) as s: port = s.getsockname()[1]
    return answering(env, *MAIN, "serve", *words, "--port", str(port), "--access", "", port=port)

def test_personal_values_are_codes_with_the_key_from_the_environment(registry):
    s = commanded("known", "--personal", "hash", MLOPS_NB_HASH_SECRET="a key of the tests alone")
    try: assert s.score(dict(dataframe_records=[dict(distance=200.5, hour=5, carrier="Jane Roe", weekend=True)]), x_request_id="hashed")[0] == 200
    finally: ended(s)
    begun = json.loads(database.rows("event", action="serve", subject="known")[-1]["detail"])   # the start is in the audit trail
    assert begun["address"].startswith("http://127.0.0.1:") and begun["workers"] == 1 and begun["log"] == "safe" and begun["token"] is False
    code, = log(item="hashed").carrier
    assert code and "Jane" not in code and "X" not in code[:1]

def test_a_model_of_unknown_data_is_told_when_its_requests_are_kept(registry):
    for model, words, n in (("delays/1", (), 1), ("known/1", (), 0), ("delays/1", ("--log", "off"), 0), ("delays/1", ("--personal", "keep"), 0)):
        s = commanded(model, *words)
        ended(s)
        assert len([l for l in s.said if "nothing is known of the data of delays version 1: no column is taken as personal" in l]) == n, (model, words, s.said)

def test_what_is_sent_again_is_not_two(server):
    other = dict(dataframe_split=split(rows(3).tail(1)))
    for _ in range(3): assert server.score(body(), x_request_id="r")[0] == 200
    moved(server, "r")
    for said in (body(), other): assert server.score(said, x_request_id="r")[0] == 200
    assert server.score(body(), x_request_id="after")[0] == 200
    moved(server, "after")
    assert len(log(item="r")) == 2                      # the second is another prediction that was called the same

# --- a full disk ---

@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path/"log"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True).returncode: pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)

def fill(folder):
    with open(folder/"filler", "wb", buffering=0) as f:
        try:
            while True: f.write(b"x"*4096)
        except OSError: pass

def test_a_full_disk_refuses_or_sheds_and_says_so(registry, small_disk):
    from mlops_nb.core import ledger
    for full in ("refuse", "shed"):
        server = started("delays", full=full, every=.2, folder=str(small_disk))
        try:
            assert server.score(body(), x_request_id=f"{full} before".replace(" ", "-"))[0] == 200
            fill(small_disk)
            answers = [server.score(body(300), x_request_id=f"{full}-{i}") for i in range(8)]
            assert {a[0] for a in answers[-5:]} == ({503} if full == "refuse" else {200}), answers[-1]
            if full == "refuse": assert "log is 'No space left on device'" in answers[-1][1]["message"]
            lost = server.metric("mlops_log_lost_total")
            (small_disk/"filler").unlink()
            assert server.score(body(), x_request_id=f"{full}-after")[0] == 200
            wait_until("it is whole again", lambda: server.score(body())[0] == 200, server.process)
        finally: ended(server)
        assert not list(small_disk.iterdir())          # all of it is in the warehouse
        seen = log()["item"]
        seen = seen[seen.str.startswith(full)]
        there = {i.split("/")[0] for i in seen if i.startswith(full)}
        kept = {f"{full}-{i}" for i, a in enumerate(answers) if a[0] == 200}
        assert seen.is_unique and {f"{full}-before", f"{full}-after"} <= there
        if full == "refuse": assert there == kept | {"refuse-before", "refuse-after"} and lost == 0
        else: assert lost == 300*len(kept - there) >= 1500
    said = ledger.findings(topic="predictions")
    assert said[said.check == "predictions not logged"].value.sum() == lost

def test_a_write_that_fails_leaves_nothing_half(server):
    import resource
    assert server.score(body(), x_request_id="good")[0] == 200
    errors, before = server.metric("mlops_log_errors_total"), resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (8, resource.RLIM_INFINITY))
    assert [server.score(body(n), x_request_id=f"no{n}")[0] for n in (1, 50)] == [503, 503]
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)
    assert server.score(body(2), x_request_id="good-again")[0] == 200 and server.metric("mlops_log_errors_total") == errors + 2
    assert not moved(server, "good", "good-again/1")["item"].str.startswith("no").any()

# --- kills ---

ASKED = """import asyncio, sys
import numpy as np
from mlops_nb.serve.batches import Batches, Ticket
from mlops_nb.serve.codec import Sent
from mlops_nb.serve.log import Log
from mlops_nb.serve.table import Table
def doubled(sent): return Table(sent.names, {"x": [r[0] for r in sent.cells]}, sent.n), np.array(sent.cells, float)[:, 0]*2
async def client(batches, name):
    for i in range(10**9):
        await batches.put(Sent(("x",), 1, [[i]]), Ticket(f"{name}-{i}", i))
        sys.stdout.write(f"{name}-{i}\\n")
        sys.stdout.flush()
async def main():
    batches = Batches(doubled, "double", 1, Log(every=.1))
    await asyncio.gather(*(client(batches, f"{sys.argv[1]}-{c}") for c in range(20)))
asyncio.run(main())"""

def killed_after(seconds, *command):
    "What it said until it was killed."
    p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    first = p.stdout.readline()
    threading.Timer(seconds, p.kill).start()
    said = [first, *p.stdout]
    p.wait()
    return [l.strip() for l in said if l.endswith("\n")]

def test_kills_of_a_log_lose_nothing_that_was_answered(registry):
    from mlops_nb.serve import drain
    r, answered = random.Random(1), []
    for i in range(8): answered += killed_after(r.uniform(0, .4), sys.executable, "-c", ASKED, f"run{i}")
    done, kept = drain.drain(wait=10), log(model_name="double")["item"]
    assert kept.is_unique and not set(answered) - set(kept) and len(answered) > 500 and done.lost == 0

def test_kills_of_a_server_lose_nothing_that_was_answered(registry):
    from mlops_nb.serve import drain
    bench, r, answered = load_bench("capture"), random.Random(2), []
    said = json.dumps(body()).encode()
    with bench.forked(registry, "delays", "0", "plain", "safe", ".2") as start:
        for _ in range(4): answered += bench.killed(start, said, r.uniform(.05, .6), 8)[0]
    drain.drain(wait=10)
    kept = log()["item"].value_counts()
    assert len(answered) > 20 and (kept.reindex(answered) == 1).all()

def test_kills_of_a_drain_move_each_prediction_once(registry):
    from mlops_nb.serve import drain
    from mlops_nb.serve.batches import Scored, Ticket
    from mlops_nb.serve.records import Packer
    from mlops_nb.serve.segments import Segment
    from mlops_nb.serve.table import Table
    r = random.Random(3)
    for i in range(30):
        segment = Segment(registry/"thirty")
        segment.append([Packer("thirty", 1)(Scored("thirty", 1, [Ticket(f"{i}-{j}", j) for j in range(5)], [1]*5, Table(("x",), {"x": np.arange(5.)}, 5), np.arange(5.), .1))])
        segment.seal()
    more = "import sys; from mlops_nb.serve import drain; print('ready', flush=True); drain.drain(sys.argv[1], 10)"
    for _ in range(3): killed_after(r.uniform(.05, .8), sys.executable, "-c", more, str(registry/"thirty"))
    drain.drain(registry/"thirty", 10)
    assert sorted(log(model_name="thirty")["item"]) == sorted(f"{i}-{j}" for i in range(30) for j in range(5)) and not list((registry/"thirty").iterdir())

def packed(folder, *calls):
    "A finished segment with these calls: model, version, columns, answers; requests are called by model and number."
    from mlops_nb.serve.batches import Scored, Ticket
    from mlops_nb.serve.records import Packer
    from mlops_nb.serve.segments import Segment
    from mlops_nb.serve.table import Table
    segment = Segment(folder)
    for model, version, columns, found in calls:
        n = len(found)
        segment.append([Packer(model, version)(Scored(model, version, [Ticket(f"{model}-{i}", 10**18 + i) for i in range(n)], [1]*n, Table(tuple(columns), columns, n), np.array(found, float), .1))])
    return segment.seal()

def test_a_moment_with_nanoseconds_is_kept_to_the_microsecond(registry):
    from mlops_nb.serve import drain
    packed(registry/"nano", ("nano", 1, {"at": np.array(["2013-04-01T05:00:00.123456789", "NaT"], "M8[ns]")}, [.1, .2]))
    assert drain.drain(registry/"nano", 10).rows == 2
    assert log(model_name="nano")["at"].astype(str).tolist() == ["2013-04-01 05:00:00.123456", "NaT"]

def test_a_segment_that_cannot_be_moved_holds_up_no_other(registry):
    from mlops_nb.core import ledger
    from mlops_nb.serve import drain
    folder = registry/"stuck"
    bad = packed(folder, ("stuck", "seven", {"x": [1]}, [.1]))      # its version is no number
    for i in range(2): packed(folder, (f"free{i}", 1, {"x": [1.]}, [.1]))
    done, again = drain.drain(folder, 10), drain.drain(folder, 10)
    assert (done.segments, done.rows, done.stuck, again.stuck) == (2, 2, 1, 1) and [*folder.iterdir()] == [bad]
    said = ledger.findings(topic="predictions")
    said = said[said.subject == bad.name]
    assert len(said) == 1 and "seven" in said.note.iloc[0] and bad.name in said.action.iloc[0] and not said.ok.iloc[0]
    assert len(log(model_name="free0")) == len(log(model_name="free1")) == 1

def test_numbers_with_and_without_gaps_are_packed(registry):
    from mlops_nb.serve import drain
    columns = [{"rank": [1, 2], "x": np.array([.5, .6])}, {"rank": np.array([np.nan, 3]), "x": np.array([.5, .6])}, {"rank": np.array([4, 5], np.int32), "x": np.array([.5, .6])}, {"rank": [1, None], "x": ["a", None]}]
    from mlops_nb.serve.batches import Scored, Ticket
    from mlops_nb.serve.records import Packer
    from mlops_nb.serve.segments import Segment
    from mlops_nb.serve.table import Table
    packer, segment = Packer("ranked", 1), Segment(registry/"ranked")
    segment.append([packer(Scored("ranked", 1, [Ticket(f"{i}-{j}", 1) for j in range(2)], [1, 1], Table(tuple(c), c, 2), np.array([.1, .2]), .1)) for i, c in enumerate(columns)])
    segment.seal()
    assert drain.drain(registry/"ranked", 10).rows == 8
    assert log(model_name="ranked").set_index("item")["rank"].sort_index().tolist()[:6] == pytest.approx([1, 2, np.nan, 3, 4, 5], nan_ok=True)

def test_a_request_that_cannot_be_packed_takes_no_other_with_it(registry):
    from mlops_nb.serve.batches import Batches, Ticket
    from mlops_nb.serve.codec import Refused, Sent
    from mlops_nb.serve.log import Log
    from mlops_nb.serve.segments import content, finished
    from mlops_nb.serve.table import Table
    def score(sent): return Table(("x",), {"x": [r[0] for r in sent.cells]}, sent.n), np.arange(float(sent.n))
    async def asked(log):
        batches = Batches(score, "odd", 1, log)
        sent = [Sent(("x",), 1, [[v]]) for v in ("a", {(1, 2): 3}, "b", "c")]       # JSON has no word for the second
        try: return batches, await asyncio.gather(*(batches.put(s, Ticket(f"r{i}", i)) for i, s in enumerate(sent)), return_exceptions=True)
        finally: await asyncio.to_thread(log.close)
    log = Log(registry/"unpacked")
    batches, said = asyncio.run(asked(log))
    assert batches.calls == 1 and [s if isinstance(s, Refused) else s.tolist() for s in said] == [[0], said[1], [2], [3]] and said[1].status == 503
    kept = [v for p in finished(log.folder)[0] for _, t in content(p).tables for v in t["id"].to_pylist()]
    assert kept == ["r0", "r2", "r3"]

@pytest.mark.parametrize("full", ["refuse", "shed"])
def test_the_fast_log_gives_up_what_it_cannot_hold_and_says_so(registry, full, caplog):
    from mlops_nb.serve.batches import Batches, Ticket
    from mlops_nb.serve.codec import Sent
    from mlops_nb.serve.log import Log
    from mlops_nb.serve.segments import content, finished
    from mlops_nb.serve.table import Table
    def score(sent): return Table(("x",), {"x": [r[0] for r in sent.cells]}, sent.n), np.arange(float(sent.n))
    async def asked(log):
        batches = Batches(score, "odd", 1, log)
        async def some(*values): return await asyncio.gather(*(batches.put(Sent(("x",), 1, [[v]]), Ticket(f"r{v}" if isinstance(v, str) else "unpacked", i)) for i, v in enumerate(values)))
        first = await some("a", {(1, 2): 3}, "b")                   # one call, one of three that JSON has no word for
        await asyncio.sleep(.3)
        try: return first, await some("c"), log.rows, dict(log.counts)
        finally: await asyncio.to_thread(log.close)
    log = Log(registry/f"given-up-{full}", "fast", full, window=.02)
    first, later, waiting, counts = asyncio.run(asked(log))
    assert len(first) == 3 and len(later) == 1 and waiting <= 1 and counts["lost"] == 1 and log.counts["rows"] == 3 and log.metrics()["mlops_log_lost_total", ()] == 1
    held = [content(p) for p in finished(log.folder)[0]]
    assert [v for h in held for _, t in h.tables for v in t["id"].to_pylist()] == ["ra", "rb", "rc"]
    assert [n["rows"] for h in held for n in h.notes if n.get("what") == "lost"] == [1] and "unpacked" in caplog.text and caplog.text.count("cannot hold them") == 1

def test_only_what_does_not_fit_goes_beside_its_column(registry):
    from mlops_nb.serve import drain
    folder, big = registry/"beside", 2**53 + 1
    packed(folder, ("wide", 1, {"place": np.array([1., np.nan]), "door": ["a", "b"]}, [.1, .2]))
    drain.drain(folder, 10)
    packed(folder, ("whole", 1, {"place": np.array([1, big, 3]), "door": ["c", None, "d"]}, [.1, .2, .3]), ("whole2", 1, {"place": ["four", "5"], "door": [1, 2]}, [.1, .2]))
    packed(folder, ("whole3", 1, {"place": np.array([7, 8]), "door": ["e", "f"]}, [.1, .2]), ("whole3", 1, {"place": ["nine"], "door": ["g"]}, [.1]))
    assert drain.drain(folder, 10).stuck == 0
    seen = {m: log(model_name=m).sort_values("item")[["place", "place_text", "door", "door_number"]] for m in ("whole", "whole2", "whole3")}
    assert seen["whole"].place.tolist() == pytest.approx([1, np.nan, 3], nan_ok=True) and seen["whole"].place_text.tolist() == [None, str(big), None] and seen["whole"].door.tolist() == ["c", None, "d"]
    assert seen["whole2"].place_text.tolist() == ["four", "5"] and seen["whole2"].door_number.tolist() == [1, 2] and seen["whole2"].place.isna().all()
    assert sorted(seen["whole3"].place.dropna()) == [7, 8] and seen["whole3"].place_text.dropna().tolist() == ["nine"]

# --- batch ---

def test_a_batch_job_goes_on_where_it_was_killed(registry):
    from mlops_nb.data import dataset
    from mlops_nb.registry import models
    from mlops_nb.serve import scoring
    df = pd.concat([flights()[0]]*50, ignore_index=True)
    dataset.commit(df, "year")
    job = "from mlops_nb.serve import scoring; scoring.score('year', 'delays', 1, size=1000, told=lambda d: print(d.scored, flush=True))"
    said = killed_after(.3, sys.executable, "-c", job)
    assert 0 < int(said[-1]) < len(df), said
    before, done = len(log(role="batch")), scoring.score("year", "delays", 1, size=1000)
    seen = log(role="batch")
    assert before > 0 and done.passed == before and done.scored == len(df) - before and seen["item"].is_unique and len(seen) == len(df)
    seen = seen.set_index("item").loc[[f"year@v0/{i}" for i in range(len(df))]]
    assert np.allclose(seen.score, models.load("delays", 1)[0].predict_proba(df)[:, 1], rtol=1e-12)
    dataset.append(df.head(10).assign(hour=3), "year")
    assert scoring.score("year", "delays", 1).scored == len(df) + 10   # another version: rows are called by their place in it
