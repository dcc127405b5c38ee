"The labeling card in a real Voila: people without Jupyter, two tabs, refusals, a locked database, kill -9, and how it looks."
import json, sqlite3

import psutil
from conftest import wait_until

from mlops_nb.label import log, queue, widget
from test_label_widget import (HOSTILE, KEYS, Card, Killed, browser, driver, end, guarded, labels, needs_browser, picture, place, pytest, start_voila, texts, thirty,   # noqa: F401  (fixtures)
                                     words_of)

@pytest.fixture(scope="module")
def voila(place):
    process, address = start_voila(place)
    yield address
    end(process)

@pytest.fixture
def visit(browser, voila):
    "Open the page of a task in a fresh browser, or as another tab of one."
    contexts = []
    def opened(task, who="ana", context=None, **look):
        contexts.append(context := context or browser.new_context(**{"viewport": dict(width=1280, height=900), **look}))
        page = guarded(context, voila)
        page.goto(f"{voila}/?task={task}&annotator={who}", wait_until="commit")
        return page
    yield opened
    for c in contexts: c.close()

@needs_browser
def test_thirty_items_with_the_keyboard_in_voila(visit):
    page = visit("invoila")
    def reload():
        page.reload(wait_until="commit")
        return Card(page)
    card = thirty(Card(page), "invoila", reload)
    card.press("u")                                     # of the visit before, too
    card.press(*"uuuuuuuuuuuuuu")
    card.saved()
    assert len(labels("invoila")) == 31 - 15

@needs_browser
def test_held_keys_and_double_clicks_answer_once(visit):
    page = visit("twice")
    card = Card(page).focus()
    first = card.item
    page.keyboard.down("1")
    for _ in range(5): page.keyboard.down("1")          # the browser says `repeat`
    page.keyboard.up("1")
    second = card.item
    card.root.get_by_role("button", name="bad").dblclick()
    card.saved()
    assert labels("twice") == {first: "good", second: "bad"} and card.page.evaluate("document.activeElement.closest('.mlops-label') != null")

@needs_browser
def test_two_tabs_share_an_outbox(visit):
    "An answer in one tab leaves the other; both together write each item once."
    a = visit("twice")
    one, other = Card(a), Card(visit("twice", context=a.context))
    assert one.item == other.item
    meant = {}
    for card, next_one in [(one, other), (other, one)]*2:
        card.focus().answer(meant, KEYS, 3)
        next_one.page.wait_for_function("done => !done.includes(document.querySelector('.mlops-label').dataset.item)", arg=[*meant])
    for card in (one, other): card.saved()
    told = log.events("twice")
    assert len(meant) == 12 and {**labels("twice"), **meant} == labels("twice") and told[told.kind == "label"].item.is_unique

@needs_browser
def test_boxes_with_the_mouse(visit, place):
    queue.create("drawn", [dict(id="b", picture=picture())], key="id", kind="box", classes=["car", "tree"])
    page = visit("drawn", "ben")
    card = Card(page)
    board = card.root.locator("svg[viewBox='0 0 200 100']")
    image = board.locator("image").bounding_box()
    at = lambda x, y: (image["x"] + image["width"]*x/200, image["y"] + image["height"]*y/100)
    page.mouse.move(*at(20, 10)); page.mouse.down(); page.mouse.move(*at(60, 30)); page.mouse.move(*at(80, 50)); page.mouse.up()       # noqa: E702
    page.mouse.move(*at(50, 30)); page.mouse.down(); page.mouse.move(*at(60, 40)); page.mouse.up()                                     # noqa: E702  (and moved)
    card.root.get_by_role("button", name="tree").click()
    card.root.get_by_role("button", name="Save").click()
    card.saved()
    (box,) = json.loads(labels("drawn")["b"])
    assert box["label"] == "tree" and all(abs(box[k] - v) <= 1 for k, v in dict(x=30, y=20, w=60, h=40).items()), box

@needs_browser
def test_suggestions_are_shown_unless_they_are_hidden(visit, place, browser):
    for name, blind in (("hinted", False), ("blind", True)):
        queue.create(name, texts(3), key="id", kind="text", classes=("good", "bad"), blind=blind)
        queue.suggest(name, ["t0"], ["bad"], .87, "m 3")
    card = Card(visit("hinted")).focus()
    assert "Suggested: bad 87 %" in card.root.locator(".hint").inner_text()
    card.press("Enter")
    card.saved()
    told = log.events("hinted").iloc[-1]
    assert (told.label, told.suggestion, told.confidence, told.model) == ("bad", "bad", .87, "m 3") and 0 <= told.ms < 60_000
    card = Card(visit("blind")).focus()
    assert "bad 87" not in card.root.inner_text()
    card.press("Enter", "2")
    card.saved()
    assert log.events("blind").suggestion.isna().all()
    desk = widget.Desk(queue.open_task("hinted"), "cleo", suggest=False)
    assert "suggestion" not in str(widget.reply(desk, dict(type="hello", session="s"))[0])

@needs_browser
def test_voila_asks_for_a_name_and_lists_the_tasks(visit, voila):
    queue.create("asked", texts(3), key="id", kind="text", classes=("good", "bad"))
    page = visit("asked", "")
    page.get_by_label("Your name").fill(HOSTILE)
    page.keyboard.press("Enter")
    card = Card(page)
    card.press("1")                                      # the card has the focus now
    card.saved()
    assert HOSTILE in set(log.events("asked").annotator) and page.evaluate("window.hacked") is None
    page = visit("askd")
    page.get_by_text("did you mean 'asked'").wait_for()
    page.goto(voila, wait_until="commit")
    with page.context.expect_page() as another: page.get_by_role("link", name="asked").click()   # Jupyter opens links in a tab of their own
    another.value.get_by_label("Your name").wait_for()

@needs_browser
def test_a_refused_answer_is_said_and_asked_again(visit, place):
    "As after a change of the classes: the answer is not lost, the item is shown again."
    page = visit("wrong")
    card = Card(page).focus()
    card.press("1")
    card.saved()
    item = card.item
    page.wait_for_function("Object.keys(localStorage).some(k => k.endsWith(':past'))")
    page.evaluate("""item => {                            // an answer of an older page, still in the outbox of this browser
        const prefix = Object.keys(localStorage).find(k => k.endsWith(':past')).slice(0, -4);
        localStorage.setItem(prefix + 'event:old', JSON.stringify({uid: 'old', task: 'wrong', item, label: 'god', kind: 'label', at: new Date().toISOString(), n: 0})) }""", item)
    page.reload(wait_until="commit")
    card = Card(page).focus()
    alarm = card.root.locator(".alarm")
    alarm.filter(has_text="did you mean 'good'").wait_for()
    assert card.item == item and "old" not in set(log.events("wrong").uid)
    card.press("2")
    card.saved()
    assert alarm.inner_text() == "" and labels("wrong")[item] == "bad"

@needs_browser
def test_a_locked_database_loses_nothing(visit, place):
    page = visit("wrong", "ben")
    card, meant = Card(page).focus(), {}
    other = sqlite3.connect(place/".mlops/mlops.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        card.answer(meant, KEYS, 5)
        card.root.locator(".alarm").filter(has_text="locked by another process").wait_for()
        assert card.root.get_attribute("data-unsaved") == "5" and "5 unsaved" in card.root.inner_text()
        other.execute("ROLLBACK")
        other.close()
        card.saved()
    finally: other.close()                              # what is kept in the browser goes out by itself
    kept = log.current("wrong")
    assert dict(zip(*(kept[kept.annotator == "ben"][c] for c in ("item", "label")))) == meant and card.root.locator(".alarm").inner_text() == ""

# --- look ---

CONTRAST = """() => {
    const parse = c => c.match(/[\\d.]+/g).map(Number), light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4).reduce((s, v, i) => s + v*[.2126, .7152, .0722][i], 0);
    const ground = n => { for (; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor); if (c.length < 4 || c[3] > .99) return c } return [255, 255, 255] };
    const low = [];
    for (const n of document.querySelectorAll('.mlops-label *')) {
        if (![...n.childNodes].some(c => c.nodeType == 3 && c.textContent.trim()) || !n.offsetWidth || n.closest(':disabled')) continue;
        const [a, b] = [light(parse(getComputedStyle(n).color)), light(ground(n))].sort((x, y) => y - x), ratio = (a + .05)/(b + .05);
        if (ratio < 4.5) low.push([n.textContent.slice(0, 30), ratio.toFixed(2)]);
    }
    return low }"""

@needs_browser
def test_the_card_can_be_read_and_does_not_move(visit, place):
    "Wide and light, as a telephone and dark, and at 200 % zoom."
    page = visit("invoila", "dora")
    card = Card(page).focus()
    places = lambda: page.evaluate("[...document.querySelectorAll('.mlops-label, .mlops-label .place, .mlops-label .classes, .mlops-label .tools')].map(n => { const r = n.getBoundingClientRect(); return [r.top + scrollY, r.left, r.width, r.height].map(Math.round) })")
    for scheme, width, height in (("light", 1280, 900), ("dark", 390, 844), ("light", 640, 450)):
        page.set_viewport_size(dict(width=width, height=height))
        page.emulate_media(color_scheme=scheme)
        wait_until("layout", lambda: page.evaluate("innerWidth") == width and places() == (page.wait_for_timeout(150), places())[1])
        before = places()
        card.press("1", "2", "u", "3")
        card.saved()
        assert places() == before, "something jumps"
        assert page.evaluate(CONTRAST) == [] and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        card.press("?")
        assert places() == before and page.evaluate(CONTRAST) == []
        assert (page.evaluate("getComputedStyle(document.querySelector('.mlops-label')).backgroundColor") == "rgb(29, 33, 37)") == (scheme == "dark")
        card.press("Escape")
    for _ in range(30):                                  # everything can be reached with Tab, and the focus is seen
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.includes('Help')"): break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

@needs_browser
def test_a_finger_sees_no_keys_and_many_classes_show_that_there_are_more(visit, place):
    queue.create("wide", texts(3), key="id", kind="text", classes=[f"a long name of class number {i}" for i in range(40)])
    for touch in (False, True):
        page = visit("wide", viewport=dict(width=390, height=844), has_touch=touch, is_mobile=touch)
        Card(page)
        assert page.locator(".mlops-label .tools kbd:visible").count() == 0 if touch else page.locator(".mlops-label .tools kbd:visible").count() > 3
        shaded = lambda: page.evaluate("getComputedStyle(document.querySelector('.mlops-label .classes')).maskImage != 'none'")
        wait_until("shade", shaded)
        page.evaluate("document.querySelector('.mlops-label .classes').scrollTop = 1e6")
        wait_until("no shade at the end", lambda: not shaded())

# --- kill -9 ---

@needs_browser
def test_kill_9_of_browsers_and_kernels_in_voila(voila, driver, tmp_path):
    "Nothing that was acknowledged is lost, nothing is there twice."
    name, victims = "killed_voila", ["browser", "both", "kernel"]
    queue.create(name, texts(300), key="id", kind="text", classes=("good", "bad", HOSTILE))
    port = int(voila.rsplit(":", 1)[1])
    server = next(p for p in psutil.Process().children() if f"--port={port}" in words_of(p))
    person = Killed(driver, server, voila, tmp_path/"profile", name)
    person.start()
    try:
        for victim in victims: person.kill(victim)
        assert person.check()[0] >= len(victims)
    finally: person.context.close()
