"README.md from nbs/index.ipynb; every notebook, every page of docs/ and a reference of all public names as a site in _docs/. Offline, without quarto; shows stored outputs, runs nothing."
import ast, json, os, re, shutil
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from html import escape
from pathlib import Path
from posixpath import normpath, relpath

import mistune, nbformat
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

@lru_cache
def exporter():
    "Its templates are compiled once a process; our own code, highlighted, needs no cleaning, which takes half of the time."
    found = HTMLExporter(**OFFLINE)
    found.register_filter("clean_html", lambda html: html)
    return found

def page(path):
    "One notebook as HTML."
    target = OUT/path.relative_to(NBS).with_suffix(".html")
    html, _ = exporter().from_notebook_node(readable(path), resources={"metadata": {"name": path.stem}})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(re.sub(r"<body[^>]*>", lambda m: f"{m[0]}<p style='margin:1rem'><a href='{relpath('contents.html', path.parent.relative_to(NBS))}'>All pages</a>", linked(html, path), count=1), encoding="utf-8")
    return target.relative_to(OUT)

def linked(html, path):
    "Links between notebooks and documents become links between pages, others are text. The site begins where nbs/ does."
    place = lambda p: p.removeprefix("nbs/") if p.startswith("nbs/") else p
    def link(m):
        to = normpath(path.parent/m[3])
        if not re.fullmatch(r"nbs/.*\.ipynb|(docs/)?[\w-]+\.md|docs/[\w-]+\.(png|svg)", to): return f'data-{m[0]}'
        return m[1] + re.sub(r"\.(ipynb|md)$", ".html", relpath(place(to), Path(place(path.as_posix())).parent))
    return re.sub(r'((src|href)=")(?!\w+:|[#/])([^"#]+)', link, html)

def document(path):
    "A page of Markdown."
    target = OUT/path.with_suffix(".html")
    target.parent.mkdir(parents=True, exist_ok=True)
    body = mistune.create_markdown(escape=False, plugins=["table"])(path.read_text(encoding="utf-8"))
    target.write_text(framed(path.stem, linked(body, path), relpath("contents.html", path.parent)), encoding="utf-8")

def told(path):
    "(title, promise) of a notebook."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = "".join(cells[0]["source"]).splitlines() if cells else []
    return tuple(next((l[2:] for l in lines if l.startswith(mark)), "") for mark in ("# ", "> "))

def contents(books):
    "The list of all pages, in the order of a model's life, lessons as a newcomer reads them."
    def items(folder):
        for p in sorted((p for p in books if p.parent == NBS/folder), key=lambda p: (LESSONS.index(p.stem) if p.stem in LESSONS else len(LESSONS), p)):
            title, promise = (escape(re.sub(r"[`*]", "", t)) for t in told(p))
            yield f'<li><a href="{p.relative_to(NBS).with_suffix(".html").as_posix()}">{title or p.stem}</a> {promise}'
    folders = [*PARTS, *sorted({p.parent.name for p in books} - {*PARTS, NBS.name})]
    parts = "".join(f"<h2>{PARTS.get(f, f)}</h2><ul>{inside}</ul>" for f in folders if (inside := "".join(items(f))))
    documents = "".join(f'<li><a href="docs/{p.stem}.html">{p.stem}</a>' for p in sorted(Path("docs").glob("*.md")))
    return framed("mlops_nb", f'<h1>mlops_nb</h1><ul><li><a href="index.html">What it is</a><li><a href="reference.html">Reference: every public name</a>{documents}</ul>{parts}', "")

def reference():
    "Every public name with its parameters and the first line of its promise, as the exported modules have them."
    rows = []
    for file in sorted(Path("mlops_nb").rglob("*.py")):
        tree, at = ast.parse(file.read_text(encoding="utf-8")), file.relative_to("mlops_nb").with_suffix("")
        known = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"), [])
        found = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in known]
        rows += [f"<tr><th colspan=2><a href='{at}.html'>{'.'.join(at.parts)}</a>"] if found else []
        rows += [f"<tr><td><code>{n.name}{escape(f'({ast.unparse(n.args)})') if isinstance(n, ast.FunctionDef) else ''}</code><td>{escape((ast.get_docstring(n) or '').partition(chr(10))[0])}" for n in found]
    return framed("Reference", f"<h1>Reference</h1><p>In Python, <code>help(name)</code> and the Tab key say the same; the page of a module shows each of them at work.<table>{''.join(rows)}</table>", "contents.html")

def framed(title, body, home):
    back = f"<p><a href='{home}'>All pages</a>" if home else ""
    return f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title><style>{STYLE}</style><main>{back}{body}</main></html>\n"

LESSONS = "first_hour howto label_images label_digits bring_your_estimator monitor_a_model drift_is_not_decay schedule team_servers use_the_library".split()
PARTS = dict(tutorials="Read first", workflows="Jobs that a scheduler runs", dashboards="Pages for people", data="Data", label="Labels", features="Features", train="Training", registry="Delivery",
             serve="Serving", monitor="Monitoring", govern="Governance", run="Runs", pages="What pages are made of", cli="The command line", core="Core")
STYLE = "body{font:16px/1.55 system-ui,sans-serif;margin:0}main{max-width:64rem;margin:0 auto;padding:1rem}table{border-collapse:collapse;display:block;overflow:auto}td,th{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #8884}pre{background:#8882;padding:.7rem;overflow:auto}img{max-width:100%}li{margin:.2rem 0}:root{color-scheme:light dark}"

def main():
    os.chdir(ROOT)
    if (index := NBS/"index.ipynb").exists(): readme(index)
    shutil.rmtree(OUT, ignore_errors=True)
    books = [p for p in sorted(NBS.rglob("*.ipynb")) if not any(part.startswith((".", "_")) for part in p.parts)]
    with ProcessPoolExecutor() as pool: pages = list(pool.map(page, books, chunksize=4))
    for p in [*Path("docs").glob("*.md"), *Path().glob("*.md")]: document(p)
    for p in [*Path("docs").glob("*.png"), *Path("docs").glob("*.svg")]: shutil.copy(p, OUT/p)
    (OUT/"contents.html").write_text(contents(books), encoding="utf-8")
    (OUT/"reference.html").write_text(reference(), encoding="utf-8")
    print(f"{len(pages)} pages; open {OUT}/contents.html")

if __name__ == "__main__": main()
