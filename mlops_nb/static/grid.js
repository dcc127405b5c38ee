// A table that sorts and filters, an ES module for anywidget. All rows are here, so nothing asks the kernel; values are set as text, never parsed as markup.
const STEP = 100, UP = "ascending", DOWN = "descending";
const el = (tag, props = {}, ...kids) => { const node = Object.assign(document.createElement(tag), props); node.append(...kids); return node; };

function render({model, el: root}) {
  const {columns, rows, caption, left_out} = model.get("told");
  let order = null, side = UP, words = "", shown = STEP;
  const find = el("input", {type: "search", placeholder: "filter: 4, late, hour > 17"}), count = el("span", {className: "count"}), more = el("button", {type: "button", className: "more"});
  find.setAttribute("aria-label", "filter rows");
  count.setAttribute("role", "status");
  const body = el("tbody"), heads = columns.map((c, i) => {
    const button = el("button", {type: "button", textContent: c.name, onclick: () => { side = order === i && side === UP ? DOWN : UP; order = i; draw(); }});
    return el("th", {scope: "col", className: c.number ? "num" : ""}, button);
  });
  const table = el("table", {}, ...(caption ? [el("caption", {textContent: caption})] : []), el("thead", {}, el("tr", {}, ...heads)), body);

  // A word is looked for everywhere; `column > 3` (or <, >=, <=, =) in one column. All must hold.
  function test(word) {
    const asked = word.match(/^\s*(.+?)\s*(>=|<=|=|>|<)\s*(.+?)\s*$/), at = asked ? columns.findIndex(c => c.name.toLowerCase() === asked[1].toLowerCase()) : -1;
    if (at < 0) { const w = word.trim().toLowerCase(); return row => row.some(cell => cell.text.toLowerCase().includes(w)); }
    const number = +asked[3], plain = asked[3].toLowerCase(), by = columns[at].number && !Number.isNaN(number);
    return row => {
      if (row[at].value == null) return false;
      const d = by ? row[at].value - number : row[at].text.toLowerCase() < plain ? -1 : +(row[at].text.toLowerCase() > plain);
      return {">": d > 0, "<": d < 0, ">=": d >= 0, "<=": d <= 0, "=": d === 0}[asked[2]];
    };
  }
  const cells = rows.map(row => row.map(cell => Array.isArray(cell) ? {text: cell[0], value: cell[1]} : {text: cell ?? "–", value: cell}));
  const compare = (a, b) => a == null || b == null ? (a == null) - (b == null) || 0 : typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true});
  function draw() {
    const tests = words.split(",").filter(w => w.trim()).map(test);
    let found = cells.filter(row => tests.every(t => t(row)));
    if (order !== null) found = [...found].sort((a, b) => { const [x, y] = [a[order].value, b[order].value]; return x == null || y == null || side === UP ? compare(x, y) : -compare(x, y); });
    heads.forEach((h, i) => i === order ? h.setAttribute("aria-sort", side) : h.removeAttribute("aria-sort"));
    body.replaceChildren(...found.slice(0, shown).map(row => el("tr", {}, ...row.map((c, i) => el("td", {textContent: c.text, className: columns[i].number ? "num" : ""})))));
    count.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows${left_out ? `; the first of ${(rows.length + left_out).toLocaleString("en")}` : ""}`;
    more.hidden = found.length <= shown;
    more.textContent = `show ${Math.min(STEP, found.length - shown)} more`;
  }
  find.oninput = () => { words = find.value; shown = STEP; draw(); };
  find.onkeydown = e => { e.stopPropagation(); if (e.key === "Escape") { find.value = words = ""; draw(); } };
  more.onclick = () => { shown += STEP; draw(); };
  root.classList.add("mlops-grid");
  root.replaceChildren(el("div", {className: "bar"}, find, count), el("div", {className: "rows", tabIndex: 0}, table), more);
  root.querySelector(".rows").setAttribute("role", "group");
  root.querySelector(".rows").setAttribute("aria-label", caption || "table");
  draw();
}
export default {render};
