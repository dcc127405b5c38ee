"`make bench`: what it runs is there, goes on where it stopped, and tells what misses its goal. One bench is run for real."
import json, os, re, subprocess, sys

import pytest

from conftest import ROOT, load_bench

bench = load_bench("__main__")

def run(*words, **env):
    return subprocess.run([sys.executable, ROOT/"bench", *map(str, words)], env={**os.environ, **env}, capture_output=True, text=True, timeout=600)

def result(name, *said, **more):
    return dict(name=name, date="2026-01-31 10:00 UTC", machine="m", cores=4, versions={"Python": "3"}, peers=[], limits={}, code="0", load=[1., 2.], seconds=60, said=[*said], error="") | more

def test_every_bench_is_listed_and_every_pattern_is_one():
    assert set(bench.BENCHES) == {p.stem for p in (ROOT/"bench").glob("*.py")} - {"__main__"}
    for name, b in bench.BENCHES.items():
        assert b["asks"] and b["minutes"] > 0
        for what, goal, pattern in b.get("figures", ()):
            assert re.fullmatch(r"([<>]= [\d.]+ )?\w*", goal), (name, what, goal)
            assert all(re.compile(p).groups == 1 for p in ([pattern] if isinstance(pattern, str) else pattern)), (name, what)

def test_a_bench_is_run_kept_and_not_run_again(tmp_path):
    there = "--results", tmp_path/"kept", "--page", tmp_path/"page.md"
    done = run("audit", *there, ROWS="2000")
    assert done.returncode == 0 and "1 benches, about 1 minutes" in done.stdout and "verify 2000 events" in done.stdout, done.stdout + done.stderr
    kept = json.loads((tmp_path/"kept/audit.json").read_text())
    assert kept["limits"] == {"ROWS": "2000"} and kept["code"] == bench.code("audit") and len(kept["load"]) == 2 and kept["versions"]["Python"]
    page = (tmp_path/"page.md").read_text()
    assert "| ROWS=2000 |" in page and "verify 2000 events" in page and f"1 of {len(bench.BENCHES)} benches" in page and "- `drift`: " in page
    listed = run("audit", *there, "--list")
    assert "kept of" in listed.stdout and (tmp_path/"page.md").read_text() == page

def test_what_is_kept_and_of_this_code_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "BENCHES", {n: bench.BENCHES[n] for n in ("audit", "tracking", "drift")})
    monkeypatch.setattr(sys, "argv", ["bench", "--results", str(tmp_path), "--page", str(tmp_path/"page.md")])
    (tmp_path/"audit.json").write_text(json.dumps(result("audit", code=bench.code("audit"))))
    (tmp_path/"tracking.json").write_text(json.dumps(result("tracking", code="of other code")))
    (tmp_path/"drift.json").write_text(json.dumps(result("drift", code=bench.code("drift"), error="no network")))
    ran = []
    monkeypatch.setattr(bench, "measure", lambda name: ran.append(name) or result(name, code=bench.code(name)))
    assert bench.main() == 0 and ran == ["tracking", "drift"]
    assert bench.main() == 0 and ran == ["tracking", "drift"] and "3 are kept and of this code" in capsys.readouterr().out

def test_losses_stand_first_and_are_drawn(tmp_path):
    results = [result("audit", "verify 1000000 events: median 7.25 s, best 6 s", "plain row: median 0.40 ms", "chained event: median 0.60 ms"),
               result("drift", "nannyml        1,000,000 x 20 twice: CPU    0.300 s      0.5x  stored nan s", error="evidently did not install", load=[9., 2.])]
    found = {f.subject: f for r in results for f, *_ in bench.figures(r)}
    assert not (late := found["1M events verified"]).ok and (late.value, late.limit) == (7.25, 5) and found["a chained event beside a plain row"].value == pytest.approx(1.5)
    assert found["1M x 20 twice, CPU, beside Evidently"].value is None and not found["1M x 20 twice, CPU, beside Evidently"].ok
    page, drawn = bench.page(results), bench.chart(results)
    assert page.index("| `audit` | 1M events verified | **7.25 s** | at most 5 s |") < page.index("## All figures") and "| `drift`, busy | 1M x 20 twice, CPU, beside Evidently | **not in what was printed** |" in page and "**It failed**: `evidently did not install`" in page
    assert "drift: 1M x 20 twice, CPU, beside NannyML 0.5 (goal 1)" in drawn and bench.ratios.__globals__["RED"] in drawn
    assert [f.limit for f, *_ in bench.figures(result("audit", "verify 1000000 events: median 7.25 s", load=[9., 2.]))][0] is None, "seconds of a busy machine are no loss"
    limited = next(iter(bench.figures(result("audit", "verify 2000 events: median 9 s", limits={"ROWS": "2000"}))))[0]
    assert limited.ok and limited.limit is None, "a smaller table reaches no goal"

def test_a_bench_that_fails_or_is_not_there_says_so(tmp_path):
    done = run("no-such", "--results", tmp_path, "--page", tmp_path/"page.md")
    assert done.returncode == 2 and "no bench is called 'no-such'" in done.stderr and not (tmp_path/"page.md").exists()
    done = run("audit", "--results", tmp_path, "--page", tmp_path/"page.md", ROWS="many")
    assert done.returncode == 1 and "failed: audit" in done.stdout and "ValueError" in (tmp_path/"page.md").read_text()

def test_make_hands_on_what_was_asked_for():
    said = subprocess.run(["make", "-n", "bench", "ONLY=drift,run"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "python bench drift,run" in said
