"""What the prediction log costs: the server of bench/serve.py with the log off, `fast` and `safe`, with the compiled scorer and with scikit-learn's, beside `mlflow models serve`, which logs nothing. All run at once and are asked one
after the other, round by round, by 1 and by 32 connections with one-row bodies of 15 columns; medians. CPU is that of the server's processes. KILLS=100 kills the server (SIGKILL) that often at random moments under load instead, and then
looks for every answered prediction in the data set. ROUNDS, SECONDS, ONLY=compiled-off,mlflow limit the work. FSYNC is what the disk alone takes for 4 kB."""
import json, os, random, select, signal, socket, statistics, subprocess, sys, tempfile, threading, time, urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
import serve

ROUNDS, SECONDS = int(os.environ.get("ROUNDS", 5)), float(os.environ.get("SECONDS", 2))
OURS = """import sys
from functools import partial
from mlops_nb.serve.drain import durable, endpoint
from mlops_nb.serve.limits import Serving
from mlops_nb.serve.server import run
model, port, how, log, every = sys.argv[1:]
options = {} if log == "off" else dict(log=partial(durable, log, every=float(every)), outcomes=partial(endpoint, log, every=float(every)))
run(model, Serving(access="", compiled=how == "compiled"), port=int(port), told=lambda said: None, **options)"""

def free():
    with socket.create_server(("127.0.0.1", 0)) as s: return s.getsockname()[1]

def candidates(files, m):
    ours = {f"{how}-{log}": lambda port, how=how, log=log: [sys.executable, "-c", OURS, m, str(port), how, log, "60"] for how in ("compiled", "plain") for log in ("off", "fast", "safe")}
    return ours | dict(mlflow=lambda port: serve.candidates(None, files)["mlflow"](m, port)[0])

def fsync(folder, n=100):
    "Median seconds of a write of 4 kB that is on the disk."
    took = []
    with open(folder/"fsync", "wb") as f:
        for _ in range(n):
            begin = time.perf_counter()
            f.write(os.urandom(4096)); f.flush(); os.fdatasync(f.fileno())
            took.append(time.perf_counter() - begin)
    return statistics.median(took)

def counts(port):
    lines = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode().splitlines()
    return {l.split()[0]: float(l.split()[1]) for l in lines if l.startswith("mlops_log_") and "{" not in l}

def written(a, b): return (b["mlops_log_rows_total"] - a["mlops_log_rows_total"])/max(b["mlops_log_groups_total"] - a["mlops_log_groups_total"], 1)

def compare(folder, files, m):
    body, only = (folder/f"{m}-1-split.json").read_bytes(), os.environ.get("ONLY")
    with ExitStack() as stack:
        running = {}
        for name, command in candidates(files, m).items():
            if only and name not in only.split(","): continue
            port = free()
            process = stack.enter_context(serve.serving(command(port), {}, folder))
            serve.first(port, "/invocations", body, process)
            running[name] = port, process
        time.sleep(10)   # ours look for the faster scorer
        found = {n: [] for n in running}
        for i in range(ROUNDS + 1):
            for n, (port, process) in running.items():
                said = {}
                for connections in (1, 32):
                    before, kept = serve.cpu(process), counts(port) if n != "mlflow" else {}
                    times, bad, took = serve.load(port, serve.request("/invocations", body), connections, SECONDS)
                    if bad: raise RuntimeError(f"{n}: {bad} answers were not 200")
                    said |= {f"{connections} req/s": len(times)/took, f"{connections} p50 ms": times[len(times)//2]*1e3, f"{connections} p99 ms": times[int(len(times)*.99)]*1e3, f"{connections} cpu us": (serve.cpu(process) - before)/len(times)*1e6}
                    if kept and connections > 1: said["32 rows a write"] = written(kept, counts(port))
                if i: found[n].append(said)   # the first round warms up
        print(f"\n{m}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {ROUNDS} rounds of {SECONDS:g} s; medians; a write of 4 kB to the disk {fsync(folder)*1e3:.2f} ms")
    middle = {n: {k: statistics.median(f[k] for f in fs) for k in fs[0]} for n, fs in found.items()}
    base = middle.get("mlflow")
    print(f"{'':16}" + "".join(f"{n:>22}" for n in middle))
    for k in dict.fromkeys(k for v in middle.values() for k in v):
        print(f"{k:16}" + "".join(f"{v[k]:>13,.{0 if v[k] > 100 else 2}f}{f'({v[k]/base[k]:.2f}x)' if base and k in base else '':>9}" if k in v else " "*22 for v in middle.values()))

# --- kills ---

def ask(port, body, connections, until):
    "Ids of the requests that were answered 200 before the server died, and of all that were sent."
    head = f"POST /invocations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nx-request-id: "
    run, poll, answered, asked, part, n = f"k{time.time_ns():x}", select.epoll(), [], {}, {}, 0
    socks = {s.fileno(): s for s in (socket.create_connection(("127.0.0.1", port), 60) for _ in range(connections))}
    def send(f):
        nonlocal n
        asked[f], n = f"{run}-{n}", n + 1
        socks[f].sendall((head + asked[f] + "\r\n\r\n").encode() + body)
    try:
        for f in socks:
            poll.register(f, select.EPOLLIN)
            send(f)
        while not until(len(answered)):
            for f, _ in poll.poll(5):
                data = part.pop(f, b"") + socks[f].recv(1 << 16)
                if not data: return answered, n
                if not serve.whole(data): part[f] = data
                else:
                    if data[9:12] == b"200": answered.append(asked[f])
                    send(f)
    except OSError: pass
    finally:
        for s in socks.values(): s.close()
    return answered, n

def killed(start, body, seconds, connections=32):
    "Start, ask, kill after so many seconds of load; the ids that were answered, and how many were sent."
    port = free()
    pid = start(port)
    serve.first(port, "/invocations", body, psutil.Process(pid))
    threading.Timer(seconds, os.kill, (pid, signal.SIGKILL)).start()
    found = ask(port, body, connections, lambda n: False)
    while psutil.pid_exists(pid): time.sleep(.01)
    return found

FORKS = OURS.replace("run(model", "import mlops_nb.serve.app, mlflow, sklearn.ensemble, signal, os\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nfor port in sys.stdin:\n    pid = os.fork()\n    if pid: print(pid, flush=True)\n    else: run(model")

@contextmanager
def forked(folder, *words):
    "Starts servers from a process that has imported everything: `start(port) -> pid`."
    with open(folder/"said.log", "a") as log: parent = subprocess.Popen([sys.executable, "-c", FORKS, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    def start(port):
        print(port, file=parent.stdin, flush=True)
        return int(parent.stdout.readline())
    try: yield start
    finally:
        parent.stdin.close()
        parent.wait(30)

def kills(folder, times, m="linear"):
    from mlops_nb.data import dataset
    from mlops_nb.serve import drain
    body, r, answered, sent = (folder/f"{m}-1-split.json").read_bytes(), random.Random(0), [], 0
    with forked(folder, m, "0", "compiled", "safe", ".4") as start:
        for i in range(times):
            ids, n = killed(start, body, r.uniform(.01, 2.))
            answered, sent = answered + ids, sent + n
            if i % 10 == 9: print(f"{i + 1} kills, {len(answered):,} answered of {sent:,}; load {os.getloadavg()[0]:.1f}", flush=True)
    print(drain.drain(wait=60))
    kept = dataset.read("predictions", columns=["item"])["item"].value_counts()
    found = kept.reindex(answered)
    print(f"{times} kills: of {len(answered):,} answered predictions {int(found.isna().sum())} are missing and {int((found > 1).sum())} there more than once; {len(kept) - len(answered):,} were logged and not answered any more")
    return int(found.isna().sum()) + int((found > 1).sum())

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as tmp:
        os.environ.update(MLOPS_NB_ROOT=tmp, PYTHONPATH=os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]), **serve.QUIET)
        files = serve.make(Path(tmp))
        if os.environ.get("KILLS"): sys.exit(kills(Path(tmp), int(os.environ["KILLS"])) != 0)
        for m in os.environ.get("MODELS", "trees,linear").split(","): compare(Path(tmp), files, m)
