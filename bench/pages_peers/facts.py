"What every candidate shows, read from the same tables as our page reads, anew for each visit; no library of ours."
import json, os, sqlite3
from pathlib import Path

import pandas as pd
from deltalake import DeltaTable

def read():
    "(months, drift of the newest month, findings, versions), as frames."
    root = Path(os.environ["MLOPS_NB_ROOT"])/".mlops"
    months, drift = (DeltaTable(str(root/"warehouse"/name)).to_pandas() for name in ("monitoring", "drift"))
    with sqlite3.connect(f"file:{root/'mlops.db'}?mode=ro", uri=True) as c:
        found = pd.read_sql_query('SELECT "check", subject, value, "limit", ok, level, note FROM finding WHERE topic = \'late_flights\' ORDER BY no', c)
        events = pd.read_sql_query("SELECT at, actor, action, detail FROM event WHERE subject = 'late_flights' ORDER BY no", c)
    return months.sort_values("month"), drift, found.assign(value=found["value"].map(json.loads), limit=found["limit"].map(json.loads)), events

def verdict(found):
    bad = found[(found.ok == 0) & (found.level == "error")]
    if bad.empty: return "OK", "all within their limits"
    f = bad.iloc[0]
    return "ACT", f"{f.check} of {f.subject} is {f.value:.3g} (limit {f.limit:.3g})"

def tiles(months, drift, found):
    "(name, value, under, past) of each."
    last, before = months.iloc[-1], months.iloc[-2]
    newest = drift[drift.month == drift.month.max()]
    return [("Business KPI", f"{last.observed:.1%}", f"{(last.observed - before.observed)*100:+.1f} points", months.observed), ("Quality (AUC)", f"{last.auc:.3f}", f"{last.auc_lo:.3f} to {last.auc_hi:.3f}", months.auc),
            ("Checks passed", f"{int(found.ok.sum())} of {len(found)}", "newest look", None), ("Important drift", f"{int(newest.drifted.sum())} of {len(newest)}", "inputs moved", months.drifted), ("Service", f"{last.n:,}", "predictions", months.n)]

def moved(drift, month):
    "The five inputs with the largest shift times importance."
    return drift[drift.month == month].assign(impact=lambda d: d.effect*d.importance).nlargest(5, "impact")

def shares(row):
    "Frame bin, when, share of one input, before and now."
    b, a, e = (json.loads(row[c]) for c in ("before", "after", "edges"))
    return pd.DataFrame({"bin": [*e, *e], "when": ["before"]*len(b) + ["now"]*len(a), "share": [*b, *a]})
