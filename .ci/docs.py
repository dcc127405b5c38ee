"README.md from nbs/index.ipynb, and every notebook as a page of _docs/. Offline, without quarto; shows stored outputs, runs nothing."
import html, os, re, shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from posixpath import normpath

import nbformat
from nbconvert import HTMLExporter, MarkdownExporter

ROOT, NBS, OUT = Path(__file__).resolve().parent.parent, Path("nbs"), Path("_docs")
OFFLINE = {name: "" for name in ("mathjax_url", "require_js_url", "jquery_url", "jupyter_widgets_base_url", "widget_renderer_url", "mermaid_js_url")}
LINK = re.compile(r'(\]\(|(?:src|href)=")(?!\w+:|[#/])([^)"#\s]+)')
DIRECTIVE = re.compile(r"^#\|\s*(\w+).*\n?", re.M)
HIDDEN = {"hide", "default_exp"}

def readable(path):
    "The notebook as a reader wants it: without hidden cells and nbdev's directives."
    nb = nbformat.read(path, as_version=4)
    nb.metadata.language_info = {"name": "python"}
    code = lambda cell: cell.cell_type == "code"
    nb.cells = [c for c in nb.cells if not (code(c) and HIDDEN & set(DIRECTIVE.findall(c.source)))]
    for c in filter(code, nb.cells): c.source = DIRECTIVE.sub("", c.source)
    return nb

def readme(index):
    "A link relative to nbs/ becomes one relative to the root, where README.md stands."
    text, _ = MarkdownExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_notebook_node(readable(index))
    text = LINK.sub(lambda m: m[1] + normpath(f"nbs/{m[2]}"), text)
    Path("README.md").write_text(text.strip() + "\n", encoding="utf-8")

def page(path):
    "One notebook as HTML; links between notebooks become links between pages."
    target = OUT / path.relative_to(NBS).with_suffix(".html")
    text, _ = HTMLExporter(**OFFLINE).from_notebook_node(readable(path), resources={"metadata": {"name": path.stem}})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(re.sub(r'(href="(?!\w+:)[^"]+)\.ipynb', r"\1.html", text), encoding="utf-8")
    return target.relative_to(OUT)

ORDER = ["", "tutorials", "workflows"]   # what a reader wants first; then the library, in the order of its layers
PATHS = ["first_hour", "howto", "label_images", "label_digits", "bring_your_estimator", "monitor_a_model", "drift_is_not_decay", "schedule", "team_servers", "use_the_library"]

def told(path):
    "(Title, promise) of a notebook, from its first cell."
    text = nbformat.read(path, as_version=4).cells[0].source
    title, promise = (re.search(p, text, re.M) for p in (r"^# (.+)", r"^> (.+)"))
    return tuple(html.escape(re.sub(r"[`*]", "", m[1])) if m else "" for m in (title, promise))

def contents(pages):
    "The list of all pages with what each promises, one heading per folder, lessons first."
    rank = lambda p, known: (known.index(p) if p in known else len(known), p)
    folders = sorted({p.parent for p in pages}, key=lambda f: rank(f.name, ORDER))
    def items(folder):
        for p in sorted((p for p in pages if p.parent == folder), key=lambda p: rank(p.stem, PATHS)):
            title, promise = told(NBS/p.with_suffix(".ipynb"))
            yield f'<li><a href="{p.as_posix()}">{title or p.stem}</a> {promise}</li>'
    body = "".join(f"<h2>{folder.name or 'start'}</h2><ul>{''.join(items(folder))}</ul>" for folder in folders)
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>mlops_nb</title><h1>mlops_nb</h1>{body}</html>\n'

def main():
    os.chdir(ROOT)
    if (index := NBS/"index.ipynb").exists(): readme(index)
    shutil.rmtree(OUT, ignore_errors=True)
    books = [p for p in sorted(NBS.rglob("*.ipynb")) if not any(part.startswith((".", "_")) for part in p.parts)]
    with ProcessPoolExecutor() as pool: pages = list(pool.map(page, books, chunksize=4))
    (OUT/"contents.html").write_text(contents(pages), encoding="utf-8")
    print(f"{len(pages)} pages; open {OUT}/contents.html")

if __name__ == "__main__": main()
