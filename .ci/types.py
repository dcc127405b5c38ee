"Type errors by module may only become fewer: `python .ci/types.py` checks, `--write` takes the present ones as the bound. Needs mypy (uv tool run mypy, or pip install mypy)."
import json, re, subprocess, sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT/".ci/types.json"

def errors(text): return Counter(m[1] for line in text.splitlines() if (m := re.match(r"(mlops_nb/\S+?\.py):\d+: error", line)))

def worse(now, kept):
    "Modules with more errors than were kept."
    return [f"{module}: {n} type errors, {kept.get(module, 0)} were kept" for module, n in sorted(now.items()) if n > kept.get(module, 0)]

def main():
    done = subprocess.run([sys.executable, "-m", "mypy", "-p", "mlops_nb"], cwd=ROOT, capture_output=True, text=True)
    if "No module named mypy" in done.stderr: return print("mypy is not installed: types were not checked (pip install mypy)") or 0
    if not done.stdout.strip(): return print(done.stderr) or 1
    now = errors(done.stdout)
    if "--write" in sys.argv: KEPT.write_text(json.dumps(dict(sorted(now.items())), indent=0) + "\n")
    bad = worse(now, json.loads(KEPT.read_text()))
    print(*bad, f"{sum(now.values())} type errors in {len(now)} modules" + ("" if bad else ", none of them new"), sep="\n")
    return int(bool(bad))

if __name__ == "__main__": sys.exit(main())
