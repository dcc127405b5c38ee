import marimo

app = marimo.App(width="full")

@app.cell
def _():
    import altair as alt
    import marimo as mo
    import pandas as pd
    import facts
    return alt, facts, mo, pd

@app.cell
def _(facts, mo):
    months, drift, found, events = facts.read()
    word, sentence = facts.verdict(found)
    mo.vstack([mo.md(f"# {word}\n{sentence}"), mo.hstack([mo.stat(value, label=name, caption=under, bordered=True) for name, value, under, _ in facts.tiles(months, drift, found)])])
    return drift, events, found, months

@app.cell
def _(alt, mo, months, pd):
    base = alt.Chart(months).encode(x="month:O")
    band = base.mark_area(opacity=.3).encode(y=alt.Y("auc_lo:Q", scale=alt.Scale(zero=False), title="AUC"), y2="auc_hi:Q")
    limit = alt.Chart(pd.DataFrame({"limit": [.66]})).mark_rule(strokeDash=[4, 4]).encode(y="limit:Q")
    mo.hstack([(band + base.mark_line(point=True).encode(y="auc:Q") + limit).properties(width=760, height=260), mo.md("## What to do\n`mlops-nb retrain late_flights`")])
    return

@app.cell
def _(drift, mo):
    pick = mo.ui.dropdown(sorted(drift.month.unique(), reverse=True), value=drift.month.max(), label="Month")
    pick
    return (pick,)

@app.cell
def _(alt, drift, facts, mo, pick):
    mo.hstack([alt.Chart(facts.shares(r)).mark_bar().encode(x=alt.X("bin:N", sort=None, axis=None), xOffset="when:N", y="share:Q", color="when:N").properties(width=170, height=100, title=f"{r.feature}: {r.effect:.3f} (limit {r.limit:.3f})") for _, r in facts.moved(drift, pick.value).iterrows()])
    return

@app.cell
def _(events, found, mo):
    mo.vstack([mo.ui.table(found), mo.ui.table(events)])
    return

if __name__ == "__main__": app.run()
