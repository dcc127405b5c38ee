"The labeling card in a real JupyterLab, driven with keys in a real browser: what a person meant is what the database holds. test_label_page.py is the same in Voila."
import json, os, random, signal
from pathlib import Path
from types import SimpleNamespace

import psutil, pytest

from mlops_nb.core import ledger
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput
from mlops_nb.label import log, queue, widget
from tests.conftest import CHROMIUM, FLAGS, ROOT, write_notebook
from tests.test_lab import Notebook, end, serve

needs_browser = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed; apt-get install chromium")
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'

# --- servers, cards ---

def environment(folder):
    own = {k: str(folder/k.lower()) for k in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    return {**os.environ, **own, "MLOPS_NB_ROOT": str(folder), "JUPYTER_DEFAULT_PROVISIONER_NAME": "local-provisioner"}

def new_project(folder):
    folder.mkdir(exist_ok=True)
    (folder/"settings.ini").write_text("[mlops_nb]\nlock_timeout = 1\n")
    (folder/"voila.json").write_text((ROOT/"voila.json").read_text())
    return folder

def start_voila(folder): return serve(folder, environment(folder), "/static/voila.js", "voila", ROOT/"nbs/dashboards/labeling.ipynb", "--Voila.ip=127.0.0.1")

def start_lab(folder):
    (folder/"books").mkdir(exist_ok=True)
    return serve(folder, environment(folder), "/api", "jupyterlab", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder/'books'}", "--IdentityProvider.token=tok",
                 "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")

def texts(n, start=0): return [dict(id=f"t{i}", text=f"{i}: {HOSTILE}") for i in range(start, start + n)]

def guarded(context, address):
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith((address, "data:", "blob:")) else route.abort())
    return page

def open_lab(page, address):
    page.goto(f"{address}/lab?reset&token=tok", wait_until="commit")
    page.wait_for_function("window.jupyterapp?.shell")
    page.evaluate("jupyterapp.restored")

class Card:
    "A card on a page, with the keys of a person."
    def __init__(self, page):
        self.page, self.root = page, page.locator(".mlops-label")
        self.root.locator(".stage").wait_for()
        self.ready()

    def ready(self): self.page.wait_for_function("document.querySelector('.mlops-label')?.dataset.item")

    @property
    def item(self): return self.root.get_attribute("data-item")

    def focus(self):
        self.root.focus()
        return self

    def press(self, *keys):
        for key in keys: self.page.keyboard.press(key)
        return self

    def saved(self): self.page.wait_for_function("document.querySelector('.mlops-label').dataset.unsaved === '0'")

    def answer(self, meant, keys, n):
        "Answer n items with keys drawn at random; `meant` learns what was meant."
        for _ in range(n):
            item, (key, label) = self.item, random.choice(keys)
            self.press(key)
            meant[item] = label
            self.page.wait_for_function("was => document.querySelector('.mlops-label').dataset.item != was", arg=item)

def labels(name): return dict(zip((c := log.current(name)).item, c.label))

@pytest.fixture(scope="module")
def driver():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install playwright")
    with playwright.sync_playwright() as p: yield p

@pytest.fixture(scope="module")
def browser(driver):
    b = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield b
    b.close()

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A project with tasks, made once; its database is real."
    folder = new_project(tmp_path_factory.mktemp("labels"))
    with settings_for(folder):
        for name in ("inlab", "invoila", "keys", "twice", "wrong", "summary"): queue.create(name, texts(60), key="id", kind="text", classes=("good", "bad", HOSTILE), question=f"What of {HOSTILE}?")
        yield folder
        ledger.close()

@pytest.fixture(scope="module")
def lab(place, browser):
    process, address = start_lab(place)
    try:
        page = guarded(browser.new_context(viewport=dict(width=1280, height=1000)), address)
        open_lab(page, address)
        yield SimpleNamespace(page=page, process=process, address=address, folder=place)
        page.context.close()
    finally: end(process)

@pytest.fixture
def book(lab):
    "A notebook with the card of a task, run; closed at the end."
    opened = []
    def run(name, *cells):
        write_notebook(lab.folder/f"books/{name}.ipynb", *(cells or [f"from mlops_nb.label.widget import label\nlabel({name!r}, 'ana')", "x = 1"]))
        opened.append(Notebook(lab.page, f"{name}.ipynb"))
        opened[-1].run_all()
        return opened[-1]
    yield run
    lab.page.evaluate("async () => { for (const p of window.panels ?? []) p.dispose(); await jupyterapp.serviceManager.sessions.shutdownAll() }")

# --- thirty items ---

KEYS = [("1", "good"), ("2", "bad"), ("3", HOSTILE)]

def thirty(card, task, reload):
    "Label with keys alone, take two back, reload in between, go on; what is in the database is what was meant."
    meant = {}
    card.focus().answer(meant, KEYS, 17)
    back = [*meant][-2:]
    card.press("u", "u")
    assert card.item == back[0]
    for item in back: del meant[item]
    card.answer(meant, KEYS, 1)
    assert [*meant][-1] == back[0] and card.item == back[1]
    card.saved()
    card = reload()
    assert card.item == back[1], "the reload lost the place"
    card.focus().answer(meant, KEYS, 14)
    skipped = card.item
    card.press("s")
    card.saved()
    assert len(meant) == 30 and labels(task) == {**meant, skipped: None}
    assert card.page.evaluate("window.hacked") is None
    told = log.events(task)
    assert len(told) == 17 + 2 + 1 + 14 + 1 and told.uid.is_unique and set(told.annotator) == {"ana"}
    return card

@needs_browser
def test_thirty_items_with_the_keyboard_in_jupyterlab(lab, book):
    b = book("inlab")
    card = Card(lab.page)
    assert HOSTILE in card.root.inner_text() and b.js("return cells.length") == 2
    def reload():
        b.js("await jupyterapp.commands.execute('docmanager:save')")
        lab.page.goto("about:blank")
        open_lab(lab.page, lab.address)
        Notebook(lab.page, "inlab.ipynb")
        return Card(lab.page)
    thirty(card, "inlab", reload)

# --- keys ---

@needs_browser
def test_keys_stay_in_the_card(lab, book):
    "`b` inserts a cell in JupyterLab, `dd` deletes one, Shift+Enter runs one: not while the card has the focus. After Escape they are JupyterLab's again."
    b = book("keys")
    card, cells = Card(lab.page).focus(), b.js("return cells.length")
    first = card.item
    card.press("b", "a", "d", "d", "Shift+Enter", "m", "y", "x", "Control+b", "0", "0")
    assert b.js("return [cells.length, cells[0].model.type, panel.content.mode, kernel.status]") == [cells, "code", "command", "idle"] and card.item == first
    card.press("?")
    assert "undo" in card.root.get_by_role("dialog", name="Help").inner_text()
    card.press("1", "Escape")
    assert card.item == first and card.root.get_by_role("dialog").count() == 0, "a key behind the help is no answer"
    card.press("n")
    card.page.keyboard.type("b 1 ? hm")
    card.press("Enter", "Escape", "b")
    b.until(f"cells.length == {cells + 1}")
    card.saved()
    told = log.events("keys")
    assert told[["item", "kind", "label"]].values.tolist() == [[first, "note", "b 1 ? hm"]]

# --- every kind of item, with keys alone ---

def one(name, **data): return [dict(id="a", **data)]

def picture():
    import io
    from PIL import Image
    Image.linear_gradient("L").resize((200, 100)).save(kept := io.BytesIO(), "PNG")
    return kept.getvalue()

def tone():
    import io, wave
    with wave.open(kept := io.BytesIO(), "wb") as w:
        w.setparams((1, 2, 8000, 0, "NONE", ""))
        w.writeframes(bytes(8000))
    return kept.getvalue()

NAMES = "\U0001f600 Ada Lovelace wrote to Charles in London"
KINDS = {   # task -> what it is about, the keys, the label that is meant
    "row": (dict(kind="choice", classes=["late", "in time"], data=dict(carrier="UA", delay=3.5, note=HOSTILE)), ["2"], "in time"),
    "many": (dict(kind="text", classes=[f"class {i}" for i in range(40)], data=dict(text="x")), ["/", *"class 37", "Enter"], "class 37"),
    "several": (dict(kind="multi", classes=["plot", "actors", "sound"], data=dict(text="x")), ["3", "2", "1", "2", "Enter"], '["plot", "sound"]'),
    "letters": (dict(kind="image", classes=["1", "0"], data=dict(picture=[[0, 9], [9, 0]])), ["0"], "0"),
    "spans": (dict(kind="span", classes=["PERSON", "PLACE"], data=dict(text=NAMES)), ["ArrowRight", "ArrowRight", "Shift+ArrowRight", "1", *["ArrowRight"]*5, "2", "Enter"],
              '[{"start": 2, "end": 14, "label": "PERSON"}, {"start": 35, "end": 41, "label": "PLACE"}]'),
    "boxed": (dict(kind="box", classes=["car", "tree"], data=dict(picture=picture())), ["a", "2", "ArrowLeft", "Shift+ArrowUp", "a", "Delete", "Enter"], '[{"x": 68, "y": 35, "w": 60, "h": 28, "label": "tree"}]'),
    "heard": (dict(kind="audio", classes=["tone", "noise"], data=dict(clip=tone())), ["Space", "Space", "1"], "tone"),
    "pairs": (dict(kind="pair", data=dict(left="one", right="two")), ["ArrowRight"], "right"),
    "free": (dict(kind="value", data=dict(text="How many?")), ["Enter", *"12 u", "Enter"], "12 u"),
}

@pytest.fixture(scope="module")
def kinds(place):
    for name, (about, _, _) in KINDS.items(): queue.create(name, one(name, **about["data"]), key="id", **{k: v for k, v in about.items() if k != "data"})
    return place

@needs_browser
def test_every_kind_of_item_with_keys_alone(lab, book, kinds):
    "All cards in one notebook: each hears its own keys only."
    b, wrong = book("kinds", "from mlops_nb.label.widget import label", *[f"label({name!r}, 'ana')" for name in KINDS]), []
    for i, (name, (_, keys, meant)) in enumerate(KINDS.items(), 1):
        b.js("panel.content.activeCellIndex = given; panel.content.scrollToItem(given)", i)
        card = lab.page.locator(f".mlops-label[aria-label='Label {name}']")
        card.locator(".stage").wait_for()
        lab.page.wait_for_function("n => document.querySelector(`.mlops-label[aria-label='Label ${n}']`).dataset.item", arg=name)
        assert lab.page.evaluate("window.hacked") is None
        if name == "boxed": card.locator("svg[viewBox='0 0 200 100']").wait_for()
        card.focus()
        for key in keys: lab.page.keyboard.press(key)
        lab.page.wait_for_function("n => { const c = document.querySelector(`.mlops-label[aria-label='Label ${n}']`); return !c.dataset.item && c.dataset.unsaved == '0' }", arg=name)
        assert "Nothing is left for you" in card.inner_text()
        got = labels(name)["a"]
        if got != meant: wrong.append((name, got, meant))
    assert not wrong

# --- what is shown of hints, of the reviewer's work, of names, of the past ---

@needs_browser
def test_a_reviewer_decides(lab, book):
    queue.create("disputed", texts(2), key="id", kind="text", classes=("good", "bad"), overlap=2)
    for who, said in (("ana", "good"), ("ben", "bad")): queue.answer(log.Event("disputed", "t0", said, annotator=who))
    book("review", "from mlops_nb.label.widget import label\nlabel('disputed', 'cleo', review=True)")
    card = Card(lab.page).focus()
    assert card.item == "t0" and "ana: good" in card.root.locator(".hint").inner_text()
    card.press("2")
    card.saved()
    decided = log.labels("disputed").set_index("item").loc["t0"]
    assert (decided.label, decided.source) == ("bad", "adjudicated")

@needs_browser
def test_a_notebook_that_is_opened_later_says_how_far_it_was(lab, book):
    b = book("summary")
    card = Card(lab.page).focus()
    card.press("1", "2", "s")
    card.saved()
    was = lab.page.locator(".mlops-was")
    was.filter(has_text="2 of 60 items labeled, 1 skipped").wait_for(state="attached")
    assert not was.is_visible(), "the card is there, the line is not needed"
    b.js("await jupyterapp.commands.execute('docmanager:save'); await panel.sessionContext.shutdown(); panel.dispose()")
    lab.page.goto("about:blank")
    open_lab(lab.page, lab.address)
    again = Notebook(lab.page, "summary.ipynb")
    was.filter(has_text="Run this cell to go on").wait_for()
    lab.page.wait_for_timeout(2500)                      # JupyterLab looks for the model for 2 s
    assert "model not found" not in again.front().locator(".jp-OutputArea").first.evaluate("n => [...n.children].filter(c => c.offsetHeight > 4).map(c => c.textContent).join()")

# --- what goes wrong is said in the card ---

def test_a_full_disk_is_told_and_nothing_is_acknowledged(tmp_path):
    with settings_for(new_project(tmp_path/"p")):
        desk = widget.Desk(queue.create("full", texts(9), key="id", kind="text", classes=("a", "b")), "ana")
        widget.reply(desk, dict(type="hello", session="s"))
        from mlops_nb.core import database
        with database._LOCK: database._sqlite.cache_clear()
        ledger.close()
        queue.progress("full")
        c = next(iter([database._sqlite(*key) for key in [(tmp_path/"p/.mlops/mlops.db", 1.0, os.getpid(), (tmp_path/"p/.mlops/mlops.db").stat().st_ino)]]))
        c.execute(f"PRAGMA max_page_count = {c.execute('PRAGMA page_count').fetchone()[0]}")
        sent = [dict(uid=f"u{i}", item="t1", label="x", kind="note") | dict(label="y"*100_000) for i in range(20)]
        told = widget.reply(desk, dict(session="s", events=sent))[0]
        assert "disk is full" in told["trouble"] and told["acked"] == [] and len(log.events("full")) == 0
        c.execute("PRAGMA max_page_count = 1000000")
        assert len(widget.reply(desk, dict(session="s", events=sent))[0]["acked"]) == 20
        ledger.close()

def test_a_card_of_nothing_is_refused(tmp_path):
    with settings_for(new_project(tmp_path/"p")):
        queue.create("words", texts(3), key="id", kind="text", classes=("a", "b"))
        for bad, words in ((dict(task="word"), "did you mean 'words'"), (dict(task="words", annotator=" "), "say who labels"), (dict(task="words", ahead=0), "1 to 200")):
            with pytest.raises(BadInput, match=words): widget.label(**bad)
        ledger.close()

# --- kill -9 ---

WATCH = """for (const [name, what] of [['setItem', 'made'], ['removeItem', 'acknowledged']]) {
    const before = Storage.prototype[name];
    Storage.prototype[name] = function (key, value) { before.call(this, key, value); if (key.includes(':event:')) window.told(what, key.split(':event:')[1]) } }"""

def words_of(process):
    "The command line as one text; nothing of a process that has ended."
    try: return " ".join(process.cmdline())
    except psutil.Error: return ""

def end_now(process):
    try: process.kill()
    except psutil.Error: pass   # it has ended

class Killed:
    "A person labels while kernels and browsers are killed around him; `made` and `acknowledged` are the uids his browser wrote to its outbox and took from it."
    def __init__(self, playwright, voila, address, folder, task, who="ana"):
        self.playwright, self.voila, self.folder, self.task, self.who = playwright, psutil.Process(voila.pid), folder, task, who
        self.address, self.made, self.acknowledged, self.dice = address, [], set(), random.Random(f"{task}{who}")

    def kernels(self): return [c for c in self.voila.children(recursive=True) if "ipykernel" in words_of(c)]

    def browsers(self): return [p for p in psutil.Process().children(recursive=True) if f"--user-data-dir={self.folder}" in words_of(p) and "--type" not in words_of(p)]

    def start(self):
        self.context = self.playwright.chromium.launch_persistent_context(str(self.folder), executable_path=CHROMIUM, args=FLAGS, viewport=dict(width=1000, height=800))
        self.context.expose_function("told", lambda what, uid: self.acknowledged.add(uid) if what == "acknowledged" else self.made.append(uid) if uid not in self.made else None)
        self.context.add_init_script(WATCH)
        self.page = guarded(self.context, self.address)
        self.visit()

    def visit(self):
        self.page.goto(f"{self.address}/?task={self.task}&annotator={self.who}", wait_until="commit")
        self.card = Card(self.page).focus()

    def keys(self, n):
        for _ in range(n):
            self.page.keyboard.press(self.dice.choice("1231231231us"))
            if self.dice.random() < .7: self.page.wait_for_timeout(self.dice.choice([0, 5, 20, 60, 100]))

    def kill(self, victim):
        "Keys, the kill at a moment nobody chose, keys into the void, and a new visit."
        self.keys(self.dice.randrange(1, 9))
        self.page.wait_for_timeout(self.dice.choice([0, 1, 5, 10, 20, 50, 80, 120, 200]))
        if victim != "browser":
            for k in self.kernels(): end_now(k)
        if victim == "kernel":
            self.keys(self.dice.randrange(4))
            self.visit()
        else:
            for p in self.browsers():
                for c in [*p.children(recursive=True), p]: end_now(c)
            try: self.context.close()
            except Exception: pass                       # it is gone
            for k in self.kernels(): end_now(k)          # Voila leaves those of closed pages
            self.start()
        self.card.saved()

    def check(self, all_of_them=False):
        "Every acknowledged answer is in the database, once; none is there that nobody gave; no item was answered twice."
        told = log.events(self.task)
        told, undone = told[told.annotator == self.who], set(told[told.kind == "undo"].label)
        kept = told[told.kind.isin(("label", "skip")) & ~told.uid.isin(undone)]
        lost = self.acknowledged - set(told.uid)
        assert not lost and told.uid.is_unique and kept.item.is_unique and set(told.uid) <= set(self.made), (lost, kept[kept.item.duplicated(keep=False)])
        if all_of_them: assert set(told.uid) == set(self.made)
        return len(self.acknowledged), len(told)

class KilledInLab(Killed):
    "The same in JupyterLab: after the end of a kernel it is restarted, and the cell is run again."
    def visit(self):
        open_lab(self.page, self.address)
        write_notebook(self.books/f"{self.task}.ipynb", f"import os\nprint('pid', os.getpid())\nfrom mlops_nb.label.widget import label\nlabel({self.task!r}, {self.who!r})")
        self.book = Notebook(self.page, f"{self.task}.ipynb")
        self.run()

    def run(self):
        self.book.run(0)
        self.pid = int(self.book.sees(0, "pid").split()[1])
        self.card = Card(self.page).focus()

    def kill(self):
        self.keys(self.dice.randrange(1, 9))
        self.page.wait_for_timeout(self.dice.choice([0, 1, 5, 10, 20, 50, 80, 120, 200]))
        os.kill(self.pid, signal.SIGKILL)
        self.keys(self.dice.randrange(4))
        self.book.js("for (let n = 0; ; n++) try { await kernel.restart(); break } catch (e) { if (n == 5) throw e; await new Promise(done => setTimeout(done, 1000)) }")   # the server may be restarting it, too
        if (said := self.page.locator(".jp-Dialog .jp-mod-accept")).count(): said.first.click()
        self.run()
        self.card.saved()

@needs_browser
def test_kill_9_of_kernels_in_jupyterlab(lab, driver, tmp_path):
    "Nothing at all is lost, acknowledged or not: what the kernel did not hear stays in the browser. bench/label_kills.py does it some hundred times."
    queue.create("killed_lab", texts(900), key="id", kind="text", classes=("good", "bad", HOSTILE))
    person = KilledInLab(driver, lab.process, lab.address, tmp_path/"profile", "killed_lab")
    person.books = lab.folder/"books"
    person.start()
    try:
        for _ in range(15): person.kill()
        acknowledged, kept = person.check(all_of_them=True)
        assert acknowledged == kept >= 15
    finally: person.context.close()
