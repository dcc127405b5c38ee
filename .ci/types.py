"Type errors by module may only become fewer: `python .ci/types.py` checks, `--all` prints them, `--write` takes the present ones as the bound. uv fetches mypy, and keeps it."
import json, os, re, shutil, subprocess, sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT/".ci/types.json"
MYPY = "mypy==2.4.1"   # another version counts otherwise

def errors(text): return Counter(m[1] for line in text.splitlines() if (m := re.match(r"(mlops_nb/\S+?\.py):\d+: error", line)))

def worse(now, kept):
    "Modules with more errors than were kept."
    return [f"{module}: {n} type errors, {kept.get(module, 0)} were kept" for module, n in sorted(now.items()) if n > kept.get(module, 0)]

def main():
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
    done = subprocess.run([uv, "tool", "run", "-q", MYPY, "--python-executable", sys.executable, "-p", "mlops_nb"], cwd=ROOT, capture_output=True, text=True)
    if not done.stdout.strip(): return print(done.stderr) or 1
    if "--all" in sys.argv: print(done.stdout)
    now = errors(done.stdout)
    if "--write" in sys.argv: KEPT.write_text(json.dumps(dict(sorted(now.items())), indent=0) + "\n")
    bad = worse(now, json.loads(KEPT.read_text()))
    print(*bad, f"{sum(now.values())} type errors in {len(now)} modules" + ("" if bad else ", none of them new"), sep="\n")
    return int(bool(bad))

if __name__ == "__main__": sys.exit(main())
