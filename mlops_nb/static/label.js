// The labeling card, an ES module for anywidget. What it keeps and in which order:
//   click -> the answer goes to the outbox (localStorage) -> the next item, drawn ahead, is painted -> afterwards the answers of a moment go to the kernel in one message
//   -> the kernel writes them to the database and acknowledges -> they leave the outbox. Whatever is in the outbox is sent again; an answer has one uid and counts once.
// Nothing that comes from data is ever parsed as markup: it is set as textContent, or as the content of a Blob that an <img> or <audio> shows.

const CLASS_KEYS = [..."1234567890qwertyiopadghjklzxcvbm"], MOVE = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const NAMES = {" ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowDown: "↓", Enter: "Enter"};
const SOON = 60, RETRY = [4000, 8000, 16000, 30000], KEEP = 50, PATIENCE = 1200, RENEW = 240_000, REST = 3000, MANY = 24;

function make(tag, props = {}, ...kids) {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) if (v != null) k.includes("-") || k == "role" ? node.setAttribute(k, v) : node[k] = v;
  node.append(...kids.flat().filter(k => k != null));
  return node;
}

function svg(tag, props = {}, ...kids) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(props)) node.setAttribute(k, v);
  node.append(...kids);
  return node;
}

// A class of one character is its own key, when all are and none is taken; else 1, 2, 3 ...
const TAKEN = "usfn?/";
const keysFor = (classes, reserved) => classes.every(c => c.length == 1 && c == c.toLowerCase() && !(TAKEN + reserved).includes(c) && c != " ") ? classes : CLASS_KEYS.filter(k => !reserved.includes(k));
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), b => b.toString(16).padStart(2, "0")).join("");
const text = (node, words) => { if (node.textContent !== words) node.textContent = words };
const parsed = (words, otherwise) => { try { return JSON.parse(words) ?? otherwise } catch { return otherwise } };
const plural = (n, one) => `${n.toLocaleString("en")} ${one}${n == 1 ? "" : "s"}`;

// ---------- what the browser remembers ----------

const store = {
  works: (() => { try { localStorage.setItem("mlops-label", ""); localStorage.removeItem("mlops-label"); return true } catch { return false } })(),
  get(key) { try { return localStorage.getItem(key) } catch { return null } },
  set(key, value) { try { localStorage.setItem(key, value); return true } catch { return false } },
  drop(key) { try { localStorage.removeItem(key) } catch { } },
  keys(prefix) { try { return Object.keys(localStorage).filter(k => k.startsWith(prefix)) } catch { return [] } },
};

// Answers that are not acknowledged. A key of its own for each, so that two tabs never write over one another.
function outbox(prefix) {
  const kept = new Map(), loose = new Set();
  for (const key of store.keys(prefix)) { const e = parsed(store.get(key)); if (e?.uid) kept.set(e.uid, e) }
  return {
    put(e) { kept.set(e.uid, e); store.set(prefix + e.uid, JSON.stringify(e)) ? loose.delete(e.uid) : loose.add(e.uid) },
    drop(uid) { kept.delete(uid); loose.delete(uid); store.drop(prefix + uid) },
    forget(uid) { kept.delete(uid) },                       // another tab saw the acknowledgement
    get: uid => kept.get(uid),
    all: () => [...kept.values()].sort((a, b) => a.at < b.at ? -1 : a.at > b.at ? 1 : a.n - b.n),
    answered: item => [...kept.values()].some(e => e.item == item && !e.refused && e.kind != "undo" && e.kind != "note" && ![...kept.values()].some(u => u.kind == "undo" && u.label == e.uid)),
    get size() { return kept.size },
    get loose() { return loose.size },                      // the browser could not keep these
  };
}

// ---------- how an item is drawn: each returns {node, label(), key(event) -> handled, start(), pick(class)} ----------

function media(part, item, onTrouble) {
  if (part.trouble) return make("p", {className: "trouble"}, part.trouble);
  const source = part.url ?? (item.urls[part.media] ??= URL.createObjectURL(new Blob([item.buffers[part.media]], {type: part.mime}))), name = part.name;
  if (part.mime.startsWith("audio/")) {
    const sound = make("audio", {controls: true, preload: "auto", src: source, "aria-label": name});
    sound.addEventListener("error", () => onTrouble(sound, `This sound cannot be played (${name}). Flag the item or skip it.`));
    return sound;
  }
  const picture = make("img", {src: source, alt: part.alt ?? name, decoding: "sync", draggable: false, className: part.small ? "pixels" : ""});
  picture.ready = picture.decode().catch(() => onTrouble(picture, `This picture cannot be shown (${name}). Flag the item or skip it.`));
  return picture;
}

const instead = (node, words) => node.replaceWith(make("p", {className: "trouble"}, words));
const shown = (part, item) => part.text === undefined ? media(part, item, instead) : part.text;
const notes = parts => make("div", {className: "notes"}, parts.filter(p => p.note).map(p => make("p", {}, p.note)));
const details = (parts, item) => make("dl", {className: "details"}, parts.map(p => make("div", {}, make("dt", {}, p.name), make("dd", {}, shown(p, item)))));

function row(item) {
  if (item.parts.length == 1) return whole(item);
  const line = p => make("tr", {}, make("th", {scope: "row"}, p.name), make("td", {className: p.number ? "number" : ""}, shown(p, item)));
  return {node: make("div", {className: "scroll"}, make("table", {}, make("tbody", {}, item.parts.map(line))), notes(item.parts))};
}

function whole(item) {
  const [first, ...rest] = item.parts, size = first.text === undefined ? "media" : first.text.length < 90 ? "text large" : first.text.length < 400 ? "text" : "text long";
  return {node: make("div", {className: "scroll"}, make("div", {className: size}, shown(first, item)), notes(item.parts), rest.length ? details(rest, item) : null)};
}

function listen(item) {
  const view = whole(item), sound = view.node.querySelector("audio");
  view.key = e => {
    if (!sound || !sound.isConnected) return false;
    if (e.key == " ") return sound.paused ? sound.play().catch(() => { }) : sound.pause(), true;
    if (e.key in MOVE && MOVE[e.key][0]) return sound.currentTime = Math.max(0, sound.currentTime + 2*MOVE[e.key][0]), true;
    return false;
  };
  return view;
}

function pair(item, card) {
  const side = (p, i, words) => make("section", {className: "side", "aria-label": words}, make("h4", {}, words, " ", make("small", {}, p.name)), make("div", {className: p.text === undefined ? "media" : "text"}, shown(p, item)));
  const [left, right, ...rest] = item.parts, node = make("div", {className: "scroll"}, rest.length ? details(rest, item) : null, make("div", {className: "pair"}, side(left, 0, "Left"), right ? side(right, 1, "Right") : null), notes(item.parts));
  return {node, key: e => { const i = {ArrowLeft: 0, ArrowRight: 1, ArrowDown: 2}[e.key]; return i !== undefined && i < card.task.classes.length && (card.choose(i), true) }};
}

function value(item, card, before) {
  const view = whole(item), field = make("input", {className: "value", value: before ?? "", "aria-label": card.task.question || "Value", autocomplete: "off", spellcheck: false, maxLength: 100_000});
  const holder = make("div", {className: "withfield"}, view.node, make("div", {className: "field"}, field));
  return {node: holder, label: () => field.value.trim() || null, empty: "Type a value, or press s (after Esc) to skip.", start: keep => keep && field.focus({preventScroll: true}), key: e => e.key == "Enter" && document.activeElement != field ? (field.focus(), true) : false};
}

// Places in a text: JavaScript counts UTF-16 units, everybody else counts characters.
const characters = (words, unit) => { let n = 0; for (let i = 0; i < unit; n++) i += words.codePointAt(i) > 0xffff ? 2 : 1; return n };
const units = (words, n) => { let i = 0; while (n-- > 0 && i < words.length) i += words.codePointAt(i) > 0xffff ? 2 : 1; return i };

function spans(item, card, before) {
  const [first, ...rest] = item.parts, words = first.text ?? "", tokens = [...words.matchAll(/\S+/g)].map(m => [m.index, m.index + m[0].length]);
  let marks = parsed(before, []).map(s => ({start: units(words, s.start), end: units(words, s.end), label: s.label})), from = 0, to = 0, moved = false;
  const body = make("div", {className: "text spans" + (words.length > 400 ? " long" : "")}), list = make("ul", {className: "marks", "aria-label": "Marked"});
  const range = () => tokens.length ? [tokens[Math.min(from, to)][0], tokens[Math.max(from, to)][1]] : [0, 0];
  function draw() {
    const [a, b] = range(), cuts = [...new Set([0, words.length, a, b, ...marks.flatMap(m => [m.start, m.end])])].sort((x, y) => x - y);
    body.replaceChildren(...cuts.slice(0, -1).map((start, i) => {
      const end = cuts[i + 1], over = marks.filter(m => m.start <= start && m.end >= end), last = over.at(-1);
      const piece = make(last ? "mark" : "span", {className: (start >= a && end <= b && moved ? "cursor" : "")}, words.slice(start, end));
      if (last) { piece.style.setProperty("--hue", card.hue(last.label)); if (last.end == end) piece.dataset.label = last.label }
      return piece;
    }));
    list.replaceChildren(...marks.map((m, i) => make("li", {}, make("button", {type: "button", onclick: () => remove(i), "aria-label": `Remove ${m.label}: ${words.slice(m.start, m.end)}`}, make("b", {}, m.label), ` ${words.slice(m.start, m.end).slice(0, 40)} ×`))));
  }
  const remove = i => { const [gone] = marks.splice(i, 1); draw(); card.say(gone ? `Removed ${gone.label}` : "Nothing is marked here"); card.root.focus({preventScroll: true}) };
  function chosen() {
    const s = getSelection();
    if (!s.rangeCount || s.isCollapsed || !body.contains(s.anchorNode) || !body.contains(s.focusNode)) return null;
    const r = s.getRangeAt(0), until = (n, o) => { const p = document.createRange(); p.selectNodeContents(body); p.setEnd(n, o); return p.toString().length };
    let start = until(r.startContainer, r.startOffset), end = until(r.endContainer, r.endOffset);
    while (start < end && /\s/.test(words[start])) start++;
    while (end > start && /\s/.test(words[end - 1])) end--;
    return start < end ? [start, end] : null;
  }
  function mark(label) {
    const [start, end] = chosen() ?? (moved ? range() : [0, 0]);
    if (start == end) return card.say("Select words first: with the mouse, or with ← → and Shift");
    getSelection().removeAllRanges();
    marks = marks.filter(m => m.start != start || m.end != end);
    marks.push({start, end, label});
    marks.sort((a, b) => a.start - b.start || a.end - b.end);
    draw();
    card.say(`${label}: ${words.slice(start, end)}`);
  }
  function key(e) {
    if (e.key in MOVE && MOVE[e.key][0] && tokens.length) {
      to = !moved ? (moved = true, to) : Math.max(0, Math.min(tokens.length - 1, to + MOVE[e.key][0]));
      if (!e.shiftKey) from = to;
      draw();
      body.querySelector(".cursor")?.scrollIntoView({block: "nearest"});
      return card.say(words.slice(...range())), true;
    }
    if (e.key != "Delete" && e.key != "Backspace") return false;
    const [a, b] = range(), at = marks.findIndex(m => moved && m.start < b && m.end > a);
    return remove(at < 0 ? marks.length - 1 : at), true;
  }
  draw();
  const out = () => JSON.stringify(marks.map(m => ({start: characters(words, m.start), end: characters(words, m.end), label: m.label})));
  return {node: make("div", {className: "scroll"}, first.text === undefined ? shown(first, item) : body, list, notes(item.parts), rest.length ? details(rest, item) : null), label: out, key, pick: mark};
}

function boxes(item, card, before) {
  const [first, ...rest] = item.parts;
  let all = parsed(before, []), at = -1, armed = card.task.classes[0], W = 0, H = 0, drag = null;
  if (first.trouble || first.text !== undefined) return {...whole(item), label: () => "[]"};
  const picture = media(first, item, node => instead(board, `This picture cannot be shown (${first.name}). Flag the item or skip it.`)), layer = svg("g"), image = svg("image");
  const board = svg("svg", {class: "board", role: "img", "aria-label": "Picture with boxes; a adds one, arrows move it, Shift and arrows resize it"}, image, layer);
  const fit = (v, most) => Math.max(0, Math.min(most, Math.round(v))), size = () => Math.max(W, H);
  picture.ready.then(() => {
    if (!(W = picture.naturalWidth)) return;
    H = picture.naturalHeight;
    for (const [k, v] of Object.entries({width: W, height: H, href: picture.src})) image.setAttribute(k, v);
    board.setAttribute("viewBox", `0 0 ${W} ${H}`);
    if (first.small) image.style.imageRendering = "pixelated";
    draw();
  });
  function draw() {
    const unit = size()/400;
    layer.replaceChildren(...all.flatMap((b, i) => {
      const g = svg("g", {class: i == at ? "box on" : "box", "data-i": i});
      g.style.setProperty("--hue", card.hue(b.label));
      g.append(svg("rect", {x: b.x, y: b.y, width: b.w, height: b.h, "vector-effect": "non-scaling-stroke"}));
      const name = svg("text", {x: b.x + 2*unit, y: Math.max(b.y - 3*unit, 11*unit), "font-size": 11*unit});
      name.textContent = b.label;
      g.append(name);
      if (i == at) for (const [x, y] of [[0, 0], [1, 0], [0, 1], [1, 1]]) g.append(svg("circle", {cx: b.x + x*b.w, cy: b.y + y*b.h, r: 4*unit, "data-corner": `${x}${y}`}));
      return [g];
    }));
  }
  const told = i => all[i] && card.say(`${all[i].label}, box ${i + 1} of ${all.length}: x ${all[i].x}, y ${all[i].y}, width ${all[i].w}, height ${all[i].h}`);
  const add = b => { all.push(b); at = all.length - 1; draw(); told(at) };
  const point = e => { const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(board.getScreenCTM().inverse()); return [fit(p.x, W), fit(p.y, H)] };
  board.addEventListener("pointerdown", e => {
    if (!W || e.button) return;
    const [x, y] = point(e), i = e.target.closest?.("[data-i]")?.dataset.i, corner = e.target.dataset?.corner;
    board.setPointerCapture(e.pointerId);
    if (i !== undefined) { at = +i; drag = {b: {...all[at]}, x, y, corner}; armed = all[at].label; card.arm?.(armed) }
    else drag = {fresh: true, x, y};
    draw();
  });
  board.addEventListener("pointermove", e => {
    if (!drag) return;
    const [x, y] = point(e), edge = (p, q) => [Math.min(p, q), Math.abs(p - q)];
    if (drag.fresh) {
      if (drag.i === undefined && Math.hypot(x - drag.x, y - drag.y) < size()/150) return;
      if (drag.i === undefined) { drag.i = all.push({label: armed}) - 1; at = drag.i }
      const [bx, w] = edge(drag.x, x), [by, h] = edge(drag.y, y);
      Object.assign(all[drag.i], {x: bx, y: by, w: Math.max(1, w), h: Math.max(1, h)});
    } else if (drag.corner) {
      const {b, corner: [cx, cy]} = drag, [bx, w] = edge(cx == "0" ? b.x + b.w : b.x, x), [by, h] = edge(cy == "0" ? b.y + b.h : b.y, y);
      Object.assign(all[at], {x: bx, y: by, w: Math.max(1, w), h: Math.max(1, h)});
    } else Object.assign(all[at], {x: fit(drag.b.x + x - drag.x, W - drag.b.w), y: fit(drag.b.y + y - drag.y, H - drag.b.h)});
    draw();
  });
  for (const ended of ["pointerup", "pointercancel"]) board.addEventListener(ended, () => { if (drag && !(drag.fresh && drag.i === undefined)) told(at); drag = null });
  function key(e) {
    if (e.key == "a" && W) return add({x: fit(W*.35, W), y: fit(H*.35, H), w: fit(W*.3, W) || 1, h: fit(H*.3, H) || 1, label: armed}), true;
    if ((e.key == "[" || e.key == "]") && all.length) return at = (at + (e.key == "]" ? 1 : all.length - 1 + (at < 0)) + all.length) % all.length, draw(), told(at), true;
    const b = all[at];
    if (!b) return e.key in MOVE;
    if (e.key == "Delete" || e.key == "Backspace") return all.splice(at, 1), at = Math.min(at, all.length - 1), draw(), card.say(`Removed ${b.label}; boxes left: ${all.length}`), true;
    if (!(e.key in MOVE)) return false;
    const [dx, dy] = MOVE[e.key].map(d => d*Math.max(1, Math.round(size()/100)));
    if (e.shiftKey) { b.w = Math.max(1, fit(b.w + dx, W - b.x)); b.h = Math.max(1, fit(b.h + dy, H - b.y)) }
    else { b.x = fit(b.x + dx, W - b.w); b.y = fit(b.y + dy, H - b.h) }
    return draw(), told(at), true;
  }
  const pick = label => { armed = label; card.arm?.(label); if (all[at]) { all[at].label = label; draw(); told(at) } else card.say(`Drag on the picture, or press a, for a box of class ${label}`) };
  const node = make("div", {className: "boxes"}, board, rest.length ? details(rest, item) : null);
  return {node, label: () => JSON.stringify(all.map(({x, y, w, h, label}) => ({x, y, w, h, label}))), key, pick, armed: () => armed, ready: picture.ready};
}

const DRAWN = {choice: row, text: whole, image: whole, audio: listen, pair, value, span: spans, box: boxes};
const EXTRA = {
  span: [["← →", "move from word to word"], ["Shift ← →", "take more words"], ["Delete", "remove a mark"]],
  box: [["a", "add a box"], ["[ ]", "another box"], ["arrows", "move the box"], ["Shift arrows", "resize it"], ["Delete", "remove it"]],
  audio: [["Space", "play or pause"], ["← →", "2 seconds back or on"]], pair: [["← → ↓", "left, right, no difference"]], value: [["Esc", "leave the field, then the other keys work"]],
};

// ---------- the card ----------

function card(model, el) {
  const task = model.get("task"), fixed = model.get("annotator"), root = make("section", {className: "mlops-label", tabIndex: 0, "aria-label": `Label ${task.name}`}), session = random();
  const browser = store.get("mlops-label:browser") ?? `browser ${random().slice(0, 6)}`;
  store.set("mlops-label:browser", browser);
  el.append(root);
  const ended = new AbortController(), {signal} = ended;
  const named = who => { root.replaceChildren(); const stop = desk(model, root, task, who, session, browser); signal.addEventListener("abort", stop) };
  if (fixed) named(fixed);
  else ask(root, task, named);
  return () => { ended.abort(); root.remove() };
}

// Voila knows no names: ask once, remember it.
function ask(root, task, named) {
  const field = make("input", {value: store.get("mlops-label:name") ?? "", required: true, maxLength: 80, autocomplete: "username", id: `name-${random()}`});
  root.append(make("form", {className: "who", onsubmit: e => { e.preventDefault(); const who = field.value.trim(); if (!who) return; store.set("mlops-label:name", who); named(who); root.focus({preventScroll: true}) }},
    make("h2", {}, task.question || task.name), make("label", {htmlFor: field.id}, "Your name, as it will stand beside your labels"), field, make("button", {type: "submit", className: "main"}, "Start")));
}

function desk(model, root, task, who, session, browser) {
  const ended = new AbortController(), {signal} = ended, prefix = `mlops-label:${model.get("project")}:${task.name}:${who}:`, box = outbox(prefix + "event:"), past = parsed(store.get(prefix + "past"), []);
  const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel(prefix) : null, queue = [], memory = new Map(), drawn = new Map(), timers = new Set();
  let current = null, view = null, picked = new Set(), began = 0, away = 0, n = 0, progress = {total: 0, done: 0, mine: 0}, mine = 0, sent = new Map(), tries = 0, heard = false, over = false, trouble = null, awaited = null, sending = null, resting = null, overlay = null;
  const later = (f, ms) => { const t = setTimeout(() => { timers.delete(t); if (!signal.aborted) f() }, ms); timers.add(t); return t };
  const on = (target, name, f, options = {}) => target.addEventListener(name, f, {...options, signal});
  const hue = label => Math.max(0, task.classes.indexOf(label))*137 % 360, many = task.classes.length > MANY, parted = task.kind == "span" || task.kind == "box", confirms = task.multi || parted || task.kind == "value";
  const reserved = task.kind == "box" ? "a" : "", keys = keysFor(task.classes, reserved), keyOf = i => task.kind == "pair" && i < 3 ? ["ArrowLeft", "ArrowRight", "ArrowDown"][i] : keys[i];

  // --- parts that stay where they are ---
  const id = random().slice(0, 8), count = make("span", {className: "count"}), eta = make("span", {className: "eta"}), state = make("span", {className: "state", role: "status"}), bar = make("i");
  const meter = make("div", {className: "bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 0}, bar);
  const stage = make("div", {className: "stage", "data-kind": task.kind, id: `item-${id}`, role: "group", "aria-label": "Item", tabIndex: 0}), hint = make("div", {className: "hint"}), live = make("div", {className: "live", role: "status", "aria-live": "polite"}), alarm = make("div", {className: "alarm", role: "alert"});
  const button = (words, key, act, extra = {}) => make("button", {type: "button", onclick: e => once(e) && act(), "aria-keyshortcuts": NAMES[key] && key.length > 1 ? key : key == " " ? "Space" : key, ...extra}, make("kbd", {"aria-hidden": "true"}, NAMES[key] ?? key ?? ""), make("span", {}, words));
  const options = task.kind == "value" ? [] : task.classes.map((c, i) => { const b = button(c, keyOf(i), () => choose(i), {className: "class", title: c}); if (confirms) b.setAttribute("aria-pressed", "false"); if (keyOf(i) == c) { b.firstChild.remove(); b.firstChild.className = "key" } if (!keyOf(i)) { b.firstChild.remove(); b.removeAttribute("aria-keyshortcuts") } if (parted) b.style.setProperty("--hue", hue(c)); return b });
  const filter = many ? make("input", {className: "filter", placeholder: "/ to find a class", "aria-label": "Find a class", oninput: () => find()}) : null;
  const classes = make("div", {className: "classes" + (parted ? " hues" : "") + (many ? " many" : ""), role: "group", "aria-label": "Classes"}, filter, options);
  const save = confirms ? button("Save", "Enter", () => confirm(), {className: "class main"}) : null, accept = button("Accept", "Enter", () => confirm(), {className: "accept"});
  if (save) classes.append(save);
  const more = () => classes.classList.toggle("more", classes.scrollHeight - classes.scrollTop - classes.clientHeight > 4);   // a shade says that there are more below
  classes.addEventListener("scroll", more, {passive: true});
  if (window.ResizeObserver) new ResizeObserver(more).observe(classes);
  const undoing = button("Undo", "u", () => undo()), tools = make("div", {className: "tools", role: "group", "aria-label": "Other actions"}, undoing, button("Skip", "s", () => answer("skip", null)), task.review ? null : button("Flag", "f", () => answer("flag", null)), button("Note", "n", () => note()), button("Help", "?", () => help(), {"aria-haspopup": "dialog"}));
  const put = make("div", {className: "place"}, stage, alarm);
  root.append(make("header", {}, make("h2", {title: task.question || task.name}, task.question || task.name), make("div", {className: "facts"}, count, eta, state)), meter, put, hint, classes, tools);
  tools.append(live);
  if (task.guidelines) root.querySelector("h2").append(make("button", {type: "button", className: "rules", onclick: () => help()}, "guidelines"));

  const say = words => text(live, words);
  const me = {task, root, say, hue, choose: i => choose(i), arm: label => options.forEach((b, i) => b.setAttribute("aria-pressed", String(task.classes[i] == label)))};
  // The second click of a double click, on an item nobody can have seen yet, is not an answer.
  const once = e => !(e.detail > 1 && performance.now() - began < 250);

  // --- items ---
  const draw = item => { let v = drawn.get(item.id); if (!v) drawn.set(item.id, v = DRAWN[task.kind](item, me, item.before ?? (confirms ? item.suggestion : null))); return v };
  function ahead() { for (const item of queue.slice(0, 2)) draw(item) }       // the next ones are drawn while the person looks
  const hold = () => { if (!current) return; if (confirms) current.before = drafted(); queue.unshift(current); drawn.delete(current.id) };   // comes right after
  const drafted = () => task.multi ? JSON.stringify(task.classes.filter((_, i) => picked.has(i))) : view?.label?.() ?? null;
  function show(item) {
    const had = root.contains(document.activeElement);
    current = item;
    root.classList.toggle("none", !item);
    root.dataset.item = item?.id ?? "";
    began = performance.now(); away = 0;
    if (!item) return nothing();
    view = draw(item);
    drawn.delete(item.id);
    stage.replaceChildren(view.node);
    stage.scrollTop = 0;
    if (task.multi) { picked = new Set(parsed(item.before ?? item.suggestion, []).map(c => task.classes.indexOf(c)).filter(i => i >= 0)); pressed() }
    if (task.kind == "box") me.arm(view.armed?.() ?? task.classes[0]);
    suggest(item);
    if (view.start && !overlay) view.start(had);
    else if (had && !root.contains(document.activeElement)) root.focus({preventScroll: true});
    figures();
  }
  function nothing() {
    view = null;
    stage.replaceChildren(make("div", {className: "empty"}, make("strong", {}, over ? "Nothing is left for you" : heard ? "Waiting for the next item" : "One moment"), make("p", {}, over ? `You answered ${plural(mine, "item")} here. New ones appear by themselves.` : stuck() ? away_words() : "")));
    hint.replaceChildren();
    figures();
  }
  function suggest(item) {
    const kept = [];
    if (item.suggestion != null && !confirms) kept.push(make("span", {}, "Suggested: ", make("b", {}, item.suggestion), item.confidence == null ? null : ` ${Math.round(100*item.confidence)} %`), accept);
    else if (item.suggestion != null) kept.push(make("span", {}, "Filled in by a model", item.confidence == null ? null : `, ${Math.round(100*item.confidence)} % sure`));
    for (const a of item.answers ?? []) kept.push(make("span", {}, `${a.annotator}: `, make("b", {}, a.kind == "label" ? a.label : `${a.kind}${a.label ? " – " + a.label : ""}`)));
    if (item.reason) kept.push(make("span", {className: "why"}, `Asked because: ${item.reason}`));
    hint.replaceChildren(...kept);
    options.forEach((b, i) => b.classList.toggle("hinted", !confirms && item.suggestion != null && task.classes[i] == item.suggestion));
  }
  const pressed = () => options.forEach((b, i) => b.setAttribute("aria-pressed", String(picked.has(i))));
  function next() {
    let item = queue.shift();
    show(item ?? null);
    if (item) later(ahead, 0);
  }

  // --- answers ---
  function choose(i) {
    if (!current || i >= task.classes.length) return;
    if (task.multi) { picked.has(i) ? picked.delete(i) : picked.add(i); pressed(); say(`${task.classes[i]} ${picked.has(i) ? "on" : "off"}`) }
    else if (parted) view.pick?.(task.classes[i]);
    else answer("label", task.classes[i]);
  }
  function confirm() {
    if (!current) return;
    if (task.multi) return answer("label", JSON.stringify(task.classes.filter((_, i) => picked.has(i))));
    if (confirms) { const label = view.label(); return label === null ? say(view.empty) : answer("label", label) }
    if (current.suggestion != null) answer("label", current.suggestion);
    else say("Nothing is suggested; press the key of a class");
  }
  const event = (kind, item, label, more = {}) => ({uid: random(), task: task.name, item, label, kind, at: new Date().toISOString(), n: n++, ...more});
  function answer(kind, label) {
    if (!current || overlay) return;
    if (task.review && kind != "label") return next(), say("Left for later");
    const item = current, took = Math.round(performance.now() - began - away);
    const e = event(task.review ? "adjudicate" : kind, item.id, label, {ms: Math.max(0, took), suggestion: item.suggestion ?? null, confidence: item.confidence ?? null, model: item.model ?? null});
    box.put(e);
    mine++;
    memory.set(item.id, item);
    if (memory.size > KEEP) { const [old] = memory.keys(); release(memory.get(old)); memory.delete(old) }
    past.push({uid: e.uid, item: item.id, label, kind});
    if (past.length > KEEP) past.shift();
    if (trouble?.item == item.id) calm();
    next();
    afterwards({done: item.id}, kind == "label" ? `${label.length > 60 ? "Saved" : label}. ` : kind == "skip" ? "Skipped. " : "Flagged. ");
  }
  function undo() {
    if (overlay) return;
    const last = past.pop();
    if (!last) return say("Nothing to take back");
    if (box.get(last.uid)?.refused) box.drop(last.uid);
    else box.put(event("undo", last.item, last.uid, {was: last.kind}));
    mine = Math.max(0, mine - 1);
    hold();
    const item = memory.get(last.item);
    memory.delete(last.item);
    if (item) show({...item, before: confirms ? last.label : null});
    else { awaited = last; current = null; show(null) }           // of an earlier visit: the kernel sends it again
    afterwards({undone: last.item}, "Taken back. ");
  }
  // What need not happen before the next item is seen.
  function afterwards(told, words) {
    tabs?.postMessage(told);
    let late = false;
    const rest = () => {
      if (late || signal.aborted) return;
      late = true;
      store.set(prefix + "past", JSON.stringify(past));
      say(words + (current ? brief(current) : over ? "Nothing is left" : ""));
      send(SOON);
      clearTimeout(resting);
      resting = later(() => post({type: "events", events: [], pause: true}), REST);
    };
    requestAnimationFrame(() => setTimeout(rest));
    later(rest, 200);                                               // a tab nobody sees has no frames
  }
  const brief = item => item.parts.slice(0, 3).map(p => p.text === undefined ? p.name : `${item.parts.length > 1 ? p.name + " " : ""}${p.text.slice(0, 120)}`).join(", ");
  const release = item => Object.values(item?.urls ?? {}).forEach(URL.revokeObjectURL);

  // --- to the kernel and back: the answers of a moment in one message ---
  function send(ms = 0) {
    if (sending) { if (ms) return; clearTimeout(sending) }
    sending = later(() => {
      sending = null;
      const fresh = box.all().filter(e => !sent.has(e.uid) && !e.refused);
      for (const e of fresh) sent.set(e.uid, performance.now());
      post({type: heard ? "events" : "hello", events: fresh.map(({n, ...e}) => e), wanted: awaited?.item ?? null});
      later(figures, PATIENCE + 50);
    }, ms);
  }
  function post(message) { try { model.send({...message, annotator: who, session, browser, hidden: document.hidden}) } catch (e) { later(figures, 0) } }
  // What was not heard is said again, at growing intervals.
  function again() {
    const waiting = box.all().some(e => !e.refused) || !heard || !current;
    if (waiting && !document.hidden) { tries++; sent.clear(); send() } else if (!waiting) tries = 0;
    later(again, RETRY[Math.min(tries, RETRY.length - 1)]);
  }
  function receive(message, buffers) {
    for (const uid of message.acked ?? []) { box.drop(uid); sent.delete(uid) }
    if (message.to != session) return later(figures, 150);
    heard = true; tries = 0;
    for (const {uid, message: why} of message.refused ?? []) refuse(uid, why);
    if (message.trouble) alarmed(message.trouble, null); else if (trouble && !trouble.item && !trouble.told) calm();
    if (message.progress) progress = message.progress;
    if (message.warning && !trouble) alarmed(message.warning, null, true);
    let i = 0;
    for (const item of message.items ?? []) {
      item.urls = {}; item.buffers = buffers.slice(i, i += item.media);
      if (awaited?.item == item.id) { hold(); show({...item, before: confirms ? awaited.label : null}); awaited = null; continue }
      if (current?.id == item.id || queue.some(q => q.id == item.id) || box.answered(item.id)) continue;
      queue.push(item);
    }
    over = Boolean(message.over) && !queue.length;
    if (!current) queue.length ? next() : nothing();
    else later(ahead, 30);
    later(figures, 150);
  }
  function refuse(uid, why) {
    const e = box.get(uid);
    if (!e || e.kind == "undo") return box.drop(uid);
    box.put({...e, refused: why}); sent.delete(uid);
    const at = past.findIndex(p => p.uid == uid), item = memory.get(e.item);
    if (at >= 0) past.splice(at, 1);
    if (item && current?.id != item.id) { memory.delete(item.id); hold(); show({...item, before: confirms ? e.label : null}) }
    alarmed(why, e.item);
  }
  function alarmed(words, item, told) {
    if (trouble?.words == words && trouble.item == item) return;
    trouble = {words, item, told};
    const gone = () => { for (const e of box.all()) if (e.refused) box.drop(e.uid); calm() };
    alarm.replaceChildren(make("span", {}, item ? `Not accepted: ${words}` : words), told ? make("button", {type: "button", onclick: calm}, "Understood") : item ? make("button", {type: "button", onclick: gone}, "Drop it") : make("button", {type: "button", onclick: () => { sent.clear(); send() }}, "Try now"));
    figures();
  }
  function calm() { for (const e of box.all()) if (e.refused) box.drop(e.uid); trouble = null; alarm.replaceChildren(); figures() }
  const oldest = () => Math.max(0, ...box.all().filter(e => !e.refused).map(e => Date.now() - Date.parse(e.at)));
  const stuck = () => (box.size && oldest() > 6000) || (!heard && performance.now() - born > 6000);
  const away_words = () => `The kernel does not answer. ${document.body.dataset.voila !== undefined ? "Reload the page" : "Run the cell again"} if this lasts; your answers are kept in this browser.`;
  const born = performance.now();

  function figures() {
    const all = progress.total, shared = task.overlap > 1, unsaved = box.size;
    const waits = kinds => box.all().reduce((sum, e) => sum + (e.refused ? 0 : kinds.includes(e.kind) ? 1 : e.kind == "undo" && kinds.includes(e.was) ? -1 : 0), 0);
    const done = Math.max(0, Math.min(all, progress.done + (shared || task.review ? 0 : waits(["label"]))));   // shared: others must answer it, too
    text(count, !all ? "" : `${done.toLocaleString("en")} of ${all.toLocaleString("en")}${shared ? `, yours ${(progress.mine + waits(["label", "skip", "flag"])).toLocaleString("en")}` : ""}`);
    text(eta, !progress.eta || done >= all ? "" : `about ${span_of(progress.eta)} left`);
    const share = all ? done/all : 0;
    bar.style.transform = `scaleX(${share})`;
    meter.setAttribute("aria-valuenow", Math.round(100*share));
    root.dataset.unsaved = unsaved;
    const slow = unsaved && (oldest() > PATIENCE || box.loose);
    text(state, slow ? `${unsaved} unsaved` : "saved");
    state.classList.toggle("waits", Boolean(slow));
    state.title = !slow ? "All answers are in the database" : box.loose ? "This browser cannot keep answers: do not close the page until they are saved" : "Kept in this browser until the kernel has written them down";
    undoing.disabled = !past.length;
    if (stuck() && !trouble) alarm.replaceChildren(make("span", {}, away_words())), alarm.dataset.away = "1";
    else if (!trouble && alarm.dataset.away) alarm.replaceChildren(), delete alarm.dataset.away;
  }
  const span_of = s => s < 90 ? `${Math.max(1, Math.round(s))} s` : s < 5400 ? `${Math.round(s/60)} min` : s < 172_800 ? `${Math.round(s/3600)} h` : `${Math.round(s/86_400)} days`;

  // --- help and note lie over the item, so that nothing moves ---
  function open(node, focus) { overlay = node; put.append(node); (focus ?? node).focus({preventScroll: true}) }
  function close() { overlay?.remove(); overlay = null; root.focus({preventScroll: true}) }
  function help() {
    if (overlay) return close();
    const line = ([k, words]) => make("tr", {}, make("td", {}, k.split(" ").map(x => make("kbd", {}, x))), make("td", {}, words));
    const rows = [...(options.length ? [[options.slice(0, 3).map((_, i) => NAMES[keyOf(i)] ?? keyOf(i)).join(" ") + (options.length > 3 ? " …" : ""), parted ? "class of the selection" : task.multi ? "class on or off" : "answer, and on to the next item"]] : []), ...(EXTRA[task.kind] ?? []),
      ["Enter", confirms ? "save, and on to the next item" : "accept what is suggested"], ["u", "undo, as often as you like"], ["s", "skip: not for me"], ["f", "flag: something is wrong with the item"], ["n", "note"], ...(many ? [["/", "find a class"]] : []), ["Esc", "close; leave the card, the keys belong to the page again"]];
    open(make("div", {className: "over", role: "dialog", "aria-label": "Help", tabIndex: -1}, task.guidelines ? make("p", {className: "rule"}, task.guidelines) : null, make("table", {}, make("tbody", {}, rows.map(line))), make("button", {type: "button", onclick: close}, "Close")));
  }
  function note() {
    if (!current || overlay) return;
    const field = make("textarea", {"aria-label": "Note on this item", placeholder: "What is worth knowing about this item? Enter keeps it.", maxLength: 10_000});
    const keep = () => { const words = field.value.trim(); if (words && current) box.put(event("note", current.id, words)); close(); figures(); if (words) afterwards({}, "Note kept. ") };
    field.onkeydown = e => { if (e.key == "Enter" && !e.shiftKey) { e.preventDefault(); keep() } };
    open(make("div", {className: "over note", role: "dialog", "aria-label": "Note"}, field, make("button", {type: "button", className: "main", onclick: keep}, "Keep"), make("button", {type: "button", onclick: close}, "Cancel")), field);
  }
  const find = () => { const words = filter.value.toLowerCase(); options.forEach((b, i) => b.hidden = !task.classes[i].toLowerCase().includes(words)); more() };

  // --- keys: taken at the window, before JupyterLab, while the card has the focus ---
  function pressedKey(e) {
    if (!e.composedPath().includes(root) || e.isComposing) return;
    if (e.ctrlKey || e.metaKey || e.altKey) { if (e.key.toLowerCase() == "z" && !e.altKey && !written(e.target)) { e.preventDefault(); e.stopImmediatePropagation(); undo() } return }
    e.stopPropagation();
    if (e.type == "keydown" && handle(e)) { e.preventDefault(); e.stopImmediatePropagation() }
    else if (written(e.target) && e.type == "keydown") e.target.onkeydown?.(e);
  }
  const written = t => t.matches?.("input:not([type=checkbox]), textarea");
  function handle(e) {
    if (e.key == "Escape") return escape(e.target), true;
    if (written(e.target)) {
      if (e.target == filter && e.key == "Enter") { const i = options.findIndex(b => !b.hidden); filter.value = ""; find(); root.focus({preventScroll: true}); if (i >= 0) choose(i); return true }
      if (e.target.classList.contains("value") && e.key == "Enter") return !e.repeat && confirm(), true;
      return false;
    }
    if (overlay) return e.key == "?" ? (close(), true) : false;
    if (e.key == "Enter" || e.key == " ") { if (e.target.closest("button")) return e.repeat }            // the button itself is pressed
    if (e.repeat) return e.key in MOVE ? Boolean(view?.key?.(e)) : e.key.length == 1 || e.key == "Enter";   // a key that is held answers once
    if (view?.key?.(e)) return true;
    const act = {u: undo, s: () => answer("skip", null), f: () => answer("flag", null), n: note, "?": help, Enter: confirm}[e.key];
    if (act) return act(), true;
    if (e.key == "/" && many) return filter.focus(), true;
    const i = options.findIndex((_, i) => keyOf(i) == e.key || (task.kind == "pair" && keys[i] == e.key));
    return i >= 0 && (choose(i), true);
  }
  function escape(target) {
    if (overlay) return close();
    if (written(target)) { if (target == filter) { filter.value = ""; find() } return root.focus({preventScroll: true}) }
    const cell = root.closest(".jp-Cell");
    if (cell) { if (cell.tabIndex < 0) cell.tabIndex = 0; cell.focus({preventScroll: true}) } else document.activeElement?.blur();
  }
  for (const name of ["keydown", "keyup", "keypress"]) on(window, name, pressedKey, {capture: true});
  on(put, "pointerdown", e => { if (!e.target.closest("input,textarea,button,audio,svg") && !parted) later(() => root.contains(document.activeElement) || root.focus({preventScroll: true}), 0); else if (e.target.closest("svg")) root.focus({preventScroll: true}) });
  // A click leaves the focus on the card, so that the keys go on working, and moves it before the click, when it costs nobody time.
  on(root, "mousedown", e => { if (e.target.closest("button")) { e.preventDefault(); if (!root.contains(document.activeElement) || !overlay && document.activeElement != root) root.focus({preventScroll: true}) } });
  let hiddenAt = 0;
  on(document, "visibilitychange", () => { if (document.hidden) { hiddenAt = performance.now(); sent.clear(); send() } else if (hiddenAt) { away += performance.now() - hiddenAt; hiddenAt = 0; sent.clear(); send() } });
  on(window, "pagehide", () => { if (box.size) { const all = box.all().filter(e => !e.refused); post({type: "events", events: all.map(({n, ...e}) => e)}) } });
  on(window, "beforeunload", e => { if (box.loose) e.preventDefault() });
  on(window, "storage", e => { if (e.key?.startsWith(prefix + "event:") && e.newValue === null) { box.forget(e.key.slice(prefix.length + 6)); later(figures, 150) } });
  if (tabs) tabs.onmessage = ({data: {done}}) => {
    if (!done) return;
    const i = queue.findIndex(q => q.id == done);
    if (i >= 0) release(queue.splice(i, 1)[0]);
    if (current?.id == done) { next(); say("Answered in another tab. " + (current ? brief(current) : "")) }
    send(SOON);
  };
  const got = (message, buffers) => receive(message, buffers ?? []);
  model.on("msg:custom", got);
  nothing();
  const advice = "Click the card, then the keys on the buttons work";
  say(advice);
  on(root, "focusin", () => { if (live.textContent == advice) say("") });
  if (document.body.dataset.voila !== undefined && document.activeElement == document.body) root.focus({preventScroll: true});
  for (const e of box.all()) if (e.refused) alarmed(e.refused, e.item);
  send();
  later(again, RETRY[0]);
  const renew = () => { if (!document.hidden) send(); later(renew, RENEW) };
  later(renew, RENEW);
  signal.addEventListener("abort", () => { model.off("msg:custom", got); tabs?.close(); timers.forEach(clearTimeout); for (const item of [...queue, ...memory.values(), current]) release(item) });
  return () => ended.abort();
}

export default { render: ({model, el}) => card(model, el) };
