"Our server of pages and its template, in a real browser: what is painted, what is alive, what is left when people go, and what they are told when something breaks."
import contextlib, json, os, re, signal, socket, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path

import psutil, pytest

from conftest import CHROMIUM, MAIN, ROOT, free_port, gone, wait_until, write_notebook
from test_dashboard import project   # noqa: F401, the small real store

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed; apt-get install chromium")

TRY = ["import os, ipywidgets as w\nfrom IPython.display import display", "print('pid', os.getpid(), 'asked', os.environ.get('QUERY_STRING'))", "1/0",
       "raise RuntimeError('no way in with ' + os.environ['PAGE_TOKEN'])",
       "s, told = w.IntSlider(3, description='size'), w.Label('nothing yet')\ndef got(c):\n    if c.new == 5: raise ValueError('five is too many')\n    told.value = f'got {c.new}'\ns.observe(got, 'value')\nw.VBox([s, told])",
       "b, out = w.Button(description='press'), w.Output()\n@b.on_click\ndef _(_):\n    with out: print('pressed')\n    raise KeyError('no such door')\ndisplay(b, out)",
       "from mlops_nb.core import ledger\ntry: ledger.event('note', 'x'); print('written')\nexcept Exception as e: print('refused:', e)"]

def get(url, data=None):
    try: answer = urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60)
    except urllib.error.HTTPError as e: answer = e
    with answer: return answer.status, answer.read().decode()

@contextlib.contextmanager
def served(folder, *words, waiting=1, **env):
    "Address of `mlops-nb dashboard`, once its pages stand ready; and its process, its log."
    port, log = free_port(), folder/"pages.log"
    own = {k: str(folder/"home") for k in ("HOME", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    with log.open("w") as out:
        process = subprocess.Popen([*MAIN, "dashboard", *words, "--no-browser", f"--port={port}"], cwd=folder, env={**os.environ, **own, "MLOPS_NB_ROOT": str(folder), **env}, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}/"
    def ready():
        try: return json.loads(get(url + "health")[1])["ready"] >= waiting
        except (OSError, ValueError): return False
    try:
        wait_until(f"page that is ready:\n{log.read_text()}", ready, process)
        yield url, process, log
    finally:
        process.terminate()
        try: process.wait(20)
        except subprocess.TimeoutExpired: process.kill()

@pytest.fixture(scope="module")
def pages(project, warm_kernels):
    "Three pages: the two of the package and one that tries everything."
    write_notebook(project/"nbs/dashboards/trial.ipynb", *TRY)
    with served(project, "monitoring", "labeling", "trial", "--no-token", "--pool=1", "--grace=5", PAGE_TOKEN="sesame-sesame") as there: yield there

def visit(browser, url, outside="abort", script=True, live=True):
    "A fresh visit: the page, requests to other hosts, errors of the console."
    page, outer, errors = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=script).new_page(), [], []
    def guard(route):
        if route.request.url.startswith(("http://127.0.0.1", "data:", "blob:")): return route.continue_()
        outer.append(route.request.url)
        if outside == "abort": route.abort()
    page.route("**/*", guard)
    page.on("pageerror", lambda e: errors.append(f"pageerror {e}"))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.goto(url, wait_until="commit", timeout=60_000)
    if live: page.locator("body[data-live]").wait_for(timeout=60_000)
    return page, outer, errors

def health(url): return json.loads(get(url + "health")[1])
def pid_on(page): return int(re.search(r"pid (\d+)", page.get_by_text("pid ").first.inner_text(timeout=60_000))[1])

def test_the_page_is_there_without_any_script(pages, browser):
    page, outer, _ = visit(browser, pages[0] + "monitoring", script=False, live=False)
    page.locator(".verdict").wait_for(timeout=60_000)
    assert page.locator(".verdict").inner_text().startswith("ACT") and page.locator("svg[role=img]").count() >= 3 and outer == []
    assert page.title() == "Monitoring" and page.locator("main").count() == 1

def test_widgets_live_and_light(pages, browser):
    page, outer, errors = visit(browser, pages[0] + "monitoring")
    page.locator("select").wait_for(timeout=60_000)
    assert page.locator("select").inner_text().replace("\xa0", " ") == "Sep 2013"
    assert page.evaluate("performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).reduce((n, e) => n + e.transferSize, 0)") < 3e6
    assert outer == [] and errors == []

def test_hosts_that_never_answer_hold_nothing(pages, browser):
    _, outer, _ = visit(browser, pages[0] + "monitoring", outside="never")
    assert outer == []

def test_home_and_unknown_pages(pages, browser):
    page, outer, errors = visit(browser, pages[0], live=False)
    assert page.locator("main a").all_inner_texts() == ["Monitoring", "Labeling", "trial"] and errors == []
    page.get_by_text("Labeling").click()
    page.get_by_text("There is nothing to label yet").wait_for(timeout=60_000)
    status, text = get(pages[0] + "monitorin")
    assert status == 404 and "There is no such page" in text and "http" not in re.sub(r"<!.*?>", "", text).replace("http-equiv", "")
    assert get(pages[0] + "voila/render/trial.ipynb")[0] == 200 and get(pages[0] + "voila/files/settings.ini")[0] == 404

def test_an_error_is_a_card_and_the_rest_goes_on(pages, browser):
    page, _, _ = visit(browser, pages[0] + "trial?shade=blue&token=private-word")
    cards = page.locator(".mlops-card").all_inner_texts()
    assert len(cards) == 2 and "ZeroDivisionError: division by zero" in cards[0] and "RuntimeError: no way in with ***" in cards[1]
    assert page.locator(".noUi-handle").count() == 1 and "asked shade=blue\n" in page.locator("main").inner_text() + "\n"
    page.get_by_text("refused: a row of the ledger is not written").wait_for(timeout=60_000)
    log = pages[2].read_text()
    assert "ZeroDivisionError" in log and "sesame-sesame" not in log and "private-word" not in log and "1/0" not in log

def test_callbacks_work_and_their_errors_are_told(pages, browser):
    page, _, _ = visit(browser, pages[0] + "trial")
    handle = page.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    page.get_by_text("got 4").wait_for(timeout=60_000)
    handle.press("ArrowRight")
    page.get_by_text("That did not work: ValueError: five is too many").wait_for(timeout=60_000)
    page.get_by_role("button", name="press").click()
    page.get_by_text("pressed").wait_for(timeout=60_000)
    page.get_by_text("KeyError: 'no such door'").wait_for(timeout=60_000)
    page.get_by_role("button", name="Close").click()
    assert page.locator(".mlops-notice").count() == 0

def test_a_closed_tab_leaves_no_kernel(pages, browser):
    page, _, _ = visit(browser, pages[0] + "trial")
    pid = pid_on(page)
    assert not gone(pid)
    page.close(run_before_unload=True)
    wait_until("end of the kernel", lambda: gone(pid))

def test_a_page_without_widgets_keeps_no_kernel(pages, browser):
    before = health(pages[0])["visitors"]
    write_notebook(Path(pages[2]).parent/"nbs/dashboards/trial.ipynb", "import os", "print('pid', os.getpid())")
    try:
        page, _, _ = visit(browser, pages[0] + "trial")      # the edited notebook: what stood ready is not shown
        assert page.locator("body").get_attribute("data-live") == "done" and page.evaluate("performance.getEntriesByType('resource').filter(e => /extension/.test(e.name)).length") in (0, 1)
        wait_until("end of its kernel", lambda: gone(pid_on(page)))
    finally: write_notebook(Path(pages[2]).parent/"nbs/dashboards/trial.ipynb", *TRY)
    wait_until("server that has noticed", lambda: health(pages[0])["visitors"] <= before)      # its process is gone before the server's count

def test_a_killed_kernel_is_told(pages, browser):
    page, _, _ = visit(browser, pages[0] + "trial")
    os.kill(pid_on(page), signal.SIGKILL)
    page.get_by_text("The session behind this page has ended.").wait_for(timeout=60_000)
    page.get_by_role("button", name="Reload").click()
    page.locator("body[data-live=yes]").wait_for(timeout=60_000)

def test_numbers_are_never_old(project, pages, browser):
    "The pool was filled before the data changed."
    import pandas as pd
    from mlops_nb.core.config import settings_for
    from mlops_nb.data import dataset
    from test_dashboard import MONTHS
    wait_until("page that is ready", lambda: health(pages[0])["ready"] >= 3)
    for share in (.4321, .1234):
        with settings_for(project): dataset.commit(pd.DataFrame([*MONTHS[:-1], {**MONTHS[-1], "observed": share}]), "monitoring")
        page, _, _ = visit(browser, pages[0] + "monitoring", live=False)
        page.locator(".tiles").wait_for(timeout=60_000)
        assert f"{share:.1%}" in page.locator(".tiles").inner_text()
        page.close(run_before_unload=True)

def test_visits_in_a_row_leave_nothing(pages, browser):
    "A short run of what bench/pages.py does two hundred times: tabs closed at any moment, none left over, every page alive."
    for context in browser.contexts: context.close()
    wait_until("end of other visitors", lambda: health(pages[0])["visitors"] == 0)
    for i in range(8):
        page, _, errors = visit(browser, pages[0] + "monitoring", live=i % 4 != 3)      # every fourth is closed before it is complete
        assert errors == [] and (i % 4 == 3 or page.locator("body").get_attribute("data-live") == "yes")
        page.context.close() if i % 2 else page.close(run_before_unload=True)
    wait_until("end of the kernels of those who left", lambda: health(pages[0])["visitors"] == 0, seconds=240)

def test_who_leaves_while_the_line_is_laid_is_gone(pages, project):
    "The browser asks for its line to a kernel that still works, and closes: Jupyter's own count is below nothing then."
    wait_until("end of other visitors", lambda: health(pages[0])["visitors"] == 0)
    write_notebook(project/"nbs/dashboards/trial.ipynb", "import time", "time.sleep(6)", "1")
    where = ("127.0.0.1", int(pages[0].rstrip("/").rpartition(":")[2]))
    with socket.create_connection(where, 60) as visit:
        visit.sendall(b"GET /trial HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        text = b""
        while not (kernel := re.search(rb'"kernelId": "([\w-]+)"', text)): text += visit.recv(2**16)
        with socket.create_connection(where, 60) as line:
            line.sendall(b"GET /api/kernels/%s/channels?session_id=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % kernel[1])
            line.settimeout(1)
            with pytest.raises(TimeoutError): line.recv(1)   # the server waits for the kernel
        while b"</html>" not in text[-20:]: text += visit.recv(2**16)
    wait_until("end of the kernel", lambda: health(pages[0])["visitors"] == 0)
    write_notebook(project/"nbs/dashboards/trial.ipynb", *TRY)

def test_a_link_has_a_token_and_the_end_leaves_no_kernel(project, browser):
    "One link is for looking, the one of an actor is for acting too: his name is in the trail."
    from mlops_nb.core import database, ledger, store
    from mlops_nb.core.config import settings_for
    from mlops_nb.core.finding import at_least
    from mlops_nb.govern import audit
    from test_pages import violations
    from mlops_nb.data import versions
    write_notebook(project/"nbs/workflows/mend.ipynb", "import pandas as pd\nfrom mlops_nb.core import ledger\nfrom mlops_nb.data import catalogue, dataset, versions", "ledger.wrote('thing', 'mended', 1)",
                   "dataset.commit(pd.DataFrame({'x': [1]}), 'mended'), versions.tag('mended', 'fine'), catalogue.describe('mended', owner='the team')")
    (project/"settings.ini").write_text((project/"settings.ini").read_text() + "[pages]\nactors = Ana Miller, ben\n")
    with settings_for(project):
        ledger.record([at_least("auc", "late_flights", .6412, .66, action="mlops-nb run mend")], topic="late_flights")
        store.write_text(store.report_path("late_flights.html"), "<p>a copy</p>")
    with served(project, "monitoring", "--pool=1") as (url, process, log):
        link, actors, _ = re.findall(r"http\S+token=\w+", log.read_text())
        assert get(url)[0] in (200, 403) and "late_flights" not in get(url)[1] and "late_flights" not in get(url + "monitoring")[1] and "a copy" not in get(url + "copies/late_flights.html")[1]
        page, _, errors = visit(browser, link)
        assert page.locator(".verdict").inner_text().startswith("ACT") and errors == []
        assert page.get_by_text("mlops-nb run mend").count() == 1 and page.get_by_role("button").count() == 0 and page.get_by_role("link", name="do it").count() == 0
        with page.expect_download() as file: page.get_by_role("link", name="late_flights.html").click()
        assert Path(file.value.path()).read_text() == "<p>a copy</p>" and page.goto(url + "copies/..%2Fsettings.html").status == 404
        page, _, errors = visit(browser, actors)
        page.get_by_role("link", name="do it: mlops-nb run mend").click()
        for words in ("mlops-nb run mend", "press again to run: mlops-nb run mend"): page.get_by_role("button", name=words, exact=True).click()
        page.get_by_text("Reload the page to see it.").wait_for(timeout=90_000)
        assert page.locator(".widget-html", has_text="Reload").inner_text().startswith("done") and errors == [] and violations(page) == []
        with settings_for(project):
            assert [e["subject"] for e in audit.entries(actor="Ana Miller") if e["action"] in ("write", "tag", "describe")] == ["thing mended", "dataset mended", "mended@fine", "dataset mended"]
            assert {ledger.last_runs()["mend"]["user"], *versions.tags("mended").by, database.rows("catalogue", name="mended")[0]["actor"]} == {"Ana Miller"}
        assert "without encryption" not in log.read_text() and len(re.findall(r"token=\w", log.read_text())) == 3   # calm; the links on top are all
        found = [c for c in psutil.Process(process.pid).children(recursive=True) if c.ppid() != process.pid or "zygote" not in " ".join(c.cmdline())]   # what kernels are forked from stays for others
        process.terminate()
        assert process.wait(30) == 0
        wait_until("end of the kernels", lambda: all(gone(c.pid) for c in found))
        page.get_by_text("Disconnected").or_(page.get_by_text("has ended")).wait_for(timeout=60_000)

def test_stock_voila_takes_the_template(project, browser):
    "With Voila's own front end for the widgets; nothing from other hosts."
    port, log = free_port(), project/"stock.log"
    env = {**os.environ, "HOME": str(project/"home"), "MLOPS_NB_ROOT": str(project), "JUPYTER_PATH": str(ROOT/"mlops_nb/static/jupyter")}
    words = [sys.executable, "-m", "voila", str(project/"nbs/dashboards/trial.ipynb"), "--template=mlops-nb", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1", "--VoilaExecutor.allow_errors=True"]
    with log.open("w") as out: process = subprocess.Popen(words, cwd=project, env={**env, "PAGE_TOKEN": "sesame-sesame"}, stdout=out, stderr=out)
    try:
        def answers():
            try: return socket.create_connection(("127.0.0.1", port), 1).close() is None
            except OSError: return False
        wait_until("answer of Voila", answers, process)
        page, outer, _ = visit(browser, f"http://127.0.0.1:{port}/", live=False)
        page.locator(".mlops-card").first.wait_for(timeout=90_000)
        handle = page.locator(".noUi-handle")
        handle.focus(timeout=90_000)
        handle.press("ArrowRight")
        page.get_by_text("got 4").wait_for(timeout=60_000)
        assert outer == [] and page.locator(".mlops-card").count() == 2
    finally:
        process.terminate()
        process.wait(20)

def test_every_live_page_is_accessible(project, browser):
    "What the server of all pages shows, by axe-core's rules, on a desk and on a phone, in light and dark; the labeling card with a task on it, and with what two people differ on."
    from mlops_nb.core.config import settings_for
    from mlops_nb.label import log, queue
    from test_pages import PHONE, WIDE, violations
    import pandas as pd
    with settings_for(project):
        queue.create("mood", pd.DataFrame(dict(id=["a", "b"], text=["fine", "bad"])), key="id", kind="text", classes=("good", "bad"), overlap=2)
        queue.answer(*[log.Event("mood", "a", said, annotator=who) for who, said in (("ben", "good"), ("cleo", "bad"))])
    with served(project, "--no-token", "--pool=0", waiting=0) as (url, _, _):
        found = {}
        for name in ("home", "monitoring", "service", "audit", "models", "data", "project", "maturity", "labeling?task=mood&annotator=ana", "labeling?task=mood&annotator=ana&review=1"):
            page, outer, _ = visit(browser, url + name)
            page.locator(".mlops-page, .mlops-label").first.wait_for(timeout=60_000)
            if "review" in name: page.get_by_text("cleo").first.wait_for(timeout=60_000)
            for size, scheme in ((WIDE, "light"), (WIDE, "dark"), (PHONE, "dark"), (PHONE, "light")):
                page.set_viewport_size(size)
                page.emulate_media(color_scheme=scheme)
                found |= {(name, size["width"], scheme): f for f in [violations(page)] if f}
            assert outer == [] and page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            page.context.close()
        assert found == {}

def test_pictures_are_labeled_on_our_own_server(project, pages, browser):
    "They come as binary messages, at which the server once counted for ever."
    from mlops_nb.core.config import settings_for
    from mlops_nb.label import log, queue
    import matplotlib.pyplot as plt, numpy as np, pandas as pd
    places = [project/f"{name}.png" for name in ("black", "white")]
    for i, place in enumerate(places): plt.imsave(place, np.full((8, 8), i), cmap="gray", vmin=0, vmax=1)
    with settings_for(project): queue.create("shades", pd.DataFrame(dict(id=[p.stem for p in places], picture=map(str, places))), key="id", kind="image", classes=("black", "white"))
    page, _, errors = visit(browser, pages[0] + "labeling?task=shades&annotator=ana")
    for name, key in (("black", "1"), ("white", "2")):
        picture = page.locator(f"img[alt^={name}]")
        picture.wait_for(timeout=60_000)
        page.wait_for_function("name => document.querySelector(`img[alt^=${name}]`)?.naturalWidth === 8", arg=name, timeout=60_000)
        page.keyboard.press(key)
    def answered():
        with settings_for(project): return dict(zip(*(log.labels("shades")[c] for c in ("item", "label")))) == dict(black="black", white="white")
    wait_until("both answers", answered, pages[1])
    page.context.close()

def test_the_trail_is_narrowed_by_a_plain_form(project, browser):
    with served(project, "audit", "--no-token", "--pool=1") as (url, _, _):
        page, _, _ = visit(browser, url + "audit", script=False, live=False)
        page.get_by_label("Did").wait_for(timeout=60_000)
        assert "late_flights" in page.locator("#acts").inner_text()
        page.get_by_label("To").fill("dataset mon")
        page.get_by_role("button", name="Show").click()
        page.get_by_text("What was asked for").wait_for(timeout=60_000)
        assert "subject=dataset+mon" in page.url and page.get_by_label("To").input_value() == "dataset mon"
        rows = page.locator("#acts tbody tr").all_inner_texts()
        assert rows and all("dataset monitoring" in r for r in rows)
