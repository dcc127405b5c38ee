"What the docs say is there: verbs, links, commands. And what nobody has told about yet is named."
import argparse, json, re, shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [p for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT/"llms.txt"] if p.exists()]
BOOKS = sorted(p for p in ROOT.glob("nbs/**/*.ipynb") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts))

def cells(path, kind): return ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]

def parser():
    from mlops_nb.cli.cli import parser
    return parser()

def verbs(): return next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices

def test_links_lead_somewhere():
    texts = {p: p.read_text(encoding="utf-8") for p in PAGES} | {p: "\n".join(cells(p, "markdown")) for p in BOOKS}
    broken = [f"{p.relative_to(ROOT)}: {link}" for p, text in texts.items() for link in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", re.sub(r"`[^`\n]*`", "", text)) if not (p.parent/link).exists()]
    assert len(texts) > 100 and not broken, broken

def commands():
    "Every line of a shell block and every piece of inline code that begins with mlops-nb, as (page, words)."
    lessons = [p for p in BOOKS if p.parent.name == "tutorials"]
    for p in [*PAGES, *lessons]:
        text = "\n\n".join(cells(p, "markdown")) if p in lessons else p.read_text(encoding="utf-8")
        blocks = [l.partition("#")[0].strip() for b in re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.S) for l in b.splitlines()]
        for line in [*blocks, *re.findall(r"`(mlops-nb [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))]:
            if line.startswith("mlops-nb ") and not re.search(r"\.\.\.|[<\[]", line): yield p.name, line

def test_commands_of_the_docs_are_understood():
    from mlops_nb.core.finding import BadInput
    found, wrong = list(commands()), []
    for page, line in found:
        words = shlex.split(re.sub(r"[,;.]$", "", line))[1:]
        words = [w for w in words if w not in ("&&", "|")]
        if words == [w for w in words if not w.startswith("-")] and len(words) == 1 and words[0] in verbs(): continue   # the verb as a noun
        try: parser().parse_args(words)
        except SystemExit as e:
            if e.code: wrong.append(f"{page}: {line}")
        except BadInput as e:
            if not re.search("are required|expected (at least )?one argument", str(e)): wrong.append(f"{page}: {line}: {e}")   # prose names a verb or an option without its words
    assert len(found) > 20 and {"howto.ipynb", "schedule.ipynb"} <= {page for page, _ in found} and not wrong, wrong

def test_python_of_the_docs_compiles_and_its_names_are_there():
    import ast, importlib
    blocks = [(p, b) for p in PAGES for b in re.findall(r"```python\n(.*?)```", p.read_text(encoding="utf-8"), re.S)]
    assert blocks
    for p, block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlops_nb"):
                module = importlib.import_module(node.module)
                for a in node.names: assert hasattr(module, a.name) or importlib.import_module(f"{node.module}.{a.name}"), f"{p.name}: {a.name}"

def test_every_verb_is_told_about():
    texts = "\n".join([*(p.read_text(encoding="utf-8") for p in PAGES), *("\n".join(cells(b, "markdown") + cells(b, "code")) for b in BOOKS)])
    silent = [v for v in verbs() if not re.search(rf"mlops-nb {re.escape(v)}\b", texts)]
    assert len(verbs()) > 15 and not silent, f"no page or lesson says mlops-nb {', '.join(silent)}"

def untold():
    lessons = "\n".join(c for b in BOOKS for c in cells(b, "code") if not re.match(r"#\|\s*(export|default_exp)", c))
    words = set(re.findall(r"\w+", lessons))
    names = {m["module"] + "." + n for m in modules() for n in m["names"] if n[0].islower()}   # a class is seen as what a function returns
    return {n for n in names if n.rpartition(".")[2] not in words}

def modules():
    for p in sorted((ROOT/"mlops_nb").rglob("*.py")):
        found = re.search(r"^__all__ = (\[.*?\])", p.read_text(encoding="utf-8"), re.S | re.M)
        if found: yield dict(module=".".join(p.relative_to(ROOT/"mlops_nb").with_suffix("").parts), names=json.loads(found[1].replace("'", '"')))

def test_public_names_occur_in_a_lesson():
    assert not (new := untold()), f"public, and in no lesson: {', '.join(sorted(new))}"

def test_a_name_without_a_lesson_is_seen(monkeypatch):
    monkeypatch.setitem(globals(), "BOOKS", [])
    assert "run.guess.guess" in untold()

def test_a_page_for_machines_lists_what_there_is():
    text = (ROOT/"llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# mlops_nb\n\n> ") and all(f"`{v}`" in text for v in verbs()), [v for v in verbs() if f"`{v}`" not in text]

def test_the_contents_page_begins_with_the_lessons_and_says_what_each_promises(monkeypatch):
    import importlib.util
    spec = importlib.util.spec_from_file_location("docs", ROOT/".ci/docs.py")
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    monkeypatch.chdir(ROOT)
    lessons = [p for p in BOOKS if p.parent.name == "tutorials"]
    assert {p.stem for p in lessons} == set(docs.LESSONS), "name each lesson once in .ci/docs.py, in the order in which a newcomer reads them"
    text = docs.contents([p.relative_to(ROOT) for p in BOOKS])
    assert all(f'href="{p.relative_to(ROOT/"nbs").with_suffix(".html")}"' in text for p in BOOKS) and text.index("tutorials/howto.html") < text.index("workflows/train.html") < text.index("core/config.html")
    assert not re.search(r"<li><a[^>]*>[^<]*</a> <", text[text.index("<h2>Read first"):text.index("<h2>Jobs")]), "a lesson without a promise"
