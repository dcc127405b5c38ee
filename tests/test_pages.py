"Every page of ours in a real browser: accessible by axe-core's rules in light and dark, readable on a phone and at 200 %, usable with the keyboard, asking nothing of the network."
import re
from pathlib import Path

import pytest

from conftest import CHROMIUM
from test_dashboard import MONTHS

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed; apt-get install chromium")
WIDE, PHONE = dict(width=1280, height=900), dict(width=390, height=844)

@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    "Static copies of every page, an evaluation, a failed run and one with a table; name -> path."
    import json
    import pandas as pd
    from mlops_nb.core import ledger
    from mlops_nb.core.config import settings_for
    from mlops_nb.core.finding import Finding, at_least, at_most
    from mlops_nb.data import dataset, quality
    from mlops_nb.pages import home
    from mlops_nb.run import report
    folder = tmp_path_factory.mktemp("pages")
    (folder/"settings.ini").write_text("[mlops_nb]\n\n[goal]\nowner = operations desk\nkpi = share of late flights warned of\nkpi_metric = recall\nkpi_minimum = 0.7\n[pipeline]\nmonitor =\n[schedule]\nmonitor = 0 6 * * 1\n")
    drift = [dict(month=m, feature=f, effect=e, limit=.1, drifted=e > .1, importance=w, moved="median 62 -> 38", before="[0.5, 0.3, 0.2]", after="[0.2, 0.3, 0.5]", edges='["up to 40", "40 to 60", "above 60"]')
             for m in ("2013-08", "2013-09") for f, e, w in (("temp", .31, .2), ("hour", .02, .5), ("carrier", .15, .01))]
    kpi = json.dumps([dict(check="kpi_recall", subject="late_flights", value=.66, limit=.7, ok=False)])
    with settings_for(folder):
        dataset.commit(pd.DataFrame(MONTHS).assign(evidence=kpi, calibration_gap=.05), "monitoring")
        dataset.commit(pd.DataFrame(drift), "drift")
        dataset.commit(pd.DataFrame(dict(id=[1, 2, 3], temp=[30., None, 50.])), "weather", note="the first")
        found = quality.check(dataset.read("weather"), key="id", ranges={"temp": (0, 40)})
        ledger.record([*found, quality.rate(found, "weather")], topic="weather")
        ledger.record([at_least("auc", "late_flights", .6412, .66, action="mlops-nb retrain late_flights"), at_most("drift", "temp", .31, .1, level="warn"), at_least("kpi_recall", "late_flights", .66, .7, level="warn"),
                       *[Finding("auc_of_segment", f"origin={o}", v, .6, ok=v > .6, level="warn", note=f"9,000 rows; 95 % interval {v - .04:.2f} to {v + .04:.2f}") for o, v in (("EWR", .68), ("JFK", .57))]], topic="late_flights")
        for v, auc in ((1, .68), (2, .7012)): ledger.event("register", "late_flights", version=v, metrics={"roc_auc": auc, "roc_auc_lo": auc - .03, "roc_auc_hi": auc + .03}, parameters={"max_iter": 50*v}, tags={"trained_until": "2013-07-01"}, mlflow_run="")
        ledger.event("promote", "late_flights", version=2, gain=.0214, gain_lo=.01, gain_hi=.03, reason="better by more than the limit")
        ledger.wrote("model", "late_flights", 2)
        for ms in (20., 31.): ledger.record([at_most("serving_latency", "server", ms, 25., level="warn", note="milliseconds"), at_most("serving_errors", "server", .001, .01), at_most("prediction_log", "server", 0, 0)], topic="late_flights")
        ledger.event("rollout start", "late_flights", version=1, before=2, reason="back to the old one, says ana@example.org?", share=.1, plan=dict(name="late_flights", version=1, champion=2, kind="canary", share=.1, id="x"))
        ledger.event("serve", "late_flights@champion", port=8000)
        found = {Path(p).stem: Path(p) for p in home.write_copies()}
        ledger.close()
    book = dict(metadata={}, cells=[dict(cell_type="markdown", metadata={}, source="# Train\n> A model."), dict(cell_type="markdown", metadata={}, source="## Rows\nWhat was read: `flights`, [see](x.md)."),
        dict(cell_type="code", metadata={}, source="df", outputs=[dict(output_type="display_data", data={"text/html": pd.DataFrame({"a": [1, 2]})._repr_html_(), "text/plain": ""}), dict(output_type="stream", name="stdout", text="a line\n"*40)])])
    failed = dict(book, cells=[*book["cells"], dict(cell_type="code", metadata={}, source="1/0", outputs=[dict(output_type="error", ename="ZeroDivisionError", evalue="division by zero", traceback=["line 1"])])])
    for name, nb in (("run", book), ("run-failed", failed)): found.setdefault(name, folder/f"{name}.html").write_text(report.render(nb, "train", "20261001-060000-ab12cd"))
    return found

NAMES = ["index", "late_flights", "models", "data", "service", "audit", "run", "run-failed"]

@pytest.fixture
def visit(browser):
    "A fresh visit to a file or address, everything outside 127.0.0.1 blocked; `page.outer` are the requests that were."
    contexts = []
    def go(where, size=WIDE, scheme="light", wait=".mlops-page", **more):
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True, **more))
        page = contexts[-1].new_page()
        page.outer, url = [], where.as_uri() if isinstance(where, Path) else where
        def guard(route):
            if route.request.url.startswith(("http://127.0.0.1", "file:", "data:", "blob:")): return route.continue_()
            page.outer.append(route.request.url)
            route.abort()
        page.route("**/*", guard)
        page.goto(url, wait_until="commit")
        page.locator(wait).first.wait_for(timeout=90_000)
        return page
    yield go
    for c in contexts: c.close()

def violations(page, rules=None):
    "What axe-core finds, one line each; with everything that can be opened open."
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.add_style_tag(content="*{animation:none!important;transition:none!important}")   # a colour in the middle of fading in is no colour of ours
    found = axe.Axe().run(page, options=rules).response["violations"]
    return [f"{v['id']}: {v['help']}: {n['html'][:160]} | {n.get('failureSummary', '')[:200]}" for v in found for n in v["nodes"][:3]]

@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_no_violation(copies, visit, name, scheme):
    "On a desk and on a phone."
    for size in (WIDE, PHONE):
        page = visit(copies[name], size, scheme)
        assert violations(page) == [] and page.outer == []

def test_axe_would_find_something(copies, visit):
    page = visit(copies["index"])
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"data:,\"><p style=\"color:#bbb;background:#fff\">pale</p>')")
    assert {"image-alt", "color-contrast"} <= {v.partition(":")[0] for v in violations(page)}

@pytest.mark.parametrize("name", NAMES)
def test_readable_on_a_phone_and_at_twice_the_size(copies, visit, name):
    "Nothing is cut off and the page never scrolls sideways; 200 % of 1280 pixels are 640."
    for size in (PHONE, dict(width=640, height=450), dict(width=320, height=600)):
        page = visit(copies[name], size)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (name, size)
        small = page.evaluate("""[...document.querySelectorAll('main *')].filter(e => e.children.length == 0 && e.textContent.trim() && e.getBoundingClientRect().width && parseFloat(getComputedStyle(e).fontSize) < 11).map(e => e.outerHTML.slice(0, 80))""")
        assert small == []

def test_the_first_screen(copies, visit):
    "Verdict with its meaning, five tiles, what changed and what to do, without scrolling."
    page = visit(copies["late_flights"])
    for part in (".strip", ".verdict", ".tiles", ".two >> nth=0"):
        box = page.locator(f".mlops-page {part}").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, (part, box)
    text = page.locator(".mlops-page").inner_text()
    for word in ("a limit is broken", "since Aug 2013", "66.0%", "share of late flights warned of", "promised 5.0 points too much", "alarm in 2 of 6", "1 of 2", "origin=JFK", "Who did what (3)", "mlops-nb retrain late_flights", "06:00 UTC, monitor"): assert word in text, word
    assert page.locator(".tile").count() == 5 and page.locator("svg[role=img] > title").count() == page.locator("svg[role=img]").count() >= 8

def test_the_keyboard(copies, visit):
    "Tab reaches every link and fold, the focus can be seen, Enter opens; a link to a figure opens what it is in."
    page = visit(copies["late_flights"])
    wanted = page.evaluate("[...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')].filter(e => e.checkVisibility()).length")
    reached, outlined = set(), 0
    for _ in range(wanted):
        page.keyboard.press("Tab")
        path = page.evaluate("(() => { const e = document.activeElement, all = [...document.querySelectorAll('*')]; return [all.indexOf(e), getComputedStyle(e).outlineStyle != 'none'] })()")
        reached.add(path[0])
        outlined += path[1]
    assert len(reached) == wanted == outlined
    page.locator("summary", has_text="All checks").focus()
    page.keyboard.press("Enter")
    assert page.locator("#checks table").is_visible()
    page.locator(".tile a", has_text="Important drift").focus()
    page.keyboard.press("Enter")
    page.locator("#features table").wait_for(state="visible")

def test_pages_lead_to_each_other(copies, visit):
    page = visit(copies["index"])
    links = page.evaluate("[...document.querySelectorAll('a')].map(a => a.href)")
    assert {Path(l.removeprefix("file://")).name for l in links} >= {"late_flights.html", "models.html", "data.html", "service.html", "audit.html"}
    for l in links: assert Path(l.removeprefix("file://")).exists(), l
    page.locator("a", has_text="Data").click()
    page.locator("h1", has_text="Data").wait_for()
    page.locator("a", has_text="All pages").click()
    page.locator("h1", has_text="All pages").wait_for()

def test_the_drill_downs_of_service_and_audit(copies, visit):
    "Reached from the monitoring page; they say what was found, how fast, who did what, and nothing personal."
    page = visit(copies["late_flights"])
    page.locator("summary", has_text="Runs (").click()
    page.get_by_role("link", name="the service").click()
    page.locator("h1", has_text="Service").wait_for()
    text = page.locator(".mlops-page").inner_text()
    for word in ("WATCH", "Serving latency of server is 31 (limit 25)", "0.10%", "canary of version 1 beside 2: 10 % of the clients", "version 2", "late_flights@champion", "port 8000", "Nothing waits"): assert word in text, word
    page = visit(copies["late_flights"])
    page.locator("summary", has_text="Who did what").click()
    page.get_by_role("link", name="the audit trail").click()
    page.locator("h1", has_text="Audit").wait_for()
    text = page.locator(".mlops-page").inner_text()
    for word in ("OK", "checked for this page", "better by more than the limit", "[e-mail]", "audit_anchor"): assert word in text, word
    assert "ana@example" not in page.content() and page.locator("form").count() == 0
    page.locator("summary", has_text="The whole trail").click()
    assert "dataset weather" in page.locator("#journal").inner_text() and "dataset weather" not in page.locator("#acts").inner_text()

def test_a_copy_runs_and_fetches_nothing(copies, browser):
    "Its own policy forbids what an output might bring."
    for name in NAMES:
        text = copies[name].read_text()
        assert "<script" not in text and "Content-Security-Policy" in text, name
        assert not re.search(r"(src|href)=.https?:", text), name
    odd = copies["index"].with_name("odd.html")
    odd.write_text(copies["index"].read_text().replace("</main>", "<img src='https://example.org/x.png'><script>document.title='ran'</script></main>"))
    page = browser.new_page()
    seen = []
    page.on("requestfailed", lambda r: seen.append((r.url, r.failure)))
    page.goto(odd.as_uri())
    assert page.title() == "All pages" and seen == [("https://example.org/x.png", "csp")]   # the browser names who stopped it
    page.close()
