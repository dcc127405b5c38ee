"A project of one's own: made by one command, run by another, brought up to date by a third; what cannot be is told and leaves nothing behind."
import json, subprocess, sys
from pathlib import Path

import pandas as pd, pytest

from conftest import MAIN, free_port, without_card
from servers import answers
from mlops_nb.core.config import settings_for
from mlops_nb.core.finding import BadInput
from mlops_nb.run import notebook, pipeline, project, replay
from mlops_nb.run.guess import guess

def command(*words, cwd): return subprocess.run([*MAIN, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=900, env=environment())

def environment():
    import os
    return {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")}

@pytest.fixture
def wine(tmp_path):
    from sklearn.datasets import load_wine
    df = load_wine(as_frame=True).frame
    df["target"] = df["target"].map({0: "Barolo", 1: "Grignolino", 2: "Barbera"})
    df.rename(columns={"ash": "cenere (g/l) – è"}).to_csv(tmp_path/"wine.csv", index=False)
    return tmp_path/"wine.csv"

def test_a_table_of_ones_own_goes_through_the_whole_loop(tmp_path, wine):
    made = command("init", "cellar", "--data", wine, "--target", "target", cwd=tmp_path)
    assert made.returncode == 0 and "row_id counts them" in made.stderr and "cd cellar" in made.stdout, made.stderr
    root = tmp_path/"cellar"
    ran = command("run", "--json", cwd=root)
    ended = {r["stage"]: r["state"] for r in json.loads(ran.stdout)}
    assert ran.returncode == 0 and set(ended.values()) == {"done"} and list(ended) == ["plan", "ingest", "explore", "importance", "train", "score", "monitor", "retrain", "card"], (ran.stdout, ran.stderr[-2000:])
    kept = {p.parent.name: p for p in (root/"reports/runs").glob("*/*.ipynb")}
    assert set(kept) == set(ended) and not (bare := {stage: steps for stage, p in kept.items() if (steps := without_card(p))}), bare
    assert (root/"reports/cards/cellar_version_1.html").exists() and (root/"nbs/workflows/wine.toml").exists()
    from mlops_nb.data import dataset
    from mlops_nb.registry import models
    with settings_for(root):
        assert models.in_charge("cellar") == 1
        held = dataset.read("predictions")
        assert 20 < len(held) < 60   # only rows that were kept aside: not what the model has learned
    other_unit = pd.read_csv(wine).drop(columns="target").assign(row_id=range(178), alcohol=lambda d: d.alcohol*100).head(60)
    asked = served_and_killed(root, json.loads(other_unit.to_json(orient="records")))
    watched = command("monitor", cwd=root)
    assert watched.returncode == 3 and "60 predictions" in watched.stderr, watched.stderr[-2000:]   # nobody has said drain
    assert "in need of treatment" in watched.stderr and "whether alcohol changed its unit" in watched.stderr, watched.stderr[-2000:]
    with settings_for(root): assert len(dataset.read("predictions")) == len(held) + len(asked)
    tested = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=root, capture_output=True, text=True, env=environment())
    assert tested.returncode == 0 and "3 passed" in tested.stdout, tested.stdout

def served_and_killed(root, rows):
    "Answers of a server that is killed before its minute is over."
    from urllib.request import Request, urlopen
    port = free_port()
    server = subprocess.Popen([*MAIN, "serve", "champion", "--port", str(port), "--access", ""], cwd=root, env=environment(), stderr=subprocess.DEVNULL)
    try:
        answers(port, process=server)
        body = Request(f"http://127.0.0.1:{port}/invocations", json.dumps(dict(dataframe_records=rows)).encode(), {"Content-Type": "application/json"})
        return json.loads(urlopen(body, timeout=600).read())["predictions"]
    finally:
        server.kill()
        server.wait()

def test_a_table_written_as_elsewhere_is_read_as_it_is_meant_and_so_are_the_next_ones(tmp_path):
    made = [f"K-{i:03};{i % 28 + 1:02}.{i//28 + 1:02}.2025;{'Köln' if i % 3 else 'Zürich'};{i % 17},5;;{'ja' if (i*7) % 17 > 8 else 'nein'}" for i in range(300)]
    table = lambda lines: "\r\n".join(["Kunde;Datum;Ort 🏠;Größe (m²);leer;kündigt?", *lines, ""])
    (tmp_path/"kunden.csv").write_text(table(made[:250]), encoding="utf-8-sig")
    (tmp_path/"neu.csv").write_text(table(made[250:]), encoding="utf-8-sig")
    begun = command("init", "treue", "--data", "kunden.csv", "--target", "kündigt?", "--time", "Datum", cwd=tmp_path)
    assert begun.returncode == 0 and "decimal=','" in begun.stderr and "time_format='%d.%m.%Y'" in begun.stderr, begun.stderr
    root = tmp_path/"treue"
    for words in (["ingest"], ["train", "-p", "holdout_days=60"], ["ingest", "-p", f"source={tmp_path/'neu.csv'}"]):
        done = command("run", *words, cwd=root)
        assert done.returncode == 0, (words, done.stdout, done.stderr[-2000:])
    from mlops_nb.data import dataset
    with settings_for(root): held = dataset.read("kunden")
    assert len(held) == 300 and held["Größe (m²)"].max() == 16.5 and held.Datum.max() == pd.Timestamp("2025-11-20")
    (tmp_path/"alt.csv").write_text(table(made).replace(" 🏠", ""), encoding="cp1252")
    (tmp_path/"zweimal.csv").write_text(table(made).replace(";leer;", ";Kunde;"), encoding="utf-8")
    for name, says in (("alt.csv", "--read encoding=cp1252"), ("zweimal.csv", "two columns 'Kunde'")):
        refused = command("init", "nie", "--data", name, "--target", "kündigt?", cwd=tmp_path)
        assert refused.returncode == 2 and says in refused.stderr and not (tmp_path/"nie").exists(), refused.stderr
    assert command("init", "doch", "--data", "alt.csv", "--target", "kündigt?", "--read", "encoding=cp1252", cwd=tmp_path).returncode == 0

def test_a_demo_lives_through_lots_in_the_order_of_time(tmp_path):
    from mlops_nb.data import samples
    df = samples.flights(until="2013-02-15").merge(samples.flight_outcomes(until="2013-02-15")[["flight_id", "dep_delay"]])
    df = df.assign(late=df.dep_delay > 15).drop(columns="dep_delay").sample(6000, random_state=0)
    df.to_parquet(tmp_path/"trips.parquet")
    root, _ = replay.begin(tmp_path/"demo-trips", tmp_path/"trips.parquet", "late", "scheduled")
    lots = [pd.read_parquet(p) for p in (next((root/"data").glob("*.parquet")), *sorted((root/"data/arrivals").iterdir()))]
    assert sum(map(len, lots)) == 6000 and all(a.scheduled.max() < b.scheduled.min() for a, b in zip(lots, lots[1:]))
    ini = root/"settings.ini"   # the short way through the loop
    ini.write_text(ini.read_text().partition("[pipeline]")[0] + "[pipeline]\ningest =\ntrain = ingest\nscore = train\nmonitor = score\nretrain = monitor\ncard = retrain\n")
    ended = replay.play(root)
    assert not [r.line for r in ended if r.exit_code] and len(ended) == 6 + 3*4 + 1
    told = replay.story(root)
    assert [r["lot"] for r in told] == ["past", 1, 2, 3] and told[-1]["n"] and 0 < told[-1]["value"] < 1
    assert replay.play(root)[0].state in ("done", "skipped") and len(replay.story(root)) == 4   # finished: nothing is played twice

@pytest.mark.parametrize("words, says", [
    (["cellar", "--data", "wine.csv"], "add --target"),
    (["cellar", "--data", "wine.csv", "--target", "targte"], "did you mean 'target'"),
    (["cellar", "--data", "wine.csv", "--target", "target", "--time", "hue"], "a time is needed"),
    (["cellar", "--data", "wine.csv", "--target", "target", "--key", "hue"], "does not name a row"),
    (["cellar", "--data", "vine.csv", "--target", "target"], "no file"),
    (["cellar", "--target", "target"], "add --data"),
    (["json"], "cannot be the name of a library"),
    ([], "no name"),
    (["full"], "mlops-nb init --update"),
    (["--update"], "was not made by"),
])
def test_what_cannot_be_is_told_and_leaves_nothing_behind(tmp_path, wine, words, says):
    (tmp_path/"full").mkdir()
    (tmp_path/"full/thesis.txt").write_text("years of work")
    done = command("init", *words, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".mlops") == ["full", "wine.csv"] and (tmp_path/"full/thesis.txt").read_text() == "years of work"

def test_too_few_rows_or_answers_that_nobody_can_learn():
    for df, says in ((pd.DataFrame({"x": range(20), "y": [0, 1]*10}), "at least 50"), (pd.DataFrame({"x": range(60), "y": [0]*58 + [1]*2}), "at least 10 of each"),
                     (pd.DataFrame({"x": range(60), "y": [f"w{i}" for i in range(60)]}), "one row only of 'w0', of 60 classes"),
                     (pd.DataFrame({"x": range(600), "y": [f"w{i % 200}" for i in range(600)]}), "200 classes, 100 at most"), (pd.DataFrame({"x": range(60), "y": [1]*60}), "the same")):
        with pytest.raises(BadInput, match=says): guess(df, "y")

def test_a_class_of_two_rows_is_told_with_its_rows(tmp_path):
    pd.DataFrame({"x": range(100), "day": pd.date_range("2026-01-01", periods=100), "y": ["rare" if i in (10, 90) else "ab"[i % 2] for i in range(100)]}).to_csv(tmp_path/"t.csv", index=False)
    with pytest.raises(BadInput, match="'rare' in 2 of 100 rows, one of them in the history"): replay.begin(tmp_path/"demo", tmp_path/"t.csv", "y", "day")
    assert not (tmp_path/"demo").exists()

def test_sentences_are_learned_from(tmp_path):
    "Nothing else in the table tells the answer; the plan would say no."
    words = dict(yes=("my parcel never came and nobody answers", "the third broken lamp in a row, I want my money back", "this is the worst shop I know"), no=("thank you, the lamp is lovely", "could you tell me your opening hours", "everything arrived in time, all is well"))
    rows = [("yes" if i*7 % 11 < 5 else "no", i) for i in range(400)]
    pd.DataFrame({"said": [f"{words[a][i % 3]}, order {i*7919 % 10007}" for a, i in rows], "n": [i*37 % 101 for _, i in rows], "angry": [a for a, _ in rows]}).to_csv(tmp_path/"mails.csv", index=False)
    root, _ = project.init(tmp_path/"mails", tmp_path/"mails.csv", "angry")
    with settings_for(root):
        assert all(notebook.check_parameters(pipeline.stages()[s].path, {})["features"] == {"text": True} for s in ("plan", "importance", "train", "retrain"))
        ran = notebook.run("plan", wait=False)
        assert ran.exit_code in (0, 3) and "first model" not in ran.error, ran.error   # 3: a column that tells the answer alone

def test_names_are_said_once_and_notebooks_say_the_same(tmp_path, wine):
    root, _ = project.init(tmp_path/"cellar", wine, "target")
    with settings_for(root):
        for stage in pipeline.stages().values():
            assert notebook.check_parameters(stage.path, {}) == notebook.defaults(stage.path), stage.name   # papermill and JupyterLab, as `mlops-nb run`
        ini = (root/"settings.ini").read_text()
        (root/"settings.ini").write_text(ini.replace("key = row_id", "key = bottle"))
        assert {notebook.check_parameters(pipeline.stages()[s].path, {})["key"] for s in ("plan", "ingest", "train", "score", "monitor", "retrain")} == {"bottle"}
        (root/"settings.ini").write_text(ini + "\n")
        (root/"settings.ini").write_text(ini.replace("[pipeline]", "train.holdout_dayz = 3\n\n[pipeline]"))
        with pytest.raises(BadInput, match="holdout_days"): notebook.check_parameters(pipeline.stages()["train"].path, {})

def test_a_newer_toolkit_is_merged_and_own_edits_stay(tmp_path, wine):
    root, _ = project.init(tmp_path/"cellar", wine, "target")
    train = root/"nbs/workflows/train.ipynb"
    old = lambda text: text.replace("## Judge", "## Judge it").replace("## Decide", "## Say")
    base = root/"nbs/workflows/.base/train.ipynb"
    base.write_text(old(base.read_text()))
    train.write_text(old(train.read_text()).replace("## Fit", "## Fit, as Anna does").replace("## Say", "## We say"))
    with settings_for(root):
        row = next(r for r in project.update() if r["notebook"].endswith("/train.ipynb"))
        assert row["state"] == "both changed" and "+## Judge" in row["diff"] and "yours stays" in row["diff"] and "## Judge it" in train.read_text()   # only told
        project.update(write=True)
        text = train.read_text()
        assert all(w in text for w in ("## Judge\\n", "as Anna does", "## We say")) and "Judge it" not in text
        assert {r["state"] for r in project.update()} <= {"same"}
        (root/"nbs/workflows/tune.ipynb").unlink()
        assert next(r for r in project.update(write=True) if r["notebook"].endswith("tune.ipynb"))["state"] == "removed by you"   # and it stays away
    json.loads(train.read_text())

def test_rows_without_a_key_and_times_with_a_zone_come_in_learn_and_score(tmp_path):
    from mlops_nb.data import dataset
    hours = pd.date_range("2026-01-01", periods=900, freq="h", tz="UTC")
    df = pd.DataFrame({"hour": hours.strftime("%Y-%m-%dT%H:%M:%SZ"), "load": [(i*37) % 101 for i in range(900)], "shift": [("early", "late", "night")[i % 24//8] for i in range(900)]})
    df["alarm"] = (df.load > 60).map({True: "yes", False: "no"}).where(df.index % 7 > 0, "no")
    df.head(700).to_csv(tmp_path/"pump.csv", index=False)
    df.iloc[690:].to_csv(tmp_path/"new.csv", index=False)
    assert command("init", "pump", "--data", tmp_path/"pump.csv", "--target", "alarm", "--time", "hour", cwd=tmp_path).returncode == 0
    root = tmp_path/"pump"
    for words in (["ingest"], ["train", "-p", "holdout_days=5"], ["score"], ["ingest", "-p", f"source={tmp_path/'new.csv'}"]):
        done = command("run", *words, cwd=root)
        assert done.returncode == 0, (words, done.stdout, done.stderr[-2000:])
    with settings_for(root): held = dataset.read("pump").sort_values("row_id")
    assert held.row_id.tolist() == list(range(900)) and held.hour.dt.tz is None and (held.hour.to_numpy() == hours.tz_localize(None).to_numpy()).all()   # ten rows came twice
