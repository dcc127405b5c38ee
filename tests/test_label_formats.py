"Everything out and in again, through every format; what other programs write; what cannot be read."
import base64, io, json

import pandas as pd
import pytest

from mlops_nb.core import ledger
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput
from mlops_nb.label import formats, log, queue
from mlops_nb.label.log import Event

ODD = ["plain", "1", "true", "null", '"quoted"', "a, b; c", "two\nlines\r\nand three", "  spaces  ", "日本語 😀", "<script>alert(1)</script>", "=1+1", "[1, 2]", "NaN", "-", "'", "\\N", "é\u2028x"]
SAID = dict(choice=["late", "fine"], text=["late", "fine"], value=["12", "", "=1+1", "null", "two\nlines", '"q"'], span=['[{"start": 0, "end": 1, "label": "late"}]', "[]"], pair=["left", "tie"],
            multi=['["late", "fine"]', "[]"], box=['[{"x": 1, "y": 2.5, "w": 3, "h": 4, "label": "late"}, {"x": 7, "y": 0, "w": 3.25, "h": 1, "label": "fine"}]', "[]"], image=["late"], audio=["fine"])

def everything(kind):
    "A task with a bit of all there is."
    data = pd.DataFrame({"id": [f"i{i}" for i in range(len(ODD))], "text": ODD, "n": range(len(ODD)), "x": [.1*i for i in range(len(ODD))], "ok": [i % 2 == 0 for i in range(len(ODD))], "gone": [None, "here"]*(len(ODD)//2) + [None], "width": 640, "height": 480})
    classes = () if kind in ("value", "pair") else ("late", "fine")
    say = lambda i, label, who="ana", kind="label", **more: Event("t", f"i{i}", label, kind, who, **more)
    labels = SAID[kind]
    queue.create("t", data, key="id", classes=classes, kind=kind, question="Late, or not?", overlap=2, gold={"i9": labels[0], "i8": labels[-1]}, guidelines="# Rules\nLook twice.", show=["text", "n", "x", "ok", "gone", "width", "height"])
    queue.suggest("t", ["i3", "i4"], [labels[0], labels[-1]], [.25, .5], "m 3")
    queue.prioritise("t", ["i4", "i5"], [2.5, 1], "margin, of course")
    past = [say(n % 7, label, who, ms=10*n, suggestion=labels[0] if n % 2 else None, confidence=.125 if n % 2 else None, model="m 3" if n % 2 else None) for n, (label, who) in enumerate((a, w) for a in labels*2 for w in ("ana", "ben", "Ümit, \"the\" cat"))]
    queue.answer(*past)
    queue.answer(past[0].undo(), say(1, "why?\nreally", "ben", "note"), say(6, None, "cara", "skip"), say(5, "torn", "cara", "flag"), say(7, None, "cara", "flag"), say(0, labels[-1], "eve", "adjudicate"))
    queue.answer(Event("t", "i0", log.events("t").query("kind == 'undo'").uid.iloc[0], "undo", "ana"))
    return formats.rows("t"), log.labels("t").values.tolist(), queue.progress("t"), queue.open_task("t")

FILES = [("csv", "t.csv"), ("parquet", "t.parquet"), ("jsonl", "t.jsonl"), ("label-studio", "t.json"), ("coco", "t.json"), ("spacy", "t.jsonl")]
ROUND = [(f, name, kind) for f, name in FILES for kind in SAID if not (f == "coco" and kind != "box" or f == "spacy" and kind != "span")]

@pytest.mark.parametrize("format, name, kind", ROUND)
def test_round_trip_loses_nothing(local, format, name, kind):
    rows, labels, before, task = everything(kind)
    path = formats.export("t", local/"out"/name, format)
    ledger.close()
    with settings_for(local/"other"):
        assert formats.load(path) == sum(r["kind"] not in ("task", "item") for r in rows) and formats.load(path) == 0
        assert formats.rows("t") == rows and log.labels("t").values.tolist() == labels and queue.open_task("t") == task
        after = queue.progress("t")
        assert [getattr(after, n) for n in ("total", "done", "left", "skipped", "flagged", "disagreements")] == [getattr(before, n) for n in ("total", "done", "left", "skipped", "flagged", "disagreements")]
        assert [i.item for i in queue.take("t", "zoe", 3)][:2] == ["i4", "i5"] or after.flagged
        ledger.close()

def test_under_another_name_beside_the_first(local):
    rows, *_ = everything("text")
    formats.export("t", local/"t.jsonl")
    n = sum(r["kind"] not in ("task", "item") for r in rows)
    assert formats.load(local/"t.jsonl", "copy") == n and formats.load(local/"t.jsonl", "copy") == 0
    assert log.labels("copy").drop(columns="at").values.tolist() == log.labels("t").drop(columns="at").values.tolist() and len(log.current("copy")) == len(log.current("t"))

def test_labels_without_a_queue(local):
    log.append(Event("loose", "a", "1"), Event("loose", "b", None, "skip"))
    formats.export("loose", local/"l.csv")
    ledger.close()
    with settings_for(local/"other"):
        assert formats.load(local/"l.csv", "loose") == 2 and log.current("loose").kind.tolist() == ["label", "skip"]
        ledger.close()
    with pytest.raises(BadInput, match="needs the items"): formats.export("loose", local/"l.json")

# --- what other programs write ---

def picture(w, h):
    from PIL import Image
    out = io.BytesIO()
    Image.new("L", (w, h)).save(out, "PNG")
    return out.getvalue()

def test_label_studio_reads_what_it_expects(local):
    queue.create("cars", pd.DataFrame({"id": ["a"], "image": [picture(200, 50)]}), key="id", classes=["car"], kind="box")
    queue.answer(Event("cars", "a", '[{"x": 20, "y": 10, "w": 100, "h": 25, "label": "car"}]', annotator="ana@example.org", ms=2500))
    formats.export("cars", local/"c.json", "label-studio")
    task, = json.loads((local/"c.json").read_text())
    note, = task["annotations"]
    assert note["completed_by"] == {"email": "ana@example.org"} and note["lead_time"] == 2.5 and task["data"]["image"].startswith("data:image/png;base64,")
    assert note["result"][0]["value"] == dict(x=10, y=20, width=50, height=50, rotation=0, rectanglelabels=["car"]) and note["result"][0]["original_width"] == 200

def test_an_edit_in_label_studio_comes_back_as_one_more_answer(local):
    everything("text")
    formats.export("t", local/"t.json")
    tasks = json.loads((local/"t.json").read_text(encoding="utf-8"))
    note = next(a for t in tasks for a in t["annotations"] if a["result"] and not a["ground_truth"])
    was = note["result"][0]["value"]["choices"][0]
    note["result"][0]["value"]["choices"] = ["fine" if was == "late" else "late"]
    (local/"t.json").write_text(json.dumps(tasks), encoding="utf-8")
    assert formats.load(local/"t.json") == 1 and formats.load(local/"t.json") == 0

LABEL_STUDIO = [dict(id=17, data=dict(text="late again"), annotations=[dict(id=3, completed_by=2, created_at="2026-01-05T10:00:00.000000Z", lead_time=4.2, was_cancelled=False, result=[dict(from_name="s", to_name="text", type="choices", value=dict(choices=["late"]))]),
                  dict(id=4, completed_by=3, was_cancelled=True, result=[])], predictions=[dict(model_version="v1", score=.8, result=[dict(type="choices", value=dict(choices=["fine"]))])]), dict(id=18, data=dict(text="smooth"), annotations=[])]

def test_a_file_of_label_studio(local):
    (local/"project.json").write_text(json.dumps(LABEL_STUDIO))
    assert formats.load(local/"project.json", classes=["late", "fine"], kind="text") == 2 and formats.load(local/"project.json", classes=["late", "fine"], kind="text") == 0
    assert log.events("project")[["item", "annotator", "label", "kind", "ms"]].fillna("-").values.tolist()[0] == ["17", "user 2", "late", "label", 4200]
    assert queue.look("project").text.tolist() == ["late again", "smooth"] and queue.take("project", "ana", 2)[0].item == "18"

def test_a_file_of_coco(local):
    coco = dict(images=[dict(id=5, file_name="a.jpg", width=64, height=48), dict(id=6, file_name="b.jpg", width=64, height=48)], categories=[dict(id=3, name="cat"), dict(id=9, name="dog")],
                annotations=[dict(id=1, image_id=5, category_id=9, bbox=[1.5, 2, 10, 20], area=200, iscrowd=0), dict(id=2, image_id=5, category_id=3, bbox=[0, 0, 4, 4], area=16, iscrowd=0)])
    (local/"pets.json").write_text(json.dumps(coco))
    assert formats.load(local/"pets.json") == 2
    assert json.loads(log.labels("pets").set_index("item").label["a.jpg"]) == [dict(x=0, y=0, w=4, h=4, label="cat"), dict(x=1.5, y=2, w=10, h=20, label="dog")]
    back = json.loads(formats.export("pets", local/"back.json").read_text())
    assert sorted((a["bbox"], a["area"]) for a in back["annotations"]) == sorted((a["bbox"], a["area"]) for a in coco["annotations"]) and [i["file_name"] for i in back["images"]] == ["a.jpg", "b.jpg"]

def test_lines_of_spacy_and_prodigy(local):
    lines = [dict(text="Ana flew to Oslo", spans=[dict(start=12, end=16, label="LOC", token_start=3)], answer="accept"), dict(text="nothing", spans=[]), dict(text="no idea", answer="ignore"), dict(text="not seen")]
    (local/"ner.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert formats.load(local/"ner.jsonl", classes=["LOC", "PER"], kind="span", annotator="ana") == 3
    assert queue.progress("ner").done == 2 and log.labels("ner").label.tolist() == ['[{"start": 12, "end": 16, "label": "LOC"}]', "[]"]

def test_a_table_of_somebody(local):
    (local/"t.csv").write_text("\ufefftweet,words,verdict,annotator\n7,\"late, again\",late,ana\n7,\"late, again\",fine,ben\n8,smooth,,\n", encoding="utf-8")
    assert formats.load(local/"t.csv", key="tweet", label="verdict", overlap=2) == 2
    assert queue.open_task("t").classes == ("fine", "late") and queue.progress("t").disagreements == 1 and queue.look("t").words.tolist() == ["late, again", "smooth"]

# --- what cannot be read ---

@pytest.mark.parametrize("name, text, how, said", [
    ("t.xyz", "", {}, "does not say its format"), ("t.csv", "", {}, "no rows"), ("t.csv", "a,b\n1,2\n", {}, "no column 'item'"), ("t.csv", "id,text\n1,x\n", {}, "which classes"), ("t.json", "{nonsense", {}, "cannot be read"), ("t.json", "[1, 2]", {}, "cannot be read"),
    ("t.parquet", "no parquet", {}, "cannot be read"), ("t.csv", "id,label\n1,late\n", dict(classes=["fine"]), "no class 'late'"), ("t.csv", "id,label\n1,late\n", dict(clases=["late"]), "did you mean 'classes'"), ("t.csv", "id,label\n1,late\n", dict(format="cvs"), "did you mean 'csv'"),
    ("t.jsonl", '{"kind": "label", "item": "a"}', {}, "cannot be read"), ("t.json", json.dumps(dict(categories=[], images=[], annotations=[dict(image_id=1, category_id=4, bbox=[1, 1, 1, 1])])), {}, "cannot be read")])
def test_files_that_cannot_be_read(local, name, text, how, said):
    (local/name).write_text(text)
    with pytest.raises(BadInput, match=said): formats.load(local/name, **how)

def test_classes_that_nobody_named_are_told(local):
    (local/"t.csv").write_text("id,label\n1,late\n2,late\n3,laet\n")
    with pytest.warns(UserWarning, match=r"late \(2\), laet \(1\); pass classes="): formats.load(local/"t.csv")

def test_no_such_file_or_task(local):
    with pytest.raises(BadInput, match="no file 'x.csv'"): formats.load(local/"x.csv")
    queue.create("tweets", ["a"], key=None, classes=["x"], kind="text")
    with pytest.raises(BadInput, match="did you mean 'tweets'"): formats.export("tweet", local/"x.csv")
    with pytest.raises(BadInput, match="holds tasks of kind 'box'"): formats.export("tweets", local/"x.json", "coco")
    with pytest.raises(BadInput, match="holds tasks of kind 'span'"): formats.export("tweets", local/"x.jsonl", "spacy")

def test_a_box_without_the_size_of_its_picture(local):
    queue.create("cars", pd.DataFrame({"id": ["a"], "image": ["nowhere.png"]}), key="id", classes=["car"], kind="box")
    queue.answer(Event("cars", "a", '[{"x": 2, "y": 1, "w": 1, "h": 2, "label": "car"}]'))
    with pytest.raises(BadInput, match="cannot be read, and Label Studio keeps boxes as percentages"): formats.export("cars", local/"c.json", "label-studio")
    assert formats.export("cars", local/"c.json", "coco").exists()

def test_plain_classes_of_several_and_empty_answers_of_another_program(local):
    "A single class of a task with several is a list of one; submitted without an answer is no answer."
    task = dict(data=dict(id="a", text="x"), annotations=[dict(result=[dict(type="choices", value=dict(choices=["late"]))])])
    (local/"several.json").write_text(json.dumps([task]))
    assert formats.load(local/"several.json", classes=["late", "fine"], multi=True) == 1 and log.labels("several").label.tolist() == ['["late"]']
    (local/"empty.json").write_text(json.dumps([task, dict(data=dict(id="b", text="y"), annotations=[dict(result=[])])]))
    assert formats.load(local/"empty.json", classes=["late", "fine"]) == 1 and log.labels("empty").item.tolist() == ["a"]
