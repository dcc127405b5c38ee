"The numbers of docs and code that a living notebook library keeps, bounded. Usage: style.py [ROOT]"
import ast, json, re, sys
from pathlib import Path
from statistics import median

EXPORT = re.compile(r"^#\|\s*export[is]?\b", re.M)
HIDE = re.compile(r"^#\|\s*(hide|hide_input|echo:\s*false|code-fold:\s*true)\b", re.M)
BOUNDS = {                     # number -> the most it may be
    "export cell, longest (lines)": 62, "export cell, 90th percentile (lines)": 25,
    "function, median (lines)": 5, "function, 90th percentile (lines)": 20,
    "module, longest (lines)": 400, "notebook, most cells": 80,
    "exports without prose beside them": 0, "notebooks with fewer lessons than exports": 0,
    "hidden share of the other code (%)": 10,
}

def p90(values): return sorted(values)[max(0, round(.9*len(values)) - 1)] if values else 0
def lines(text): return [l for l in text.splitlines() if l.strip() and not l.startswith("#|")]

def kind(cell):
    "`prose`, `setup` (directives or imports alone), `private` (helpers), `export` or `lesson`."
    if cell["cell_type"] != "code": return "prose"
    text = "".join(cell["source"])
    try: body = ast.parse(text).body
    except SyntaxError: body = None
    if body is not None and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body): return "setup"
    if not EXPORT.search(text): return "lesson"
    names = [n.name for n in body or [] if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    return "private" if not names or all(n.startswith("_") for n in names) else "export"

def bare(kinds):
    "Positions of exports with no prose between them and the lesson or the start before them."
    prose = False
    for i, k in enumerate(kinds):
        if k == "prose": prose = True
        elif k == "lesson": prose = False
        elif k == "export" and not prose and kinds[i+1:i+2] != ["prose"]: yield i

def functions(path):
    "Name and length of every function, nested ones too."
    for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)): yield f"{path.stem}.{n.name}:{n.lineno}", n.end_lineno - n.lineno + 1

def measure(root):
    "The numbers of `BOUNDS`, and for each the places that make it what it is."
    books = {}
    for path in sorted((root/"nbs").rglob("*.ipynb")):
        nb = json.loads(path.read_text(encoding="utf-8"))
        text = ["".join(c["source"]) for c in nb["cells"]]
        if ".ipynb_checkpoints" not in path.parts and re.search(r"^#\|\s*default_exp", "\n".join(text), re.M):
            books[path.relative_to(root).as_posix()] = list(zip(map(kind, nb["cells"]), text))
    cells = {f"{name} cell {i}": len(lines(t)) for name, book in books.items() for i, (k, t) in enumerate(book) if k in ("export", "private")}
    modules = [p for p in sorted((root/"mlops_nb").rglob("*.py")) if p.name not in ("_modidx.py", "__init__.py")]
    sizes = {p.relative_to(root).as_posix(): len(p.read_text(encoding="utf-8").splitlines()) for p in modules}
    lengths = dict(f for p in modules for f in functions(p))
    counts = {name: len(book) for name, book in books.items()}
    naked = [f"{name} cell {i}" for name, book in books.items() for i in bare([k for k, _ in book])]
    short = [name for name, book in books.items() if sum(k == "lesson" for k, _ in book) < sum(k == "export" for k, _ in book)]
    lessons = [(f"{name} cell {i}", t) for name, book in books.items() for i, (k, t) in enumerate(book) if k == "lesson"]
    hidden = {where: len(lines(t)) for where, t in lessons if HIDE.search(t)}
    shown = sum(len(lines(t)) for _, t in lessons)
    values = [max(cells.values(), default=0), p90(cells.values()), median(lengths.values() or [0]), p90(lengths.values()), max(sizes.values(), default=0),
              max(counts.values(), default=0), len(naked), len(short), round(100*sum(hidden.values())/max(shown, 1), 1)]
    places = [cells, cells, lengths, lengths, sizes, counts, naked, short, hidden]
    return {name: (value, place) for name, value, place in zip(BOUNDS, values, places)}, len(books), sum(sizes.values())

def worst(places, n=3):
    "The first few places, the largest first."
    if isinstance(places, list): return ", ".join(places[:n])
    return ", ".join(f"{name} {size}" for name, size in sorted(places.items(), key=lambda kv: -kv[1])[:n])

def main(root="."):
    numbers, books, total = measure(Path(root).resolve())
    print(f"style of {books} library notebooks, {total:,} exported lines")
    broken = 0
    for name, (value, places) in numbers.items():
        bad = value > BOUNDS[name]
        broken += bad
        print(f"{'BAD' if bad else 'ok ':3} {name:44} {value:>7} of {BOUNDS[name]:<4} {worst(places, 8 if bad else 1)}")
    return bool(broken)

if __name__ == "__main__": sys.exit(main(*sys.argv[1:]))
