// The live part of a page: the line to its kernel, the widgets, and words when something is wrong. Plain JavaScript, no build step.
// Widgets are drawn by `extension.js`, which ipywidgets ships for the classic notebook (jupyter-js-widgets): one file, always of the version that Python has.
// It expects that notebook around it; `Jupyter`, `requirejs`, `Comm` and `OutputArea` below are as much of it as the file touches.
(() => {
"use strict";
const script = document.currentScript, expected = +script.dataset.widgets;
const {baseUrl, kernelId} = JSON.parse(document.getElementById("jupyter-config-data").textContent);
const api = `${baseUrl}api/kernels/${kernelId}`, VIEW = "application/vnd.jupyter.widget-view+json";
const cookie = name => (document.cookie.match(`(?:^|; )${name}=([^;]*)`) || [])[1] || "";
let over = false;   // the visitor leaves, or the session has ended

// --- words for the visitor ---
function notice(words, action, act) {
  document.querySelector(".mlops-notice")?.remove();
  const box = document.createElement("div"), p = document.createElement("p"), button = document.createElement("button");
  box.className = "mlops-notice"; box.setAttribute("role", "alert");
  p.textContent = words; button.textContent = action; button.onclick = act;
  box.append(p, button); document.body.append(box);
}
function ended(words) {
  if (over) return;
  over = true; document.body.dataset.live = "no";
  notice(words, "Reload", () => location.reload());
}
function failed(content) { notice(`That did not work: ${content.ename}${content.evalue ? ": " + content.evalue : ""}`, "Close", e => e.target.parentNode.remove()); }

// --- leaving: the kernel goes with the tab ---
const leave = () => { if (!over) { over = true; navigator.sendBeacon(`${baseUrl}voila/api/shutdown/${kernelId}?_xsrf=${encodeURIComponent(cookie("_xsrf"))}`); } };
if (!expected) { document.body.dataset.live = "done"; leave(); return; }   // nothing to talk about
addEventListener("pagehide", leave);
addEventListener("pageshow", e => { if (e.persisted) location.reload(); });

// --- the line: Jupyter's messages over one websocket ---
const session = crypto.randomUUID ? crypto.randomUUID() : `${Math.random()}`.slice(2) + Date.now(), waiting = [], asked = new Map(), comms = new Map(), targets = new Map(), claimed = new Map();
let socket = null, count = 0;
function packed(message, buffers) {
  if (!buffers?.length) return JSON.stringify(message);
  const bytes = b => b instanceof ArrayBuffer ? new Uint8Array(b) : new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
  const parts = [new TextEncoder().encode(JSON.stringify(message)), ...buffers.map(bytes)], head = 4*(parts.length + 1);
  const all = new Uint8Array(head + parts.reduce((n, p) => n + p.length, 0)), view = new DataView(all.buffer);
  let at = head;
  view.setUint32(0, parts.length);
  parts.forEach((p, i) => { view.setUint32(4*(i + 1), at); all.set(p, at); at += p.length; });
  return all.buffer;
}
function unpacked(data) {
  if (typeof data === "string") return JSON.parse(data);
  const view = new DataView(data), n = view.getUint32(0), at = [...Array(n).keys()].map(i => view.getUint32(4*(i + 1))).concat(data.byteLength);
  const message = JSON.parse(new TextDecoder().decode(data.slice(at[0], at[1])));
  message.buffers = at.slice(1, -1).map((from, i) => new DataView(data.slice(from, at[i + 2])));
  return message;
}
function send(type, content, callbacks = {}, metadata = {}, buffers = []) {
  const id = `${session}-${++count}`;
  asked.set(id, callbacks || {});
  const message = packed({channel: "shell", header: {msg_id: id, msg_type: type, session, username: "", version: "5.3", date: new Date().toISOString()}, parent_header: {}, metadata: metadata || {}, content}, buffers);
  if (socket?.readyState === 1) socket.send(message); else waiting.push(message);
  return id;
}
let chain = Promise.resolve();
function connect() {
  socket = new WebSocket(`${new URL(baseUrl, location.href).href.replace(/^http/, "ws")}api/kernels/${kernelId}/channels?session_id=${session}`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => waiting.splice(0).forEach(m => socket.send(m));
  socket.onmessage = e => { const message = unpacked(e.data); chain = chain.then(() => heard(message)).catch(console.error); };
  socket.onclose = () => look(1);
}
async function heard(message) {
  const type = message.header.msg_type, content = message.content, parent = message.parent_header?.msg_id, callbacks = asked.get(parent);
  if (message.channel === "shell") { callbacks?.shell?.reply?.(message); return; }
  if (type === "status") {
    if (content.execution_state === "dead" || content.execution_state === "restarting") return ended("The session behind this page has ended.");
    callbacks?.iopub?.status?.(message);
    if (content.execution_state === "idle") asked.delete(parent);
  }
  else if (type === "comm_open") { const comm = new Comm(content.target_name, content.comm_id); comms.set(comm.comm_id, comm); await targets.get(content.target_name)?.(comm, message); }
  else if (type === "comm_msg") await comms.get(content.comm_id)?.heard(message);
  else if (type === "comm_close") { comms.get(content.comm_id)?.closed?.(message); comms.delete(content.comm_id); }
  else if (["stream", "display_data", "execute_result", "error", "clear_output"].includes(type)) {
    const what = type === "clear_output" ? "clear_output" : "output", stack = claimed.get(parent), mine = stack?.length ? asked.get(stack.at(-1)) : null;
    (mine || callbacks)?.iopub?.[what]?.(message);
    if (type === "error" && !mine) failed(content);
  }
}

// --- is it still there? ---
let looking = 0;
async function look(again = 0) {
  if (over || again && looking > 5) return;
  looking += again;
  try {
    const answer = await fetch(api, {cache: "no-store"});
    if (answer.status === 404) return ended("The session behind this page has ended.");
    if (!answer.ok) return ended("You are no longer signed in here.");
    if (again) setTimeout(() => over || connect(), 300*looking); else looking = 0;
  } catch { ended("Disconnected: the server does not answer."); }
}
setInterval(() => document.hidden || look(), 10000);
document.addEventListener("visibilitychange", () => document.hidden || look());

// --- what the widgets' file expects of a notebook ---
class Comm {
  constructor(target, id) { this.target_name = target; this.comm_id = id; this.kernel = kernel; }
  open(data, callbacks, metadata, buffers) { return send("comm_open", {comm_id: this.comm_id, target_name: this.target_name, data: data || {}}, callbacks, metadata, buffers); }
  send(data, callbacks, metadata, buffers) { return send("comm_msg", {comm_id: this.comm_id, data}, callbacks, metadata, buffers); }
  close(data, callbacks, metadata) { comms.delete(this.comm_id); return send("comm_close", {comm_id: this.comm_id, data: data || {}}, callbacks, metadata); }
  on_msg(f) { this.heard = f; }
  on_close(f) { this.closed = f; }
  heard() {}
}
const comm_manager = {
  register_target: (name, f) => targets.set(name, f),
  register_comm: comm => { comms.set(comm.comm_id, comm); return comm.comm_id; },
  new_comm(target, data, callbacks, metadata, id, buffers) { const comm = new Comm(target, id); this.register_comm(comm); comm.open(data, callbacks, metadata, buffers); return comm; },
};
const kernel = {
  comm_manager, is_connected: () => true, send_shell_message: send,
  comm_info: (target, f) => send("comm_info_request", {target_name: target}, {shell: {reply: f}}),
  set_callbacks_for_msg: (id, callbacks) => asked.set(id, callbacks),
  output_callback_overrides_push: (id, model) => claimed.set(id, [...(claimed.get(id) || []), model]),
  output_callback_overrides_pop: id => { const stack = claimed.get(id) || [], last = stack.pop(); if (!stack.length) claimed.delete(id); return last; },
};
comm_manager.kernel = kernel;

function drawn(output) {
  const box = document.createElement("div"), data = output.data || {}, text = t => Array.isArray(t) ? t.join("") : t;
  if (output.output_type === "error") { box.className = "mlops-card"; box.textContent = `${output.ename}: ${output.evalue}`; }
  else if (output.output_type === "stream") { const pre = document.createElement("pre"); pre.className = "mlops-text"; pre.textContent = text(output.text); box.append(pre); }
  else if (data[VIEW]) widget(data[VIEW].model_id, box);
  else if (data["text/html"] || data["image/svg+xml"]) {
    box.innerHTML = text(data["text/html"] || data["image/svg+xml"]);
    for (const old of box.querySelectorAll("script")) { const made = document.createElement("script"); for (const a of old.attributes) made.setAttribute(a.name, a.value); made.textContent = old.textContent; old.replaceWith(made); }
  }
  else if (data["image/png"] || data["image/jpeg"]) { const img = document.createElement("img"), kind = data["image/png"] ? "png" : "jpeg"; img.alt = text(data["text/plain"] || "picture"); img.src = `data:image/${kind};base64,${text(data[`image/${kind}`])}`; box.append(img); }
  else { const pre = document.createElement("pre"); pre.className = "mlops-text"; pre.textContent = text(data["text/plain"] || ""); box.append(pre); }
  return box;
}
class OutputArea {
  constructor({selector}) { this.element = selector; this.outputs = []; this.wait = false; }
  add(output) {
    const last = this.outputs.at(-1);
    if (output.output_type === "stream" && last?.output_type === "stream" && last.name === output.name) { last.text += output.text; this.element.lastChild.replaceWith(drawn(last)); }
    else { this.outputs.push(output); this.element.append(drawn(output)); }
  }
  handle_output(message) {
    if (this.wait) { this.wait = false; this.clear_output(); }
    this.add({output_type: message.header.msg_type, ...message.content});
  }
  handle_clear_output(message) { if (message.content.wait) this.wait = true; else this.clear_output(); }
  clear_output() { this.outputs = []; this.element.replaceChildren(); }
  fromJSON(outputs) { outputs.forEach(o => this.add(o)); }
  toJSON() { return this.outputs; }
}
let append = null;   // draws a widget; the widgets' file says how
OutputArea.prototype.register_mime_type = (_, f) => { append = f; };

const nothing = () => {}, events = {on: nothing, off: nothing, trigger: nothing};
let loaded; const states = new Promise(done => { loaded = done; });
const keyboard_manager = {register_events: nothing, enable: nothing, disable: nothing, actions: {register: nothing}};
const Jupyter = window.Jupyter = {version: "6.5.0", notebook: {kernel, metadata: {}, keyboard_manager, events, container: {on: nothing}, get_cells: () => { loaded(); return []; }},
  menubar: {actions: {register: nothing, get: () => ({handler: nothing})}}, notification_area: {widget: () => ({set_message: nothing})}};

// --- modules, as require.js has them ---
const known = new Map(Object.entries({"base/js/namespace": Jupyter, "base/js/events": events, "notebook/js/outputarea": {OutputArea}, "services/kernels/comm": {Comm}, "base/js/dialog": {}, jquery: window.jQuery}).map(([k, v]) => [k, Promise.resolve(v)]));
const maps = {}, made = new Map();
function load(id) {
  id = maps[id] || id;
  if (!known.has(id)) known.set(id, id.startsWith("nbextensions/") ? fetched(id) : load(`nbextensions/${id}/extension`).catch(nothing).then(() => load(maps[id] || `nbextensions/${id}/index`)));
  return known.get(id);
}
function fetched(id) {
  return new Promise((done, fail) => {
    const s = document.createElement("script");
    s.src = /^https?:/.test(id) ? id : `${baseUrl}voila/${id}.js`;
    s.onload = () => { const f = made.get(s); f ? f(id).then(done, fail) : done({}); };
    s.onerror = () => fail(new Error(`${id} is not there`));
    document.head.append(s);
  });
}
window.define = (...words) => {
  const factory = words.pop(), needs = Array.isArray(words.at(-1)) ? words.pop() : [], exports = {};
  const make = async id => {
    const given = await Promise.all(needs.map(n => n === "module" ? {id, uri: `${baseUrl}voila/${id}.js`} : n === "exports" ? exports : n === "require" ? window.require : load(n)));
    return (typeof factory === "function" ? factory(...given) : factory) ?? exports;
  };
  if (typeof words[0] === "string") known.set(words[0], make(words[0])); else made.set(document.currentScript, make);
};
window.define.amd = {};
window.require = window.requirejs = (names, done, fail) => Promise.all([].concat(names).map(load)).then(all => done?.(...all), fail || console.error);
window.requirejs.config = settings => Object.assign(maps, settings?.map?.["*"]);

// --- and alive ---
async function widget(id, box) {
  const heardBox = document.createElement("div"), area = new OutputArea({selector: heardBox});
  heardBox.className = "mlops-heard";
  const output = {keyboard_manager, create_output_subarea: () => [Object.assign(document.createElement("div"), {className: "jupyter-widgets-view"})],
    handle_output: m => m.header.msg_type === "error" || area.handle_output(m), handle_clear_output: m => area.handle_clear_output(m)};
  try {
    await Jupyter.WidgetManager._managers[0].get_model(id);
    append.call(output, {model_id: id}, {}, {append: made => box.append(made[0])});
    box.append(heardBox);
  } catch (e) { console.error(e); box.textContent = "This control could not be shown. Reload the page to try again."; }
}
async function start() {
  connect();
  const file = await load("nbextensions/jupyter-js-widgets/extension");
  const menu = document.createElement("div");
  menu.hidden = true; menu.innerHTML = "<ul><li><a id='help_menu'></a></li></ul>";
  document.body.append(menu);
  await file.load_ipython_extension();
  menu.remove();
  await states;
  await Promise.all([...document.querySelectorAll(".mlops-widget[data-model]")].map(box => widget(box.dataset.model, box)));
  document.body.dataset.live = "yes";
}
start().catch(e => { console.error(e); ended("The controls of this page could not be loaded."); });
})();
