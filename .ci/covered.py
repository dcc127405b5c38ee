"Share of the library's lines that the tests run, those of the processes they start among them: `make coverage`. Words go to pytest; without any, all of tests/ is run and docs/coverage.svg is written."
import json, os, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BADGE = ROOT/"docs/coverage.svg"

def badge(percent, what="tests/"):
    said = f"coverage of lines by {what}: {percent:.0f} %, {time.strftime('%Y-%m-%d', time.gmtime())}"
    wide = len(said)*6.2 + 16
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="20" role="img" aria-label="{said}"><title>{said}</title><rect width="{wide:.0f}" height="20" rx="3" fill="#0072B2"/>'
            f'<text x="8" y="14" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" fill="#fff" textLength="{wide - 16:.0f}">{said}</text></svg>\n')

def main(words):
    with tempfile.TemporaryDirectory() as tmp:
        cover = lambda *w: subprocess.run([sys.executable, "-m", "coverage", *w], cwd=ROOT, env={**os.environ, "COVERAGE_FILE": f"{tmp}/found"})
        tests = cover("run", "-m", "pytest", *(words or ["-n", "2", "--dist", "loadfile"])).returncode
        cover("combine", "-q")
        cover("json", "-q", "-o", f"{tmp}/found.json")
        found = json.loads(Path(f"{tmp}/found.json").read_text())
    part = sorted((f["summary"]["percent_covered"], f["summary"]["missing_lines"], name) for name, f in found["files"].items())
    print(*(f"{share:5.0f} %  {missing:4} lines are not run  {name}" for share, missing, name in part[:15]), sep="\n")
    percent = found["totals"]["percent_covered"]
    print(f"{percent:.1f} % of {found['totals']['num_statements']:,} lines")
    if not words: BADGE.write_text(badge(percent), encoding="utf-8")
    return tests

if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
