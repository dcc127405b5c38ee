"""The server beside `mlflow models serve`, BentoML and MLServer: the same model, the same rows, 15 columns, one process each, loopback. Every candidate is started anew in every round (cold: seconds
until the first answer), asked by 1 and by 32 connections with one-row bodies, and with 1,000-row bodies, and stopped; alternating, medians. The client is wrk where it is installed (`apt-get install wrk`), else a loop over epoll on raw
sockets, which takes about as long for a request as the fastest server. CPU is that of the server's processes. Peers live in ~/.cache/mlops-nb/bench/serve. ROUNDS, SECONDS, MODELS=trees,linear, ONLY=ours,mlflow limit the work; FUZZ=600 fuzzes for so many
seconds with schemathesis from our own OpenAPI instead; SWITCH=1 measures switches under load."""
import json, os, select, shutil, socket, statistics, subprocess, sys, tempfile, time, urllib.request
from contextlib import contextmanager
from pathlib import Path

ROUNDS, SECONDS = int(os.environ.get("ROUNDS", 3)), float(os.environ.get("SECONDS", 3))
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home()/".cache"))/"mlops-nb/bench/serve"
PEERS = dict(bentoml=["bentoml==1.4.39"], mlserver=["mlserver==1.7.1"], schemathesis=["schemathesis>=4"])
QUIET = dict(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", BENTOML_DO_NOT_TRACK="True", OMP_NUM_THREADS="1")

# --- the client ---

def request(path, body, kind="application/json"): return f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

def load(port, said, connections, seconds):
    "Closed loop over keep-alive connections: latencies (s), answers that were not 200, seconds it took."
    poll, clock, times, bad, part = select.epoll(), time.perf_counter, [], 0, {}
    socks = {s.fileno(): s for s in (socket.create_connection(("127.0.0.1", port), 60) for _ in range(connections))}
    for f, s in socks.items():
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(f, select.EPOLLIN)
    begin, sent = clock(), {}
    for f, s in socks.items(): sent[f] = clock(); s.sendall(said)
    while True:
        for f, _ in poll.poll(60):
            data = part.pop(f, b"") + socks[f].recv(1 << 18)
            if whole(data):
                now = clock()
                times.append(now - sent[f])
                bad += data[9:12] != b"200"
                if now - begin > seconds:
                    for s in socks.values(): s.close()
                    return sorted(times), bad, now - begin
                sent[f] = now
                socks[f].sendall(said)
            else: part[f] = data

def whole(data):
    head = data.find(b"\r\n\r\n")
    if head < 0: return False
    lower = data[:head + 2].lower()
    at = lower.find(b"content-length: ")
    return data.endswith(b"0\r\n\r\n") if at < 0 else len(data) == head + 4 + int(lower[at + 16:lower.find(b"\r", at)])

WRK = """
local f = io.open(os.getenv("BODY"), "rb"); wrk.body = f:read("*a"); f:close()
wrk.method = "POST"; wrk.headers["content-type"] = "application/json"
done = function(all, latency) io.write(string.format("%d %d %f %f %f", all.requests, all.errors.status, latency:percentile(50), latency:percentile(99), all.duration)) end
"""

def asked(port, path, file, connections, seconds):
    "Answers, those that were not 200, median and 99th percentile (ms), seconds it took."
    if not shutil.which("wrk"):
        times, bad, took = load(port, request(path, file.read_bytes()), connections, seconds)
        return len(times), bad, times[len(times)//2]*1e3, times[int(len(times)*.99)]*1e3, took
    (file.parent/"wrk.lua").write_text(WRK)
    words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "-s", file.parent/"wrk.lua", f"http://127.0.0.1:{port}{path}"]
    said = subprocess.run(words, env={**os.environ, "BODY": str(file)}, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    n, bad, middle, late, took = map(float, said)
    return int(n), int(bad), middle/1e3, late/1e3, took/1e6

# --- models and bodies ---

def make(folder):
    "Two models, registered here and pickled for the peers; the bodies for each."
    import cloudpickle, numpy as np, pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from mlops_nb.registry import models
    r, n = np.random.default_rng(0), 5000
    X = pd.DataFrame(r.normal(size=(n, 15)), columns=[f"f{i}" for i in range(15)])
    Z, y = X.iloc[:, :11].assign(**{f"c{i}": r.choice(list("abcdef"), n) for i in range(4)}), (X.f0 + X.f1*X.f2 + r.normal(size=n) > 0).astype(int)
    linear = make_pipeline(make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), [c for c in Z if c[0] == "f"]), (OneHotEncoder(handle_unknown="ignore"), [c for c in Z if c[0] == "c"])), LogisticRegression(max_iter=500))
    for name, model, df in (("trees", HistGradientBoostingClassifier(max_iter=100, random_state=0), X), ("linear", linear, Z)):
        for seed in (0, 1):
            model.fit(df.iloc[seed:], y.iloc[seed:])
            models.register(model, name, df.head(5), {}, {"auc": .8})
        models.promote(name, 1, "bench")
        (folder/f"{name}.pkl").write_bytes(cloudpickle.dumps(models.load(name, 1)[0]))
        for k in (1, 1000):
            split = dict(columns=list(df), data=df.head(k).to_numpy().tolist())
            tensors = [dict(name=c, shape=[k, 1], datatype="BYTES" if df[c].dtype == object else "FP64", data=df[c].head(k).tolist(), **({"parameters": {"content_type": "str"}} if df[c].dtype == object else {})) for c in df]
            for form, said in dict(split=dict(dataframe_split=split), plain=split, v2=dict(parameters=dict(content_type="pd"), inputs=tensors)).items(): (folder/f"{name}-{k}-{form}.json").write_text(json.dumps(said))
    return {name: str(models.files(name, 1)) for name in ("trees", "linear")}

BENTO = """
import bentoml, cloudpickle, os, pandas as pd
@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Model:
    def __init__(self):
        with open(os.environ["PICKLE"], "rb") as f: self.model = cloudpickle.load(f)
    @bentoml.api(route="/invocations")
    def predict(self, columns: list, data: list) -> list: return self.model.predict_proba(pd.DataFrame(data, columns=columns)).tolist()
"""
MLSERVER = """
import cloudpickle, os
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceResponse
class Model(MLModel):
    async def load(self):
        with open(os.environ["PICKLE"], "rb") as f: self.model = cloudpickle.load(f)
        return True
    async def predict(self, payload):
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("predictions", self.model.predict_proba(PandasCodec.decode_request(payload)))])
"""
OURS = "import sys; from mlops_nb.serve.limits import Serving; from mlops_nb.serve.server import run; run(sys.argv[1], Serving(access=sys.argv[4], compiled=sys.argv[3] == 'compiled'), port=int(sys.argv[2]), told=lambda said: None)"

def candidates(folder, files):
    "name -> (command, path, form of the body, environment) for a model and a port."
    peer = lambda name: str(HOME/name/"bin"/name)
    ours = lambda how: lambda m, port: ([sys.executable, "-c", OURS, m, str(port), how, os.devnull], "/invocations", "split", {})
    return dict(compiled=ours("compiled"), plain=ours("plain"),
        mlflow=lambda m, port: ([sys.executable, "-m", "mlflow", "models", "serve", "-m", files[m], "--env-manager", "local", "-p", str(port), "-h", "127.0.0.1"], "/invocations", "split", {}),
        bentoml=lambda m, port: ([peer("bentoml"), "serve", "service:Model", "-p", str(port), "--host", "127.0.0.1"], "/invocations", "plain", dict(PICKLE=f"{folder}/{m}.pkl")),
        mlserver=lambda m, port: ([peer("mlserver"), "start", str(folder/"mlserver")], "/v2/models/m/infer", "v2", dict(PICKLE=f"{folder}/{m}.pkl", MLSERVER_HTTP_PORT=str(port), MLSERVER_GRPC_PORT=str(port + 1), MLSERVER_METRICS_PORT=str(port + 2))))

def prepare(folder, wanted):
    import sklearn, numpy, pandas
    for name, what in PEERS.items():
        if name not in wanted or (HOME/name/"bin"/name).exists(): continue
        HOME.mkdir(parents=True, exist_ok=True)
        subprocess.run(["uv", "venv", "-q", "-p", sys.executable, HOME/name], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", HOME/name/"bin/python", *what, f"scikit-learn=={sklearn.__version__}", f"numpy=={numpy.__version__}", f"pandas=={pandas.__version__}", "cloudpickle"], check=True)
    (folder/"service.py").write_text(BENTO)
    (folder/"mlserver").mkdir()
    (folder/"mlserver/runtime.py").write_text(MLSERVER)
    (folder/"mlserver/settings.json").write_text(json.dumps(dict(parallel_workers=0, debug=False, host="127.0.0.1", access_log_level="CRITICAL")))
    (folder/"mlserver/model-settings.json").write_text(json.dumps(dict(name="m", implementation="runtime.Model")))

# --- one candidate, once ---

@contextmanager
def serving(command, env, folder):
    "The process with its children; killed at the end."
    import psutil
    with open(folder/"said.log", "a") as log: process = subprocess.Popen(list(map(str, command)), cwd=folder, env={**os.environ, **QUIET, **env}, stdout=log, stderr=log, start_new_session=True)
    try: yield psutil.Process(process.pid)
    finally:
        import signal
        try: os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError: pass
        process.wait()

def first(port, path, body, process):
    "Seconds until the first answer."
    begin = time.perf_counter()
    while time.perf_counter() - begin < 180:
        try: return json.load(urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"}), timeout=30)) and time.perf_counter() - begin
        except OSError: time.sleep(.02)
        if not process.is_running() or process.status() == "zombie": break
    raise RuntimeError(f"{process} does not answer; see its log")

def cpu(process): return sum(sum(p.cpu_times()[:2]) for p in [process, *process.children(recursive=True)])

def measure(candidate, m, folder, settled=8):
    with socket.create_server(("127.0.0.1", 0)) as s: port = s.getsockname()[1]
    command, path, form, env = candidate(m, port)
    bodies = {k: folder/f"{m}-{k}-{form}.json" for k in (1, 1000)}
    with serving(command, env, folder) as process:
        cold = first(port, path, bodies[1].read_bytes(), process)
        time.sleep(settled)   # ours looks for the faster scorer
        found = dict(cold=cold, memory=sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])/2**20)
        for what, k, connections in (("1", 1, 1), ("32", 1, 32), ("rows", 1000, 1)):
            asked(port, path, bodies[k], connections, .5)
            before = cpu(process)
            n, bad, middle, late, took = asked(port, path, bodies[k], connections, SECONDS)
            if bad: raise RuntimeError(f"{bad} answers of {what} were not 200")
            found |= {f"{what} req/s": n*k/took, f"{what} p50 ms": middle, f"{what} p99 ms": late, f"{what} cpu us": (cpu(process) - before)/n/k*1e6}
    return found

def compare(folder, files):
    only = os.environ.get("ONLY", "compiled,plain,mlflow,bentoml,mlserver").split(",")
    prepare(folder, only)
    rivals = {n: c for n, c in candidates(folder, files).items() if n in only}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {ROUNDS} rounds of {SECONDS:g} s; medians")
    for m in os.environ.get("MODELS", "trees,linear").split(","):
        found = {n: [] for n in rivals}
        for _ in range(ROUNDS):
            for n, c in rivals.items():
                try: found[n].append(measure(c, m, folder))
                except RuntimeError as e: print(f"  {n}: {e}")
        middle = {n: {k: statistics.median(f[k] for f in fs) for k in fs[0]} for n, fs in found.items() if fs}
        show(m, middle)

def show(m, middle):
    base = middle.get("mlflow", {})
    print(f"\n{m:10}" + "".join(f"{n:>24}" for n in middle))
    for k in next(iter(middle.values())):
        print(f"{k:14}" + "".join(f"{v[k]:>14,.{0 if v[k] > 100 else 2}f}{f'({v[k]/base[k]:.2f}x)' if base else '':>10}" for v in middle.values()))
    print(f"load {os.getloadavg()[0]:.1f}")

# --- fuzz and switch ---

@contextmanager
def ours(folder, model="linear", how="compiled"):
    with socket.create_server(("127.0.0.1", 0)) as s: port = s.getsockname()[1]
    command, path, _, env = candidates(folder, {})[how](model, port)
    with serving(command, env, folder) as process:
        first(port, path, (folder/f"{model}-1-split.json").read_bytes(), process)
        yield port, process

def fuzz(folder, seconds):
    "schemathesis from our own OpenAPI: no 500, no hang."
    prepare(folder, ["schemathesis"])
    with ours(folder) as (port, _):
        end, runs = time.time() + seconds, 0
        while time.time() < end:
            done = subprocess.run([HOME/"schemathesis/bin/schemathesis", "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--max-examples", "300", "--request-timeout", "10", "--seed", str(runs), "--exclude-path", "/metrics", "--max-failures", "5"], capture_output=True, text=True, cwd=folder)
            runs += 1
            print("\n".join(done.stdout.splitlines()[-14:]))
            if done.returncode: raise SystemExit(done.stdout[-6000:] + done.stderr[-2000:])
        print(f"{runs} runs in {seconds:g} s, no 500, no hang")

def switch(folder, times=10):
    "Seconds from the promotion to the first answer of the new version, under load; answers that failed."
    from concurrent.futures import ThreadPoolExecutor
    from mlops_nb.registry import models
    body, took = (folder/"linear-1-split.json").read_bytes(), []
    def version(port): return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"content-type": "application/json"})).headers["x-model-version"]
    with ours(folder) as (port, _), ThreadPoolExecutor(1) as pool:
        time.sleep(8)
        asked = pool.submit(load, port, request("/invocations", body), 32, times*3.)
        for i in range(times):
            models.promote("linear", 2 - i % 2, "bench")
            begin = time.perf_counter()
            while version(port) != str(2 - i % 2): time.sleep(.01)
            took.append(time.perf_counter() - begin)
            time.sleep(.5)
        latencies, bad, seconds = asked.result()
    print(f"{times} switches under 32 connections: median {statistics.median(took):.2f} s, longest {max(took):.2f} s; {len(latencies):,} requests, {bad} failed, p99 {latencies[int(len(latencies)*.99)]*1e3:.1f} ms; load {os.getloadavg()[0]:.1f}")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as tmp:
        os.environ.update(MLOPS_NB_ROOT=tmp, PYTHONPATH=os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]), **QUIET)
        folder = Path(tmp)
        files = make(folder)
        if os.environ.get("FUZZ"): fuzz(folder, float(os.environ["FUZZ"]))
        elif os.environ.get("SWITCH"): switch(folder)
        else: compare(folder, files)
