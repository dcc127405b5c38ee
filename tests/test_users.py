"Two people on one machine: their own projects at the same time, the same port, one project of a group, one folder for temporary files, one installation. To become each of them takes root."
import json, os, shutil, signal, subprocess, sys, tempfile
from pathlib import Path

import pytest

from conftest import MAIN, free_port, one_line, write_notebook, write_settings

pytestmark = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0 or not shutil.which("setpriv"), reason="to be two users takes root, and setpriv")
ANN, BOB, TEAM = 61_001, 61_002, 61_000   # numbers that no account has, as in a container
CAPABLE = [] if all(p.stat().st_mode & 1 for p in Path(os.path.realpath(sys.executable)).parents) else ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]   # an interpreter below /root: to read it, not to write

class Box:
    "A machine with one folder for temporary files, where anybody may start anything."
    def __init__(self):
        self.folder, self.left = Path(tempfile.mkdtemp(prefix="mlops-nb-users-", dir="/tmp")), []
        self.folder.chmod(0o755)
        for name, mode in (("tmp", 0o1777), ("home", 0o755)): self.make(self.folder/name, 0, mode)
        for uid in (ANN, BOB): self.make(self.folder/f"home/{uid}", uid, 0o700)

    def make(self, path, uid, mode, group=None):
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, uid, uid if group is None else group)
        path.chmod(mode)
        return path

    def begin(self, uid, folder, *words, umask=0o022, **env):
        about = {k: v for k, v in os.environ.items() if not k.startswith(("MLOPS_NB_", "XDG_", "JUPYTER")) and k not in ("USER", "LOGNAME", "USERNAME", "LNAME")}
        about |= {"HOME": str(self.folder/f"home/{uid}"), "TMPDIR": str(self.folder/"tmp"), "MLOPS_NB_ROOT": str(folder), **env}
        who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={TEAM}", *CAPABLE, "--"]
        self.left.append(p := subprocess.Popen([*who, *words], cwd=folder, env=about, umask=umask, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True))
        return p

    def ended(self, *processes):
        "Each as `subprocess.run` returns it."
        said = [p.communicate(timeout=240) for p in processes]
        return [subprocess.CompletedProcess(p.args, p.returncode, *s) for p, s in zip(processes, said)]

    def end(self):
        for p in self.left:
            if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
            p.communicate()
        for stat in Path("/proc").glob("[0-9]*"):   # zygotes and their kernels
            try:
                if stat.stat().st_uid in (ANN, BOB): os.kill(int(stat.name), signal.SIGKILL)
            except OSError: pass
        shutil.rmtree(self.folder, ignore_errors=True)

@pytest.fixture
def box():
    made = Box()
    yield made
    made.end()

STAGE = "import os, time\nfrom mlops_nb.core import config, executors, ledger, store\nwith executors.slot(): time.sleep(.3)\nledger.wrote('thing', 'part', os.getuid())\nstore.write_text(config.root()/'who', str(os.getuid()))"

def project(box, name, uid, group=None, **settings):
    folder = box.folder/name
    for stage in ("make", "use"): write_notebook(folder/f"nbs/workflows/{stage}.ipynb", STAGE, parameters="n = 1")
    write_settings(folder, mlops_nb=dict(lock_timeout="60", **settings), pipeline=dict(make="", use="make"))
    for p in [folder, *folder.rglob("*")]:
        os.chown(p, uid, uid if group is None else group)
        p.chmod((0o2775 if p.is_dir() else 0o664) if group else 0o700 if p.is_dir() else 0o600)
    return folder

def runs(box, uid, folder):
    done, = box.ended(box.begin(uid, folder, sys.executable, "-P", "-c", "from mlops_nb.core import ledger; print(ledger.runs()[['stage', 'state', 'user']].to_json(orient='values'))"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

def test_two_projects_at_once(box):
    "With warm kernels and a quota of one each: nobody waits for the other's place, and nobody gets the other's kernel."
    folders = {uid: project(box, f"of{uid}", uid, jobs="1") for uid in (ANN, BOB)}
    for _ in range(2):
        both = box.ended(*(box.begin(uid, folder, *MAIN, "run", "--force") for uid, folder in folders.items()))
        assert [d.returncode for d in both] == [0, 0], [d.stderr for d in both]
    for uid, folder in folders.items():
        assert (folder/"who").read_text() == str(uid) and {p.stat().st_uid for p in folder.rglob("*")} == {uid}
        assert runs(box, uid, folder) == [[s, "done", str(uid)] for s in ("make", "use")*2]
        assert (mine := box.folder/f"tmp/mlops-nb-{uid}").stat().st_mode & 0o777 == 0o700 and {p.stat().st_uid for p in mine.iterdir()} == {uid}
    one_line(box.ended(box.begin(BOB, folders[ANN], *MAIN, "status"))[0], 1, "cannot be written")

def test_the_folder_of_another_is_not_trusted(box):
    "Ann is root's guest and has its XDG_RUNTIME_DIR, or finds that somebody was quicker to make the folder of her name."
    folder, theirs = project(box, "of_ann", ANN), box.make(box.folder/"theirs", 0, 0o700)
    done, = box.ended(box.begin(ANN, folder, *MAIN, "run", XDG_RUNTIME_DIR=str(theirs)))
    assert done.returncode == 0 and "XDG_RUNTIME_DIR" in done.stderr, done.stderr
    box.make(box.folder/f"tmp/mlops-nb-{ANN}", BOB, 0o777)
    done, = box.ended(box.begin(ANN, folder, *MAIN, "run", "--force"))
    assert done.returncode == 0 and "not for you alone" in done.stderr, done.stderr
    assert not [*(box.folder/f"tmp/mlops-nb-{ANN}").iterdir()]

def test_one_project_of_a_group(box):
    "A folder of the group, and umask 002, as groups have it: what one began the other goes on with, and both at once wait for each other."
    folder = project(box, "of_both", ANN, TEAM)
    both = box.ended(*(box.begin(uid, folder, *MAIN, "run", "--force", umask=0o002) for uid in (ANN, BOB)))
    assert [d.returncode for d in both] == [0, 0], [d.stderr for d in both]
    assert sorted(map(tuple, runs(box, BOB, folder))) == sorted((s, "done", str(u)) for s in ("make", "use") for u in (ANN, BOB))
    again, = box.ended(box.begin(ANN, folder, *MAIN, "run", "--json", umask=0o002))
    assert {r["state"] for r in json.loads(again.stdout)} == {"skipped"}

SERVE = "import sys\nfrom mlops_nb.serve import server\nwith server.shared_folder() as f:\n    sock = server.listening('127.0.0.1', int(sys.argv[1]))\n    print(f, sock.getsockname()[1], flush=True)\n    sys.stdin.read()"

def test_ports_and_folders_of_servers(box):
    "The second on a port is told; what a killed server left is cleared by its owner only."
    port, home = free_port(), box.folder/"home"
    start = lambda uid, port: box.begin(uid, home/str(uid), sys.executable, "-P", "-c", SERVE, str(port))
    ann = start(ANN, port)
    left = Path(ann.stdout.readline().split()[0])
    os.killpg(ann.pid, signal.SIGKILL)
    ann.wait()
    bob = start(BOB, port)
    theirs, got = bob.stdout.readline().split()
    assert int(got) == port and left.exists() and Path(theirs).stat().st_uid == BOB
    done, = box.ended(start(ANN, port))
    assert "take another port, 0 for a free one" in done.stderr and not left.exists() and Path(theirs).exists()

def test_one_installation(box):
    "What is compiled is kept by each user when the installation is not theirs to write; without a home it is compiled each time."
    code = "import numpy as np\nfrom mlops_nb.features import _walk\nfrom mlops_nb.serve import _leaves\nprint('loaded')"
    pytest.importorskip("numba")
    done = box.ended(*(box.begin(uid, box.folder, sys.executable, "-P", "-c", code, **env) for uid, env in ((ANN, {}), (BOB, {}), (BOB, dict(HOME="/nonexistent")))))
    assert [d.stdout for d in done] == ["loaded\n"]*3, [d.stderr for d in done]
