"The monitoring page in stock Voila and a real browser, with nothing but 127.0.0.1 to talk to."
import os, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path

import pytest

from tests.conftest import CHROMIUM, ROOT, free_port

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed; apt-get install chromium")

MONTHS = [dict(month=f"2013-{m:02}", as_of=f"2013-{m + 1:02}-01", n=27000 + m, observed=late, auc=auc, auc_lo=auc - .01, auc_hi=auc + .01, coverage=1.,
               version="1" if m < 7 else "2", drifted=2, alarm="auc" if auc < .66 else "", action="retrain" if auc < .66 else "keep")
          for m, late, auc in [(4, .226, .71), (5, .229, .70), (6, .288, .69), (7, .296, .70), (8, .221, .65), (9, .139, .6412)]]

def drift(before): return dict(month="2013-09", feature="temp <b>", effect=.31, p_value=.001, limit=.05, drifted=True, importance=.04, before=before, after="[0.5, 0.5]", edges='["cold", "mild", "hot"]')

@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "A project with a small real store of its own."
    import pandas as pd
    from mlops_nb.core import ledger
    from mlops_nb.core.config import settings_for
    from mlops_nb.core.finding import at_least, at_most
    from mlops_nb.data import dataset
    tmp_path = tmp_path_factory.mktemp("project")
    (tmp_path/"settings.ini").write_text("[mlops_nb]\n\n[goal]\nowner = operations desk\n")
    (tmp_path/"voila.json").write_text((ROOT/"voila.json").read_text())
    with settings_for(tmp_path):
        dataset.commit(pd.DataFrame(MONTHS), "monitoring")
        dataset.commit(pd.DataFrame([drift("[0.9, 0.1]")]), "drift")
        ledger.record([at_least("auc", "late_flights", .6412, .66, action="mlops-nb retrain late_flights"), at_most("drift", "temp", .31, .05, level="warn")], topic="late_flights")
        ledger.event("register", "late_flights", version=2, metrics={"auc": .7012}, tags={"trained_until": "2013-07-01"})
        ledger.event("promote", "late_flights", version=2, gain=.0214, gain_lo=.01, gain_hi=.03, reason="better by more than the limit")
    return tmp_path

def answers(url, process, log, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        assert process.poll() is None, f"voila ended:\n{log.read_text()[-3000:]}"
        try: return urllib.request.urlopen(url + "static/voila.js", timeout=2).close()
        except urllib.error.HTTPError: return
        except OSError: time.sleep(.3)
    raise AssertionError(f"voila did not answer in {seconds} s:\n{log.read_text()[-3000:]}")

@pytest.fixture(scope="module")
def voila(project):
    "Address of a stock Voila on the shipped notebook, started in the project's folder."
    port, log = free_port(), project/"voila.log"
    own = {k: str(project/"home") for k in ("HOME", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    env = {**os.environ, **own, "MLOPS_NB_ROOT": str(project), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "voila", str(ROOT/"nbs/dashboards/monitoring.ipynb"), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    with log.open("w") as out: process = subprocess.Popen(command, cwd=project, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        answers(f"http://127.0.0.1:{port}/", process, log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        try: process.wait(20)
        except subprocess.TimeoutExpired: process.kill()

def visit(browser, url, outside="abort"):
    "A fresh visit: the page once the verdict stands, requests to other hosts, messages of the console."
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, outer, errors = context.new_page(), [], []
    def guard(route):
        if route.request.url.startswith((url, "data:", "blob:")): return route.continue_()
        outer.append(route.request.url)
        if outside == "abort": route.abort()          # refused; otherwise it is never answered, as behind a firewall that drops packets
    page.route("**/*", guard)
    page.on("pageerror", lambda e: errors.append(f"pageerror {e}"))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.goto(url, wait_until="commit")
    page.locator(".mlops-page .verdict").wait_for(timeout=60_000)
    return page, outer, errors

def matters(errors):
    "Our own policy turning Voila's two CDN style sheets away is wanted."
    return [e for e in errors if "Content Security Policy" not in e and "cdn.jsdelivr.net" not in e]

def test_the_page_tells_the_truth(voila, browser):
    page, outer, errors = visit(browser, voila)
    text = page.locator(".mlops-page").first.inner_text()
    for word in ("ACT", "AUC of late_flights is 0.641 (limit 0.66), since Aug 2013", "13.9%", "0.641", "0.631 to 0.651", "0 of 2", "1 of 1", "3 months", "operations desk",
                 "mlops-nb retrain late_flights", "temp <b>", "promoted", "+0.021 (+0.010 to +0.030)", "0.701", "2013-10-01"): assert word in text, f"{word!r} is not in:\n{text}"
    assert "could not be shown" not in text
    page.locator("select").wait_for(timeout=60_000)
    assert page.locator("select").inner_text().replace("\xa0", " ") == "Sep 2013"
    assert matters(errors) == [] and outer == []

def test_everything_that_matters_is_on_the_first_screen(voila, browser):
    page, _, _ = visit(browser, voila)
    for part in (".strip", ".verdict", ".tiles", ".two >> nth=0"):
        box = page.locator(f".mlops-page {part}").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, (part, box)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280

def test_a_network_that_never_answers_does_not_hold_the_page(voila, browser):
    visit(browser, voila)                             # the first visit pays for cold files
    start = time.time()
    visit(browser, voila, outside="never")
    assert time.time() - start < 20, "style sheets from a CDN block the page; is voila.json in the working directory?"

def test_the_static_copy_needs_nothing(project, browser):
    from mlops_nb.core.config import settings_for
    from mlops_nb.pages.monitoring import write_report
    with settings_for(project): path = write_report("late_flights")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False, offline=True)
    page, seen = context.new_page(), []
    page.on("request", lambda r: seen.append(r.url))
    page.goto(Path(path).as_uri())
    assert page.locator(".verdict").inner_text().startswith("ACT") and page.locator(".mlops-page svg[role=img]").count() >= 3
    assert seen == [Path(path).as_uri()]

def test_an_error_in_one_part_shows_in_its_place(project, voila, browser):
    "Last in this file: it breaks the store."
    import pandas as pd
    from mlops_nb.core.config import settings_for
    from mlops_nb.data import dataset
    with settings_for(project): dataset.commit(pd.DataFrame([drift("[0.9, ")]), "drift")
    page, _, errors = visit(browser, voila)
    assert page.locator(".verdict").inner_text().startswith("ACT")
    assert "This part could not be shown" in page.locator(".broken").first.inner_text()
    assert "JSONDecodeError" in page.locator(".broken").first.inner_text() and matters(errors) == []
    with settings_for(project): dataset.commit(pd.DataFrame({"week": [1]}), "monitoring")
    page, _, errors = visit(browser, voila)
    assert page.locator(".verdict").inner_text().startswith("UNKNOWN") and "could not be read" in page.locator(".verdict").inner_text()
