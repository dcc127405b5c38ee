"Real servers for tests and benches, on loopback: Postgres from the machine's binaries, an S3-compatible store, MLflow's tracking server. Each has a port and a folder of its own."
import os, pwd, shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time
from pathlib import Path

import pytest

from conftest import free_port

BINARIES = next((p for p in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True) if (p/"initdb").exists()), None)
QUIET = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
KEYS = dict(AWS_ACCESS_KEY_ID="team", AWS_SECRET_ACCESS_KEY="s3cr3t-of-the-team", AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")

def answers(port, seconds=120, process=None):
    "Wait until somebody listens."
    end = time.monotonic() + seconds
    while True:
        try: return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process is None or process.poll() is None, "the server ended at once"
            assert time.monotonic() < end, f"nobody listens on {port} after {seconds} s"
            time.sleep(.05)

class Postgres:
    "Refuses to run as root, so root becomes somebody else for it. -F: here clients and servers are killed, not the machine."
    def __init__(self, password=""):
        self.folder, self.port, self.password = Path(tempfile.mkdtemp(prefix="mlops-nb-pg-", dir="/tmp")), free_port(), password
        who = pwd.getpwnam("postgres" if any(p.pw_name == "postgres" for p in pwd.getpwall()) else "nobody") if os.getuid() == 0 else None
        self.how = dict(user=who.pw_uid, group=who.pw_gid, extra_groups=[], cwd=self.folder, **QUIET) if who else dict(cwd=self.folder, **QUIET)
        if password: (self.folder/"pw").write_text(password)
        if who:
            for p in (self.folder, *self.folder.iterdir()): os.chown(p, who.pw_uid, who.pw_gid)
        subprocess.run([BINARIES/"initdb", "-D", self.folder/"data", "-U", "mlops", "--no-sync", "-E", "UTF8", *(["-A", "scram-sha-256", "--pwfile", self.folder/"pw"] if password else ["-A", "trust"])], check=True, **self.how)
        self.start()

    def url(self, database="postgres", password=None):
        word = self.password if password is None else password
        return f"postgresql+psycopg://mlops{':' + word if word else ''}@127.0.0.1:{self.port}/{database}"

    def start(self):
        self.server = subprocess.Popen([BINARIES/"postgres", "-D", self.folder/"data", "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder), "-F", "-c", "max_connections=200"], **self.how)
        end = time.monotonic() + 60
        while subprocess.run([BINARIES/"pg_isready", "-h", "127.0.0.1", "-p", str(self.port)], **self.how).returncode:
            assert time.monotonic() < end, "Postgres does not come up"
            time.sleep(.05)

    def stop(self, how=signal.SIGINT):
        "SIGINT: at once, its clients are cut off. SIGKILL: as when the machine dies."
        self.server.send_signal(how)
        self.server.wait(60)
        if how == signal.SIGKILL: time.sleep(.3)   # its children notice

    def make(self, name):
        "An empty database of that name."
        import sqlalchemy as sa
        made = sa.create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with made.connect() as c:
            for words in (f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"'): c.execute(sa.text(words))
        made.dispose()
        return self.url(name)

    def end(self):
        if self.server.poll() is None: self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

class S3:
    "moto's server. What it keeps is gone when it ends; an outage is therefore a stop of its process, not its end."
    def __init__(self, **more):
        self.port = free_port()
        self.server = subprocess.Popen([sys.executable, "-P", "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(self.port)], env={**os.environ, **KEYS, **more}, **QUIET)
        answers(self.port, process=self.server)

    @property
    def settings(self): return dict(KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{self.port}")

    def bucket(self, name):
        import boto3
        boto3.client("s3", endpoint_url=self.settings["AWS_ENDPOINT_URL"], region_name="us-east-1", aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"]).create_bucket(Bucket=name)
        return f"s3://{name}"

    def end(self):
        self.server.send_signal(signal.SIGCONT)
        self.server.kill()
        self.server.wait(30)

class Outage:
    "A line to a server on this machine that can be cut: connections that stand are reset, new ones refused."
    def __init__(self, to):
        self.to, self.port, self.open, self.listener = to, free_port(), set(), None
        self.mend()

    def mend(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        threading.Thread(target=self._take, args=(self.listener,), daemon=True).start()

    def cut(self):
        try: self.listener.shutdown(socket.SHUT_RDWR)
        except OSError: pass
        self.listener.close()
        for s in list(self.open): self._end(s)

    def _take(self, listener):
        while True:
            try: here = listener.accept()[0]
            except OSError: return
            try: there = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                here.close()
                continue
            self.open |= {here, there}
            for a, b in ((here, there), (there, here)): threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, a, b):
        try:
            while data := a.recv(1 << 16): b.sendall(data)
        except OSError: pass
        for s in (a, b): self._end(s)

    def _end(self, s):
        self.open.discard(s)
        try:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
        s.close()

    def end(self): self.cut()

class MLflow:
    "MLflow's own server over the given database, models in the given place."
    def __init__(self, database, artifacts, env):
        self.port = free_port()
        self.server = subprocess.Popen([sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", database, "--artifacts-destination", artifacts, "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"],
                                       env={**os.environ, **env}, start_new_session=True, **QUIET)
        answers(self.port, process=self.server)

    @property
    def url(self): return f"http://127.0.0.1:{self.port}"

    def end(self):
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait(30)

# --- fixtures ---

@pytest.fixture(scope="session")
def pg():
    "A Postgres server of our own."
    if BINARIES is None: pytest.skip("no Postgres binaries on this machine")
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    server = Postgres()
    yield server
    server.end()

@pytest.fixture(scope="session")
def s3():
    "An S3-compatible server of our own."
    for name in ("moto", "s3fs"): pytest.importorskip(name, reason="the extras `s3` and `dev` are not installed")
    server = S3()
    yield server
    server.end()
