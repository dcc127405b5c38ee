"""The process that imports the libraries once and forks a kernel for every request. `nbs/run/warm.ipynb` tells its story.

Started as a script, with one inherited socket (`control`) and the names of the modules to import. It imports nothing of this project and executes nothing of
what it imports. Each byte on `control` brings three descriptors: the new kernel's line, its stdout and its stderr. On the line: the request (one line of JSON) in,
the kernel's pid and later its exit code out (4 bytes each). The end of `control` is the end of the zygote, the end of its line is the end of a kernel.
"""
import atexit, gc, importlib, json, os, select, signal, socket, struct, sys, threading, time, traceback

WORD = struct.Struct("!i")

def main(control, modules):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")   # or the debugger warns on stderr at its import
    missing = [m for m in modules if not _load(m)]
    gc.collect()
    gc.freeze()   # what all kernels share is neither looked at nor copied by their garbage collectors
    try: control.sendall(json.dumps(dict(missing=missing, threads=_foreign_threads())).encode() + b"\n")
    except OSError: return   # nobody waits for us any more
    _serve(control)

def _load(module):
    try: importlib.import_module(module)
    except ModuleNotFoundError: return False
    return True

# OpenBLAS stops its threads at a fork, and jemalloc mends its own in the child; after one trial fork whatever else is left would be missing in a kernel.
SAFE = {"jemalloc_bg_thd"}

def _foreign_threads():
    if not (pid := os.fork()): os._exit(0)
    os.waitpid(pid, 0)
    named = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    native = {_read(f"/proc/self/task/{t}/comm") for t in os.listdir("/proc/self/task") if int(t) != os.getpid()}
    return named or sorted(native - SAFE)

def _read(path):
    with open(path) as f: return f.read().strip()

def _serve(control):
    lines, (wake, alarm) = {}, socket.socketpair()
    alarm.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asked = [control]
    while asked or lines:
        ready = select.select([wake, *asked], [], [])[0]
        if wake in ready:
            wake.recv(4096)
            _reap(lines)
        if control in ready and not _fork(control, lines, (wake, alarm)): asked = []

def _reap(lines):
    while lines:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid: return
        with lines.pop(pid) as line: _tell(line, os.waitstatus_to_exitcode(status))

def _tell(line, number):
    try: line.sendall(WORD.pack(number))
    except OSError: pass   # the client has gone, and the kernel follows it

def _fork(control, lines, private):
    "Fork one kernel; False when the client has closed the control socket."
    try: word, fds, *_ = socket.recv_fds(control, 1, 3)
    except OSError: return False
    if not word: return False
    line = socket.socket(fileno=fds[0])
    with line.makefile("rb") as f: request = json.loads(f.readline() or "null")
    if request is None: line.close()
    elif pid := os.fork(): lines[pid] = line
    else: _child(request, line, fds[1:], [control, *private, *lines.values()])
    if request: _tell(line, pid)
    for fd in fds[1:]: os.close(fd)
    return True

def _child(request, line, out, others):
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for s in others: s.close()
        _settle(request, line, out)
        code = _kernel(request["argv"])
    except BaseException: traceback.print_exc()
    finally: _leave(code)

# They look at import whether they are in a kernel: let them look again.
AT_IMPORT = ("tqdm.auto", "tqdm.autonotebook")

def _settle(request, line, out):
    "Become a process of its own: session, descriptors, folder, environment, signals, random numbers."
    os.setsid()
    for n, fd in enumerate(out, 1):
        os.dup2(fd, n)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    for s, handler in ((signal.SIGCHLD, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)): signal.signal(s, handler)
    if numbers := sys.modules.get("numpy.random"): numbers.seed()   # `random` does it itself
    for m in AT_IMPORT: sys.modules.pop(m, None)
    os.register_at_fork(after_in_child=line.close)
    threading.Thread(target=_follow, args=(line,), name="end with the client", daemon=True).start()

def _follow(line):
    while line.recv(1): pass
    os.killpg(0, signal.SIGKILL)   # the client has gone: the kernel and what it started go too

def _kernel(argv):
    import ipykernel_launcher
    from ipykernel.kernelapp import launch_new_instance
    sys.argv = [ipykernel_launcher.__file__, *argv]
    try: launch_new_instance([*argv, "--IPKernelApp.parent_handle=1"])   # 1: we watch the client, not a parent
    except SystemExit as e: return e.code if isinstance(e.code, int) else int(e.code is not None)
    return 0

def _leave(code):
    "What Python does at exit, without taking a few thousand modules apart."
    try:
        for t in threading.enumerate():
            if t.name == "Control": t.join(.5)   # it still flushes; ipykernel's exit handler would take its channel away and wait ten seconds for it
        threading._shutdown()
        atexit._run_exitfuncs()
        for f in (sys.stdout, sys.stderr): f.flush()
    finally: os._exit(code & 255)

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if p != here]   # a script's own folder; a kernel does not have it
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
