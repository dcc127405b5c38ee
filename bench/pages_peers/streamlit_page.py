import altair as alt
import pandas as pd
import streamlit as st

import facts

st.set_page_config("Monitoring", layout="wide")
months, drift, found, events = facts.read()
word, sentence = facts.verdict(found)
st.header(word)
st.write(sentence)
for column, (name, value, under, past) in zip(st.columns(5), facts.tiles(months, drift, found)):
    column.metric(name, value, under, delta_color="off", border=True, chart_data=None if past is None else past.tolist(), chart_type="line")
base = alt.Chart(months).encode(x="month:O")
band = base.mark_area(opacity=.3).encode(y=alt.Y("auc_lo:Q", scale=alt.Scale(zero=False), title="AUC"), y2="auc_hi:Q")
limit = alt.Chart(pd.DataFrame({"limit": [.66]})).mark_rule(strokeDash=[4, 4]).encode(y="limit:Q")
left, right = st.columns([2, 1])
left.altair_chart(band + base.mark_line(point=True).encode(y="auc:Q") + limit)
right.subheader("What to do")
right.code("mlops-nb retrain late_flights")
month = st.selectbox("Month", sorted(drift.month.unique(), reverse=True))
for column, (_, row) in zip(st.columns(5), facts.moved(drift, month).iterrows()):
    column.write(f"{row.feature}: {row.effect:.3f} (limit {row.limit:.3f})")
    column.altair_chart(alt.Chart(facts.shares(row)).mark_bar().encode(x=alt.X("bin:N", sort=None, axis=None), xOffset="when:N", y="share:Q", color=alt.Color("when:N", legend=None)).properties(height=120))
st.dataframe(found)
st.dataframe(events)
