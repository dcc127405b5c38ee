"Cards say what is recorded and from where, hide what is personal, and show what is missing."
import json, re

import pandas as pd, pytest, yaml
from sklearn.linear_model import LogisticRegression

from conftest import cli, one_line, write_settings
from mlops_nb.core import database, ledger
from mlops_nb.core.finding import BadInput, Finding
from mlops_nb.data import catalogue, dataset, privacy
from mlops_nb.govern.cards import fact, veiled
from mlops_nb.govern.data_card import data_card, written
from mlops_nb.govern.model_card import model_card
from mlops_nb.registry import models

MAILS = [f"person{i}@example.com" for i in range(40)]

@pytest.fixture
def made(local):
    df = privacy.tag(pd.DataFrame(dict(id=range(40), mail=MAILS, x=[0, 1]*20, label=[0, 1]*20)), {"mail": "e-mail"})
    dataset.commit(df, "people", note="first")
    ledger.record([Finding("completeness", "x", .25, .05, False, "warn"), Finding("type", "mail", "text", "text"), Finding("quality", "people", .93)], topic="people")
    fit = dataset.read("people")
    models.register(LogisticRegression().fit(fit[["x"]], fit.label), "churn", fit[["x"]].head(), {"estimator": "sklearn.linear_model.LogisticRegression"}, {"roc_auc": .8, "roc_auc_lo": .7, "roc_auc_hi": .9},
                    {"training_data": "dataset people, version 0", "labels": "dataset people, version 0"})
    ledger.record([Finding("slice", f"mail={MAILS[3]}", .4, .6, False, "warn"), Finding("roc_auc_of_segment", "x=1", .7, .6), Finding("demographic_parity_ratio", "x: groups", .9, .8)], topic="churn")
    return local

def test_figures_have_intervals_and_runs(made):
    card = model_card("churn")
    run = card.facts["trained by run"]["value"]
    assert card.facts["performance"]["value"] == ["roc_auc 0.8 (95 % interval 0.7 to 0.9)"] and card.facts["performance"]["source"] == f"run {run}"
    assert "demographic parity ratio" in str(card.facts["fairness"]) and card.facts["training data"]["value"] == ["people, version 0"]
    for text in (card.markdown(), card.html(), card._repr_html_()): assert run in text and "not recorded" in text
    assert all(line in card.facts and (card.facts[line]["source"] or line == "name") for line in (l for ls in card.sections.values() for l in ls) if line not in card.gaps)

def test_no_personal_value_is_in_any_card(made):
    for card in (model_card("churn"), data_card("people")):
        for text in (card.markdown(), card.html(), card._repr_html_(), card._repr_markdown_(), json.dumps(card.front)): assert "@example.com" not in text and "person3" not in text
    assert "mail=" in model_card("churn").markdown() and "mail: e-mail" in data_card("people").markdown()

@pytest.mark.parametrize("text", ["slice of mail=ann@example.com: 0.4", "mail=ann@example.com and x=1", "mail in ['ann@example.com', 'b']", "mail='ann@example.com, b'", "x=1 and mail=ann@example.com", "m on mail=ann@example.com 0.4 (limit 1)", "mail = ann@example.com"])
def test_values_are_veiled_wherever_they_stand(text):
    assert "ann" not in veiled({"a": fact([text, {"b": text}])}, ["mail"])["a"]["value"][0] and "ann" not in str(veiled({"a": fact({text: text})}, ["mail"]))

def test_front_matter_is_yaml_of_the_hub(made):
    catalogue.describe("people", licence="CC0-1.0", owner="ann")
    for card in (model_card("churn"), data_card("people")):
        head = re.match(r"---\n(.*?)\n---\n", card.markdown(), re.S)
        assert yaml.safe_load(head[1]) == card.front
    front = model_card("churn").front
    assert front["model-index"][0]["results"][0]["metrics"] == [dict(type="roc_auc", value=.8, name="roc auc")] and front["datasets"] == ["people"] and front["pipeline_tag"] == "tabular-classification"
    assert data_card("people").front["license"] == "cc0-1.0" and data_card("people").front["size_categories"] == ["n<1K"]

def test_the_hub_reads_it(made):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(model_card("churn").markdown())
    assert card.data.library_name == "sklearn" and card.data.eval_results[0].metric_value == .8

# What the sources ask for -> our line. Mitchell et al. 2019, figure 1; the template of the Hub; Google's toolkit where it asks for more; Gebru et al. 2021.
MODEL_CARDS = {"person or organization": "owner", "model date": "made at", "model version": "version", "model type": "kind of model", "training algorithms, parameters, features": "parameters", "fairness constraints": "what is done about them",
    "paper or other resource": "more about it", "citation": "cite as", "license": "licence", "where to send questions": "contact", "primary uses": "question", "primary users": "used by", "out-of-scope uses": "out of scope",
    "relevant factors": "inputs", "evaluation factors": "slices looked at", "performance measures": "metric", "decision thresholds": "threshold", "variation approaches": "how sure", "evaluation datasets": "evaluation data",
    "evaluation motivation": "why this data", "preprocessing": "preparation", "training data": "training data", "unitary results": "slices", "intersectional results": "groups that cross", "sensitive data": "personal data", "human life, use cases": "decision",
    "mitigations": "what is done about them", "risks and harms": "risks", "caveats": "known limits", "recommendations": "next review"}
HUB = {"how to get started": "how to use it", "training hyperparameters": "parameters", "speeds, sizes, times": "size and speed", "environmental impact: hours, hardware": "seconds to make", "software": "environment", "bias, risks, limitations": "known limits", "results": "performance"}
GOOGLE = {"version history": "history", "tradeoffs": "what was given up", "references": "more about it"}
DATASHEETS = {"purpose": "made for", "who created it": "made by", "who funded it": "paid by", "what instances represent": "what a row is", "how many": "rows", "sample of a larger set": "a sample of", "what data": "columns", "label or target": "labels", "missing information": "missing values",
    "relationships": "belongs to", "recommended splits": "splits", "errors, noise, redundancies": "noise and errors", "self-contained": "sources", "confidential, identifies people": "personal data", "offensive, sensitive": "sensitive", "subpopulations": "groups of people",
    "how acquired": "sources", "mechanisms": "collected by run", "sampling strategy": "how it was chosen", "who collected": "who collected it", "timeframe": "period", "ethical review": "ethical review", "consent": "consent", "revoke consent": "how consent is taken back",
    "preprocessing": "contract", "raw data saved": "raw data", "used already": "read by", "papers or systems": "models", "other tasks": "what else it may serve", "tasks not to be used for": "not to be used for", "third parties": "handed on", "licence": "licence",
    "restrictions": "restrictions", "who maintains": "owner", "contact": "contact", "erratum": "mistakes found", "updates": "updated", "retention limits": "kept for", "older versions": "versions", "how to contribute": "how to contribute"}

def test_what_the_sources_ask_for_is_there_or_shown_as_a_gap(made):
    for card, asked in ((model_card("churn"), {**MODEL_CARDS, **HUB, **GOOGLE}), (data_card("people"), DATASHEETS)):
        lines = [line for names in card.sections.values() for line in names]
        assert {*asked.values()} <= {*lines} and len({*lines}) == len(lines)
        for text in (card.markdown(), card.html()): assert all(line in text for line in asked.values()) and "not recorded" in text
        assert all((line in card.gaps) != bool(card.facts.get(line, {}).get("value") is not None) for line in lines)
    told = model_card("churn", contact="ann", what_was_given_up="recall costs precision").facts
    assert told["contact"]["source"] == "given by hand" and told["how sure"]["value"] == "intervals of 95 % beside 1 figures"

def test_a_model_without_data_says_so(local):
    models.register(LogisticRegression().fit([[0], [1]], [0, 1]), "blind", pd.DataFrame(dict(x=[0, 1])), {}, {})
    card = model_card("blind")
    assert {"training data", "sources", "personal data"} <= {*card.gaps} and card.markdown().count("read no data set of the project") == 3 and "read no data set" in card.html()
    done = cli("card", "blind", "--json")
    assert done.returncode == 0 and len(json.loads(done.stdout)) == 1

def test_production_is_of_the_version_that_answered(made):
    row = dict(model="churn", month="2024-01", n=100, labels=90, value=.75, lo=.7, hi=.8, version=1, metric="roc_auc", limit=.7, drifted=1, features=2, alarm="", action="keep", reason="fine", looked_at=pd.Timestamp("2024-02-01"))
    dataset.commit(pd.DataFrame([row, {**row, "month": "2024-02", "version": 2, "value": .1}]), "monitoring")
    said = model_card("churn").facts["performance in production"]
    assert said["value"] == ["2024-01: roc_auc 0.75 (95 % interval 0.7 to 0.8) of 90 outcomes, limit 0.7"] and "monitoring version 0, run" in said["source"]
    assert model_card("churn").figures[1][1] == "0.75"

def test_lines_only_a_person_knows(made):
    write_settings(made, mlops_nb={}, **{"card churn": {"out of scope": "decisions about single people", "licence": "MIT"}})
    card = model_card("churn", risks="few rows")
    assert card.facts["out of scope"] == fact("decisions about single people", "[card churn]") and card.facts["risks"]["source"] == "given by hand" and card.front["license"] == "mit"
    write_settings(made, mlops_nb={}, **{"card churn": {"out of scop": "x"}})
    with pytest.raises(BadInput, match="did you mean 'out of scope'"): model_card("churn")

def test_nothing_recorded_breaks_the_page(made):
    nasty = "<script>alert(1)</script>|`*_[x](http://x)\n# heading"
    card = model_card("churn", out_of_scope=nasty)
    assert "<script" not in card.html() and "<script" not in card.markdown() and "\n# heading" not in card.markdown()

def test_secrets_stay_out(made, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hunter2hunter2")
    assert "hunter2hunter2" not in model_card("churn", risks="uses hunter2hunter2").markdown() + model_card("churn", risks="uses hunter2hunter2").html()

def test_the_command_line(made):
    told = json.loads(cli("card", "--json").stdout)          # one model alone need not be named
    assert [t["card"] for t in told] == ["churn version 1", "people version 0"]
    assert all((made/"reports/cards"/f).exists() for f in ("churn_version_1.html", "churn_version_1.md", "people_version_0.md"))
    assert json.loads(cli("card", "--data", "people@v0", "--json").stdout)[0]["card"] == "people version 0"
    one_line(cli("card", "chrn"), 2, "did you mean 'churn'")
    one_line(cli("card", "churn", "--version", "9"), 2, "no version 9")
    one_line(cli("card", "--data", "poeple"), 2, "did you mean 'people'")

def test_an_empty_project_has_no_card(local): one_line(cli("card"), 2, "No model was registered yet")

def test_each_version_of_the_data_has_its_card(made):
    dataset.append(pd.DataFrame(dict(id=[99], mail=["x@example.com"], x=[0], label=[0])), "people")
    assert data_card("people").facts["rows"]["value"] == 41 and data_card("people@v0").facts["rows"]["value"] == 40 and data_card("people", 0).title == "people version 0"
    assert data_card("people", 0).facts["models"]["value"] == ["churn version 1"] and "models" in data_card("people", 1).gaps
