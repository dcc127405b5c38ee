"""The process that imports the libraries once and forks a kernel, or a command of ours, for every request. `nbs/run/warm.ipynb` tells its story.

Started as a script with one word of JSON: its name, folder and lock, the modules to import, how long it waits without work. It executes nothing of what it
imports. Every connection to its socket is one request, and a fork reads it: a line of JSON, with the descriptors of stdin, stdout and stderr beside it. Back on the same connection come lines of JSON: what the child says when it stands (pid, ports) and when it has nothing left to do, and at last its exit code, from us.
The client's end of the connection is the child's life line.
"""
import atexit, builtins, errno, fcntl, gc, importlib, importlib.machinery, json, os, resource, select, signal, socket, struct, sys, sysconfig, threading, time, traceback
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

ROOM = 256   # children at once; the next one starts cold

def main(name, folder, modules, idle, lock):
    os.chdir(folder)
    os.set_inheritable(lock, False)   # held since before we were started: one process has the name
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    state = _import(modules)
    _note(name, state)
    if state["refused"]: return
    _prepare()
    gc.collect()
    gc.freeze()   # what all kernels share is neither looked at nor copied by their garbage collectors
    _serve(name, lock, _listen(name), idle)

def _import(modules):
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")   # or the debugger warns on stderr at its import
    try:
        missing = [m for m in modules if m.startswith(JUPYTER) and not _load(m)]
        OWN.extend(f for m in list(sys.modules.values()) if isinstance(f := getattr(m, "__file__", None), str))
        missing += [m for m in modules if not m.startswith(JUPYTER) and not _load(m)]
        _import_ours()
    except Exception as e: return dict(pid=os.getpid(), refused=f"an import failed ({type(e).__name__}: {e})")
    return dict(pid=os.getpid(), missing=missing, refused=_why_not())

# Of this project, what a command needs. People edit it: a command looks at the files and imports all again when one has changed; a kernel always does.
COMMANDS, OURS = ("mlops_nb.cli.cli", "mlops_nb.run.pipeline", "mlops_nb.run.progress", "mlops_nb.run.client"), dict[str, tuple]()

def _import_ours():
    began = time.time_ns()
    try: [importlib.import_module(m) for m in COMMANDS]
    except Exception: pass   # somebody is at it just now; a command imports it itself, and tells
    files = {m: f for m, module in sys.modules.items() if m.partition(".")[0] == "mlops_nb" and (f := getattr(module, "__file__", None))}
    OURS.update({m: (f, seen if (seen := _stamp(f)) and seen[0] < began else None) for m, f in files.items()})

def _stamp(file):
    try: found = os.stat(file)
    except OSError: return None
    return found.st_mtime_ns, found.st_size

def _moved():
    "Has a file of ours changed, or would an import find another copy?"
    found = importlib.machinery.PathFinder.find_spec("mlops_nb")
    return found and found.origin != OURS["mlops_nb"][0] or any(seen is None or _stamp(f) != seen for f, seen in OURS.values())

# The debugger passes over the files that are loaded before the kernel: in a fresh one only what it needs itself, and not pandas, which one may want to step into.
JUPYTER, OWN = ("ipykernel", "IPython", "pdb", "psutil", "sqlite3", "tornado"), list[str]()

def _load(module):
    try:
        with _no_plug_ins(), _in_a_kernel() if module == "pandas" else nullcontext(): importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name and not module.startswith(e.name): raise
        return False
    return True

@contextmanager
def _in_a_kernel():
    "pandas asks at its import whether it writes to a terminal, and there it shows fewer columns."
    builtins.get_ipython = lambda: SimpleNamespace(kernel=None)
    try: yield
    finally: del builtins.get_ipython

@contextmanager
def _no_plug_ins():
    "papermill imports the engines of all packages, ours too, when it is imported."
    import entrypoints
    real, entrypoints.get_group_all = entrypoints.get_group_all, lambda *_, **__: []
    try: yield
    finally: entrypoints.get_group_all = real

def _why_not():
    "What would make a fork unlike a fresh process."
    if threads := _foreign_threads(): return f"an import started threads that a fork would lose ({', '.join(threads)})"
    if ours := _not_installed(): return f"{', '.join(ours)} is not of an installed package: edits of it would not reach a warm kernel"
    return ""

# OpenBLAS stops its threads at a fork, jemalloc mends its own in the child, polars' only deletes files of queries that spill to disk; after one trial fork
# whatever else is left would be missing in a kernel.
SAFE = {"jemalloc_bg_thd", "polars-ooc-clea"}

def _foreign_threads():
    if not (pid := os.fork()): os._exit(0)
    os.waitpid(pid, 0)
    named = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    native = {_read(f"/proc/self/task/{t}/comm") for t in os.listdir("/proc/self/task") if int(t) != os.getpid()}
    return named or sorted(native - SAFE)

def _not_installed():
    places = [p for k, p in sysconfig.get_paths().items() if k.endswith("lib")] + [p for p in sys.path if p.endswith("-packages")]   # the user's and the system's too
    homes = tuple({os.path.realpath(p) + os.sep for p in places})
    python = sysconfig.get_paths()["stdlib"] + os.sep   # Debian's own sitecustomize is a link to /etc
    files = {m: os.path.realpath(f) for m, module in list(sys.modules.items()) if isinstance(f := getattr(module, "__file__", None), str) and not f.startswith(python) and m not in OURS}
    return sorted({m.partition(".")[0] for m, f in files.items() if not f.startswith(homes) and f != os.path.realpath(__file__)})

def _read(path):
    with open(path) as f: return f.read().strip()

def _prepare():
    "The one thing that is executed: tables in plain Python that every client of Jupyter, or every kernel that draws, would make again, 0.1 s together."
    from jupyter_client.provisioning import KernelProvisionerFactory
    from nbformat.validator import get_validator
    KernelProvisionerFactory.instance()
    get_validator(4, 5)
    if "matplotlib.pyplot" in sys.modules: sys.modules["matplotlib.backends.registry"].backend_registry.list_all()
    AGAIN.extend(m for m in sys.modules if m.startswith(AT_IMPORT))   # a child that looked through all names would copy the memory they are in
    importlib.invalidate_caches()

def _note(name, state):
    with open(f"{name}.new", "w") as f: json.dump(state, f)
    os.rename(f"{name}.new", f"{name}.json")

def _listen(name):
    "The socket appears under its name only when it answers."
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{name}.{os.getpid()}")
    listening.listen(64)
    os.rename(f"{name}.{os.getpid()}", f"{name}.sock")
    return listening

def _serve(name, lock, listening, idle):
    children, (wake, alarm), there = {}, socket.socketpair(), [os.stat(f"{name}.sock").st_ino]
    for s in (wake, alarm): s.setblocking(False)
    signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: _hide(name, lock, there))
    worked = time.monotonic()
    while there or children:
        ready = select.select([wake, listening], [], [], min(idle, 30))[0]
        if wake in ready:
            wake.recv(4096)
            _reap(children)
        if listening in ready: _fork(listening, children, [wake, alarm, lock])
        if ready or children: worked = time.monotonic()
        if not _named(name, there) or time.monotonic() - worked >= idle: _hide(name, lock, there)

def _named(name, there):
    try: return os.stat(f"{name}.sock").st_ino in there
    except OSError: return False

def _hide(name, lock, there):
    "From here on nobody finds us, another may take the name, and we end with the last child."
    if _named(name, there):
        for ending in ("sock", "json"): os.unlink(f"{name}.{ending}")
    there.clear()
    fcntl.flock(lock, fcntl.LOCK_UN)

def _reap(children):
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid: return
        with children.pop(pid) as line: _tell(line, exit=os.waitstatus_to_exitcode(status))

def _tell(line, **facts):
    try: line.sendall(json.dumps(facts).encode() + b"\n")
    except OSError: pass   # the client has gone, and the child follows it

def _fork(listening, children, private):
    line, _ = listening.accept()
    line.settimeout(10)
    if len(children) >= ROOM or _uid(line) != os.getuid():
        _tell(line, refused="it has its fill of kernels")
        return line.close()
    try: pid = os.fork()
    except OSError as e:
        _tell(line, refused=e.strerror)
        return line.close()
    if pid: children[pid] = line
    else: _child(line, listening, [*children.values()], private)

def _uid(line): return struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]

# --- from here on in the child ---

def _child(line, listening, lines, private):
    code, request = 1, {}
    try:
        signal.set_wakeup_fd(-1)
        for s in (listening, *lines): s.close()
        for s in private: s.close() if isinstance(s, socket.socket) else os.close(s)
        request = _request(line)
        _settle(request, line)
        code = (_kernel if request["kind"] == "kernel" else _command)(request, line)
    except BaseException: traceback.print_exc()
    finally: _leave(code, line, "exit" if request.get("kind") == "command" else "leaves")

def _request(line):
    "The line of JSON and the three descriptors that came with its first bytes."
    data, fds, *_ = socket.recv_fds(line, 65536, 3)
    while data and not data.endswith(b"\n"): data += line.recv(65536)
    if not data: os._exit(0)   # somebody only looked whether we are there
    for n, fd in enumerate(fds):
        os.dup2(fd, n)
        os.close(fd)
    return json.loads(data)

# They look at import whether they are in a kernel, or for plug-ins: let them look again. Those of before are kept: taking them apart costs more.
AT_IMPORT, AGAIN = ("tqdm.auto", "tqdm.autonotebook", "matplotlib_inline.backend_inline", "papermill"), list[object]()

def _settle(request, line):
    "Become a process of its own: session, folder, environment, limits, signals, streams, random numbers."
    os.setsid()
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    for n, limits in request["limits"]: resource.setrlimit(n, limits)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    for s, handler in ((signal.SIGCHLD, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)): signal.signal(s, handler)
    for n, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")): _stream(n, name, mode)
    sys.path[:] = request["path"] or sys.path
    if numbers := sys.modules.get("numpy.random"): numbers.seed()   # `random` and `tempfile` do it themselves
    if request["kind"] == "kernel": AGAIN[:] = [sys.modules.pop(m) for m in AGAIN]
    if OURS and (request["kind"] == "kernel" or _moved()): AGAIN.extend(sys.modules.pop(m) for m in OURS)
    sys.modules["mlops_nb.run.zygote.preloaded"] = sys.modules["__main__"]   # what stands behind it came later: `core.source.LOADED`
    os.register_at_fork(after_in_child=line.close)
    threading.Thread(target=_follow, args=(line,), name="end with the client", daemon=True).start()

def _stream(n, name, mode):
    "As a fresh Python opens it."
    old = getattr(sys, f"__{name}__")
    by_line = mode == "w" and (n == 2 or os.isatty(n))
    new = open(n, mode, buffering=1 if by_line else -1, encoding=old.encoding, errors=old.errors, closefd=False)
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)

def _follow(line):
    line.settimeout(None)
    try:
        while line.recv(1): pass
    except OSError: pass
    os.killpg(0, signal.SIGKILL)   # the client has gone: the child and what it started go too

def _kernel(request, line):
    import ipykernel_launcher
    sys.argv = [ipykernel_launcher.__file__, *request["argv"]]
    try: _app(line).launch_instance([*request["argv"], "--IPKernelApp.parent_handle=1"])   # 1: we watch the client, not a parent
    except SystemExit as e: return e.code if isinstance(e.code, int) else int(e.code is not None)
    return 0

def _app(line):
    "ipykernel's application, less three troubles: a port that somebody took meanwhile, and a matplotlib and other libraries that were imported before there was a kernel."
    import zmq
    from ipykernel import kernelapp
    class IPKernelApp(kernelapp.IPKernelApp):
        def _bind_socket(self, s, port):
            try: return super()._bind_socket(s, port)
            except zmq.ZMQError as e:
                if not port or e.errno != errno.EADDRINUSE: raise
                return super()._bind_socket(s, 0)
        def init_heartbeat(self):
            if self.transport == "tcp" and self.hb_port and not _free(self.ip, self.hb_port): self.hb_port = 0
            super().init_heartbeat()
        def write_connection_file(self, **more):
            super().write_connection_file(**more)
            _tell(line, pid=os.getpid(), ports={f"{n}_port": getattr(self, f"{n}_port") for n in ("shell", "iopub", "stdin", "hb", "control")})
        def init_kernel(self):
            with _few_modules(): super().init_kernel()
        def init_gui_pylab(self):
            super().init_gui_pylab()
            if plots := sys.modules.get("matplotlib"): plots.rcParams["backend"] = os.environ["MPLBACKEND"]
            if widgets := sys.modules.get("ipywidgets"): widgets.register_comm_target()   # without it a page asks for each widget by itself
    return IPKernelApp

@contextmanager
def _few_modules():
    "The kernel lists the files of all modules for its debugger. Ours has its list, and looking at a few thousand modules would copy the memory they are in."
    from ipykernel import ipkernel
    ipkernel.sys = SimpleNamespace(modules={f: SimpleNamespace(__file__=f) for f in OWN})
    try: yield
    finally: ipkernel.sys = sys

def _free(ip, port):
    with socket.socket() as s:
        try: s.bind(("" if ip == "*" else ip, port))
        except OSError: return False
    return True

def _command(request, line):
    "A function of a module that is imported now, such as `mlops_nb.cli.cli:main`, given the words."
    _tell(line, pid=os.getpid())
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))   # a scheduler's way of saying Ctrl-C
    sys.argv = [request["function"], *request["argv"]]
    module, _, name = request["function"].partition(":")
    try: code = getattr(importlib.import_module(module), name)(request["argv"])
    except SystemExit as e: code = e.code
    except KeyboardInterrupt: code = 130
    return code if isinstance(code, int) else int(code is not None)

def _leave(code, line, word):
    "What Python does at exit, without taking a few thousand modules apart. It tells its exit code itself, too: the zygote may be gone, and the system needs 20 ms to clear its memory."
    try:
        for t in threading.enumerate():
            if t.name == "Control": t.join(.5)   # it still flushes; ipykernel's exit handler would take its channel away and wait ten seconds for it
        threading._shutdown()
        atexit._run_exitfuncs()
        for f in (sys.stdout, sys.stderr): f.flush()
        _tell(line, **{word: code & 255})
    finally: os._exit(code & 255)

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if p != here]   # a script's own folder; a kernel does not have it
    main(**json.loads(sys.argv[1]))
