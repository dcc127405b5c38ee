"""A year of flights out of New York with their weather: a model that learned from January to March is watched until December, month by month, by the monitor's own functions, and a
challenger takes charge when the monitor's decision is to retrain and it surely beats the champion on that month. Beside it one model that stays as it is and one that is trained anew each month.
For every month: AUC and calibration gap of the version in charge with their z by day (days are what is drawn: flights of a day share their weather), what the monitor says, what moved, and
what monthly training gains over none, paired on the same days. An alarm is not a z of 3 against zero: the whole interval must lie beyond the limit, which spares April and October. Figures are of models, not of machines, and the same each time. MONTHS=4,5 limits the work."""
import os, sys, tempfile
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"): os.environ.setdefault(name, "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
import numpy as np, pandas as pd
from mlops_nb.data.samples import flight_outcomes, flights
from mlops_nb.monitor import drift, performance
from mlops_nb.monitor.retrain import decide
from mlops_nb.train.evaluate import auc_interval, calibration_gap, compare
from mlops_nb.train.fit import fit, predict
from mlops_nb.train.goal import Goal

GOAL = Goal(metric="roc_auc", baseline=.65, minimum=.66, max_drop=.03, max_calibration_gap=.03, min_gain=.005)
MODEL = "sklearn.ensemble.HistGradientBoostingClassifier", dict(max_iter=100, learning_rate=.06, max_leaf_nodes=15, min_samples_leaf=200, l2_regularization=10.)
MONTHS = [int(m) for m in os.environ.get("MONTHS", "4,5,6,7,8,9,10,11,12").split(",")]

def rows():
    "Flights that left, with their label."
    late = flight_outcomes().dropna(subset=["dep_delay"])
    return flights().merge(pd.DataFrame({"flight_id": late.flight_id, "label": (late.dep_delay > 15).astype(int)}), on="flight_id")

def se(lo, hi): return (hi - lo)/(2*1.96)

def learn(df): return fit(df.drop(columns="flight_id"), "label", MODEL[0], **MODEL[1])

def judge(model, df): return predict(model, df.drop(columns=["label", "flight_id"]))

def year():
    "One dict a month. Outcomes of a month are known a month later, as in the demo: who takes charge after a look at June answers from August on, and nobody is blamed for the months of an earlier version."
    df = rows()
    first = lambda m: pd.Timestamp(2013, m, 1) if m < 13 else pd.Timestamp(2014, 1, 1)
    part = lambda a, b: df[(df.scheduled >= a) & (df.scheduled < b)].reset_index(drop=True)
    learned, held = part(first(1), first(4) - pd.Timedelta(days=14)), part(first(4) - pd.Timedelta(days=14), first(4))
    promised = auc_interval(held.label, judge(learn(learned), held), held.scheduled.dt.normalize())
    quarter = part(first(1), first(4))
    inputs = [c for c in quarter if c not in ("flight_id", "flight", "tailnum", "label", "scheduled")]
    models = {4: learn(quarter)}                     # by the first month they have not seen
    charge = {m: 4 for m in MONTHS}
    for m in MONTHS:
        now = part(first(m), first(m + 1))
        day = now.scheduled.dt.normalize()
        models[m] = models.get(m) or learn(part(first(1), first(m)))
        frozen, mine, new = (judge(models[k], now) for k in (4, charge[m], m))
        (auc, lo, hi), (gap, gap_lo, gap_hi) = auc_interval(now.label, mine, day), calibration_gap(now.label, mine, day)
        found = performance.performance(pd.DataFrame(dict(score=mine, label=now.label, day=day, version=1)), promised[0], GOAL, "late_flights")
        duel = compare(now.label.to_numpy(), mine, new, day)
        judged = charge[m] == charge[min(m + 2, max(MONTHS))]   # else a newer version took charge meanwhile, and its own months are to come
        if judged and decide(found).action == "retrain" and duel.gain >= GOAL.min_gain and duel.lo > 0: charge |= {later: m + 1 for later in MONTHS if later >= m + 2}
        moved = drift.compare(quarter[inputs], now[inputs], cluster=(quarter.scheduled, now.scheduled)).to_frame().set_index("feature")
        told = {level: ", ".join(f.check for f in found if not f.ok and f.level == level) or "-" for level in ("error", "warn")}
        alone = compare(now.label.to_numpy(), frozen, new, day)
        yield dict(month=first(m).strftime("%b"), rows=len(now), late=now.label.mean(), until=first(charge[m] - 1).strftime("%b"), auc=auc, lo=lo, hi=hi, z_auc=(promised[0] - auc)/np.hypot(se(*promised[1:]), se(lo, hi)), gap=gap, z=abs(gap)/se(gap_lo, gap_hi),
                   alarm=told["error"], watch=told["warn"], drifted=int(moved.drifted.sum()), psi_temp=float(moved.psi.get("temp", np.nan)), frozen=alone.champion, monthly=alone.challenger, gain=alone.gain, gain_lo=alone.lo, gain_hi=alone.hi, promised=promised)

HEAD = f"{'month':6}{'rows':>7}{'late':>7}{'learned':>8}{'AUC':>7} {'95 %':15}{'z':>5}{'gap':>7}{'z':>5}  {'alarm':12}{'watch':12}{'moved':>6}{'PSI temp':>9}{'frozen':>8}{'monthly':>8}{'gain':>7} 95 %"

def main():
    done = []
    for r in year():
        done.append(r)
        if len(done) == 1: print(f"AUC at promotion {r['promised'][0]:.3f} ({r['promised'][1]:.3f} to {r['promised'][2]:.3f}), limit {max(GOAL.minimum, r['promised'][0] - GOAL.max_drop):.3f}; calibration gap at most {GOAL.max_calibration_gap}\n"
                                 f"AUC, gap and z are of the version in charge, which has learned until the end of that month; frozen has learned until March\n{HEAD}")
        print(f"{r['month']:6}{r['rows']:7,}{r['late']:7.1%}{r['until']:>8}{r['auc']:7.3f} {r['lo']:.3f} to {r['hi']:.3f} {r['z_auc']:4.1f}{r['gap']:+7.3f}{r['z']:5.1f}  {r['alarm']:12}{r['watch']:12}{r['drifted']:6}{r['psi_temp']:9.2f}{r['frozen']:8.3f}{r['monthly']:8.3f}{r['gain']:+7.3f} {r['gain_lo']:+.3f} to {r['gain_hi']:+.3f}", flush=True)
    best, later = max(done, key=lambda r: r["frozen"]), [r for r in done if r["month"] != "Apr"]
    named = lambda test: ", ".join(r["month"] for r in done if test(r)) or "none"
    print(f"z of the fall of AUC or of the calibration gap beyond 3: {named(lambda r: max(r['z'], r['z_auc']) > 3)}\nalarms: {named(lambda r: r['alarm'] != '-')}\n"
          f"monthly training gains {np.mean([r['gain'] for r in later]):+.3f} AUC on average, May to December; inputs that moved in the best month of the frozen model ({best['month']}): {best['drifted']}, temperature by PSI {best['psi_temp']:.1f}")
    return done

if __name__ == "__main__": main()
