import panel as pn
from bokeh.models import Span
from bokeh.plotting import figure

import facts

pn.extension()
months, drift, found, events = facts.read()
word, sentence = facts.verdict(found)

def line():
    f = figure(x_range=months.month.tolist(), height=285, sizing_mode="stretch_width", title="AUC")
    f.varea(months.month.tolist(), months.auc_lo.tolist(), months.auc_hi.tolist(), alpha=.3)
    f.line(months.month.tolist(), months.auc.tolist(), line_width=2)
    f.scatter(months.month.tolist(), months.auc.tolist(), size=7)
    f.add_layout(Span(location=.66, dimension="width", line_dash="dashed"))
    return f

def small(past):
    f = figure(height=40, sizing_mode="stretch_width", toolbar_location=None)
    f.axis.visible = f.grid.visible = False
    f.line([*range(len(past))], past.tolist())
    return f

def tile(name, value, under, past): return pn.Card(pn.pane.Markdown(f"## {value}\n{under}"), *([] if past is None else [small(past)]), title=name, collapsible=False, sizing_mode="stretch_width")

def bars(row):
    s = facts.shares(row)
    n = len(s)//2
    f = figure(height=120, sizing_mode="stretch_width", toolbar_location=None, title=f"{row.feature}: {row.effect:.3f} (limit {row.limit:.3f})")
    f.axis.visible = False
    for k, (when, part) in enumerate(s.groupby("when", sort=False)): f.vbar([i + .4*k for i in range(n)], .4, part.share.tolist(), color=("grey", "steelblue")[k])
    return f

pick = pn.widgets.Select(name="Month", options=sorted(drift.month.unique(), reverse=True))
pn.Column(pn.pane.Markdown(f"# {word}\n{sentence}", css_classes=["answer"]), pn.Row(*(tile(*t) for t in facts.tiles(months, drift, found))), pn.Row(line(), pn.Column("## What to do", "`mlops-nb retrain late_flights`")),
          pick, pn.bind(lambda m: pn.Row(*(bars(r) for _, r in facts.moved(drift, m).iterrows())), pick), pn.pane.DataFrame(found), pn.pane.DataFrame(events), sizing_mode="stretch_width").servable(title="Monitoring")
