import solara
from matplotlib.figure import Figure

import facts

def line(months):
    f = Figure(figsize=(8.2, 2.85))
    ax = f.subplots()
    ax.fill_between(months.month, months.auc_lo, months.auc_hi, alpha=.3)
    ax.plot(months.month, months.auc, marker="o")
    ax.axhline(.66, linestyle="--")
    return f

def small(past):
    f = Figure(figsize=(2, .4))
    ax = f.subplots()
    ax.plot(past.to_numpy())
    ax.axis("off")
    return f

def bars(row):
    f = Figure(figsize=(2.2, 1.2))
    ax, s = f.subplots(), facts.shares(row)
    for k, (when, part) in enumerate(s.groupby("when", sort=False)): ax.bar([i + .4*k for i in range(len(part))], part.share, .4)
    ax.set_title(f"{row.feature}: {row.effect:.3f} (limit {row.limit:.3f})", fontsize=7)
    ax.axis("off")
    return f

@solara.component
def Page():
    months, drift, found, events = solara.use_memo(facts.read, [])
    word, sentence = facts.verdict(found)
    month, pick = solara.use_state(drift.month.max())
    with solara.Column(classes=["answer"]): solara.Markdown(f"# {word}\n{sentence}")
    with solara.Columns([1]*5):
        for name, value, under, past in facts.tiles(months, drift, found):
            with solara.Card(name):
                solara.Markdown(f"## {value}\n{under}")
                if past is not None: solara.FigureMatplotlib(small(past))
    with solara.Columns([2, 1]):
        with solara.Column(classes=["course"]): solara.FigureMatplotlib(line(months))
        solara.Markdown("## What to do\n`mlops-nb retrain late_flights`")
    solara.Select("Month", sorted(drift.month.unique(), reverse=True), value=month, on_value=pick)
    with solara.Columns([1]*5):
        for _, row in facts.moved(drift, month).iterrows(): solara.FigureMatplotlib(bars(row))
    solara.DataFrame(found)
    solara.DataFrame(events)
