"README.md from nbs/index.ipynb, and every notebook as a page of _docs/. Offline, without quarto; shows stored outputs, runs nothing."
import os, re, shutil
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
    html, _ = HTMLExporter(**OFFLINE).from_notebook_node(readable(path), resources={"metadata": {"name": path.stem}})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(re.sub(r'(href="(?!\w+:)[^"]+)\.ipynb', r"\1.html", html), encoding="utf-8")
    return target.relative_to(OUT)

def contents(pages):
    "The list of all pages, one heading per folder."
    folders = sorted({p.parent for p in pages})
    items = lambda folder: "".join(f'<li><a href="{p.as_posix()}">{p.stem}</a></li>' for p in pages if p.parent == folder)
    body = "".join(f"<h2>{folder.name or 'start'}</h2><ul>{items(folder)}</ul>" for folder in folders)
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
