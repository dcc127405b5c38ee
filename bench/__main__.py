"""All side-by-side measurements, one after the other, each in a process of its own, the peers in environments of their own below ~/.cache/mlops-nb/bench. What a bench printed is kept in bench/results with machine,
load, versions and date; docs/benchmarks_run.md and its chart are written from what is kept, after each bench. What is kept and of this code is not measured again, so an interrupted run goes on.

    python bench                     # what is missing or of other code
    python bench drift run           # these, anew
    python bench --list              # names, minutes, what is kept
    ROUNDS=1 python bench drift      # what limits a bench stands beside its figures, which are then not held against their goals
"""
import argparse, hashlib, json, os, platform, re, signal, subprocess, sys, tempfile, threading, time, tomllib
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__": sys.path[0] = str(ROOT)   # not bench/: its modules are called like others
from mlops_nb.core.finding import BadInput, Finding, at_least, at_most, nearest
from mlops_nb.pages.charts import ratios

BENCHES = tomllib.loads((ROOT/"bench/benches.toml").read_text(encoding="utf-8"))
PACKAGES = "numpy pandas pyarrow scikit-learn numba mlflow duckdb deltalake papermill jupyterlab voila".split()
PAGE = "docs/benchmarks_run.md"

# --- one bench ---

def source(name): return (ROOT/f"bench/{name}.py").read_text(encoding="utf-8")

@lru_cache
def library(): return b"".join(p.read_bytes() for p in sorted((ROOT/"mlops_nb").rglob("*.py")))

def code(name): return hashlib.sha256(library() + source(name).encode()).hexdigest()[:12]

def limits(name):
    "What is set in the environment and read by this bench: fewer rows, rounds, candidates."
    return {k: os.environ[k] for k in sorted(set(re.findall(r"\b[A-Z]{3,}\b", source(name))) - {"HOME", "PATH", "TMPDIR"}) if k in os.environ and not k.startswith("PYTHON")}

def machine():
    model = next((l.partition(":")[2].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "") if os.path.exists("/proc/cpuinfo") else platform.processor()
    memory = os.sysconf("SC_PAGE_SIZE")*os.sysconf("SC_PHYS_PAGES")/2**30
    return f"{platform.machine()}{f', {model}' if model else ''}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}"

def versions():
    def of(package):
        with suppress(PackageNotFoundError): return version(package)
    return {"Python": platform.python_version()} | {p: v for p in PACKAGES if (v := of(p))}

def measure(name):
    "Run it, show what it prints, and return that with all one needs to know about it."
    facts = dict(name=name, date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), machine=machine(), cores=os.cpu_count(), versions=versions(), peers=sorted(set(re.findall(r'"([A-Za-z][\w.\[\]-]*==[\d.]+)"', source(name)))),
                 limits=limits(name), code=code(name), load=[round(os.getloadavg()[0], 1)])
    env, said, began = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}, [], time.monotonic()
    with tempfile.TemporaryFile("w+") as wrong:
        p = subprocess.Popen([sys.executable, ROOT/f"bench/{name}.py"], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=wrong, text=True, start_new_session=True)
        late = threading.Timer(60*max(10, 5*BENCHES[name]["minutes"]), stop, [p])
        late.start()
        try:
            for line in p.stdout:
                print(line, end="", flush=True)
                said.append(line.rstrip().replace(str(ROOT), ".").replace(str(Path.home()), "~"))
            p.wait()
        finally:
            in_time = late.is_alive()
            late.cancel()
            stop(p)
        wrong.seek(0)
        error = "" if not p.returncode else "was stopped, it took too long" if not in_time else (wrong.read().strip().splitlines() or [f"exit code {p.returncode}"])[-1][:300]
    return facts | dict(load=[*facts["load"], round(os.getloadavg()[0], 1)], seconds=round(time.monotonic() - began), said=said, error=error)

def stop(p):
    "It and its children end; they are asked first, so that they tidy up."
    for sign in (signal.SIGINT, signal.SIGKILL) if p.poll() is None else ():
        with suppress(ProcessLookupError): os.killpg(p.pid, sign)
        with suppress(subprocess.TimeoutExpired): return p.wait(10)

# --- what it found ---

def figures(result):
    "What the page tells of it, as findings and units; a figure that is not in what was printed is not ok."
    for what, goal, pattern in BENCHES[result["name"]].get("figures", ()):
        sign, limit, unit = re.fullmatch(r"(?:([<>]=) ([\d.]+) )?(\w*)", goal if goal != "x" else ">= 1 x").groups()   # nobody wants to lose
        value, limit = number(pattern, "\n".join(result["said"])), None if result["limits"] or not sign or unit in ("s", "ms") and busy(result) else float(limit)
        if value is None: found = Finding(result["name"], what, None, limit, ok=False, note="not in what was printed")
        elif limit is None: found = Finding(result["name"], what, value)
        else: found = (at_least if sign == ">=" else at_most)(result["name"], what, value, limit)
        yield found, sign, unit

def busy(result): return result["load"][0] > result["cores"]

def number(pattern, said):
    "The number at the pattern, or the quotient of those at two."
    found = [re.search(p, said, re.M) for p in ([pattern] if isinstance(pattern, str) else pattern)]
    if not all(found): return None
    values = [float(m[1].replace(",", "")) for m in found]
    return values[0] if len(values) == 1 else values[0]/values[1] if values[1] else None

# --- the page ---

def page(results):
    "Markdown: what misses its goal first, then every figure, then what each bench printed; and the chart of the ratios."
    told = [(r, f, sign, unit) for r in results for f, sign, unit in figures(r)]
    judged = [f for _, f, sign, _ in told if f.limit is not None]
    missed = [row for row in told if not row[1].ok]
    done = {r["name"] for r in results}
    lines = ["# Benchmarks, as `make bench` ran them", "", "Written by `make bench` from `bench/results`; edit nothing here. What the figures mean, and how they came about, is told in [benchmarks](benchmarks.md).", "",
             f"{len(results)} of {len(BENCHES)} benches are kept. {len(judged)} figures have a goal (beside a peer at least 1x), {sum(not f.ok for f in judged)} of them miss it: they are bold. Where it says busy, others used the machine when the bench began: seconds are too long then and held against no goal, ratios are.", ""]
    if any(unit == "x" and f.value for _, f, _, unit in told): lines += ["![How many times better than the peer each figure is; below 1 is a loss](benchmarks_run.svg)", ""]
    if missed: lines += ["## What misses its goal, or is behind the peer", "", *rows(missed), ""]
    lines += ["## All figures", "", *rows(told), "", "## What each bench printed", ""]
    for r in results: lines += block(r)
    if rest := [n for n in BENCHES if n not in done]: lines += ["## Not run", "", *(f"- `{n}`: {BENCHES[n]['asks']} ({BENCHES[n]['minutes']} minutes)" for n in rest), ""]
    return "\n".join(lines)

def rows(told):
    yield from ("| bench | figure | | goal |", "|---|---|---|---|")
    for r, f, sign, unit in told:
        value = f.note or f"{f.value:,.3g}" if f.value is None or f.value < 1000 else f"{f.value:,.0f}"
        value = value if f.value is None else f"{value}{'' if unit == 'x' else ' '}{unit}"
        goal = f"{'at least' if sign == '>=' else 'at most'} {f.limit:g}{'' if unit == 'x' else ' '}{unit}" if f.limit is not None else ", ".join(f"{k}={v}" for k, v in r["limits"].items())
        yield f"| `{f.check}`{', busy' if busy(r) else ''} | {f.subject} | {value if f.ok else f'**{value}**'} | {goal} |"

def block(r):
    limited = f"; limited by {' '.join(f'{k}={v}' for k, v in r['limits'].items())}" if r["limits"] else ""
    yield from (f"### {r['name']}", BENCHES[r["name"]]["asks"] + ".", "", f"{r['date']}, {r['seconds']} s, load {r['load'][0]} before and {r['load'][-1]} after{limited}. {r['machine']}. {', '.join(f'{k} {v}' for k, v in r['versions'].items())}."
                + (f" Peers: {', '.join(r['peers'])}." if r["peers"] else ""), "")
    if r["error"]: yield from (f"**It failed**: `{r['error']}`", "")
    yield from ("```text", *r["said"], "```", "")

def chart(results):
    told = [(f"{f.check}: {f.subject}", f.value, f.limit) for r in results for f, _, unit in figures(r) if unit == "x" and f.value]
    drawn = ratios(*map(list, zip(*told)), title="How many times better than the peer", size=(900, 22)) if told else None
    return drawn and str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" color="#1a1a1a" ', 1).replace('style="', 'style="background:#fff;', 1).replace("font-family:inherit", "font-family:sans-serif", 1)

# --- all of them ---

def kept(folder):
    "Results in the order of the benches."
    found = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*.json")}
    return [found[n] for n in BENCHES if n in found]

def write(folder, to):
    results = kept(folder)
    to.write_text(page(results), encoding="utf-8")
    if drawn := chart(results): to.with_suffix(".svg").write_text(drawn + "\n", encoding="utf-8")

def asked(names):
    for n in names:
        if n not in BENCHES: raise BadInput(f"no bench is called {n!r}{nearest(n, BENCHES)}")
    return [n for n in BENCHES if n in names]

def minutes(name, old): return old[name]["seconds"]/60 if name in old and not old[name]["error"] else BENCHES[name]["minutes"]

def main():
    p = argparse.ArgumentParser(prog="python bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", help="benches; all when none is named")
    p.add_argument("--list", action="store_true", help="run nothing, say what there is")
    p.add_argument("--results", type=Path, default=ROOT/"bench/results")
    p.add_argument("--page", type=Path, default=ROOT/PAGE)
    a = p.parse_args()
    try: todo = asked(re.split(r"[,\s]+", " ".join(a.names))) if a.names else list(BENCHES)
    except BadInput as e: p.error(str(e))
    a.results.mkdir(parents=True, exist_ok=True)
    old = {r["name"]: r for r in kept(a.results)}
    fresh = [n for n in todo if not a.names and n in old and not old[n]["error"] and (old[n]["code"], old[n]["limits"]) == (code(n), limits(n))]
    if a.list: return print(*(f"{n:14}{minutes(n, old):5.0f} min  {BENCHES[n]['asks']}{'; kept of ' + old[n]['date'] if n in old else ''}" for n in todo), sep="\n")
    todo = [n for n in todo if n not in fresh]
    print(f"{len(todo)} benches, about {sum(minutes(n, old) for n in todo):.0f} minutes" + (f"; {len(fresh)} are kept and of this code" if fresh else ""), flush=True)
    for i, n in enumerate(todo):
        print(f"\n== {i + 1} of {len(todo)}: {n}, about {minutes(n, old):.0f} minutes: {BENCHES[n]['asks']}", flush=True)
        result = measure(n)
        (a.results/f"{n}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        write(a.results, a.page)
        print(f"   {result['error'] or 'done'}, {result['seconds']} s", flush=True)
        for f, *_ in figures(result):
            if not f.ok: print(f"   misses its goal: {f}", flush=True)
    write(a.results, a.page)
    bad = [r["name"] for r in kept(a.results) if r["name"] in todo and r["error"]]
    print(f"\nwritten: {a.page}" + (f"; failed: {', '.join(bad)}" if bad else ""))
    return int(bool(bad))

if __name__ == "__main__":
    try: sys.exit(main())
    except KeyboardInterrupt: sys.exit("interrupted; the same command goes on from there")
