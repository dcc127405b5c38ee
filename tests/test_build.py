"Steps keep scikit-learn's contract, clocks and zones are right, outputs are named back, rates do not leak, bad input is told."
import pickle, subprocess, sys
import numpy as np, pandas as pd, pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, PolynomialFeatures, SplineTransformer, StandardScaler, TargetEncoder
from sklearn.utils.estimator_checks import check_estimator
from mlops_nb.core.finding import BadInput
from mlops_nb.features.build import calendar, pipeline, roles
from mlops_nb.features.dates import moments
from mlops_nb.features.names import raw_columns
from mlops_nb.features.transformers import CalendarEncoder, CategoryCross, TextEncoder, Winsorizer

def table(n=400, seed=0):
    rng = np.random.default_rng(seed)
    words = np.array("late crew icy runway gate change heavy rain fuel check slot missed".split())
    return pd.DataFrame(dict(at=pd.date_range("2013-03-09", periods=n, freq="h"), wind=rng.normal(10, 3, n), rain=np.where(rng.random(n) < .9, 0., 1.), origin=rng.choice(["EWR", "JFK", "LGA"], n),
                             dest=rng.choice(["BOS", "LAX", None], n), tail=[f"N{i}" for i in rng.integers(0, 30, n)], remark=[" ".join(rng.choice(words, 5)) for _ in range(n)]))

def answer(df, seed=1): return (df["wind"] + (df["origin"] == "EWR")*3 + np.random.default_rng(seed).normal(size=len(df)) > 11).to_numpy()

# --- the contract ---

@pytest.mark.parametrize("part", [CalendarEncoder(), CalendarEncoder(["year", "month"], cyclic=True, timezone="Europe/Berlin"), Winsorizer(), Winsorizer(fence=0, flag=False), TextEncoder(), TextEncoder(2, "word", (1, 1)), CategoryCross()], ids=repr)
def test_check_estimator(part): check_estimator(part, on_skip=None)

@pytest.mark.parametrize("part", [CalendarEncoder(cyclic=True), Winsorizer(), TextEncoder(3), CategoryCross()], ids=repr)
def test_names_frames_and_pickle_agree(part):
    columns = {"CalendarEncoder": ["at"], "Winsorizer": ["wind", "rain"], "TextEncoder": ["remark", "dest"], "CategoryCross": ["origin", "dest"]}[type(part).__name__]
    X = table()[columns].set_index(np.arange(400)[::-1])
    plain = clone(part).fit(X)
    framed = clone(part).set_output(transform="pandas").fit(X)
    assert framed.transform(X).columns.tolist() == plain.get_feature_names_out().tolist() and framed.transform(X).index.equals(X.index)
    np.testing.assert_array_equal(np.asarray(plain.transform(X), float), framed.transform(X).to_numpy(float))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(plain)).transform(X[::2]), np.asarray(plain.transform(X))[::2])
    with pytest.raises(ValueError, match="feature names"): plain.transform(X.add_prefix("other_"))

def test_polars_frames_are_taken():
    polars = pytest.importorskip("polars")
    X = table()[["wind", "rain"]]
    np.testing.assert_array_equal(Winsorizer().fit(polars.from_pandas(X)).transform(polars.from_pandas(X)), Winsorizer().fit(X).transform(X))
    cross = table()[["origin", "dest"]]
    np.testing.assert_array_equal(CategoryCross().fit(polars.from_pandas(cross)).transform(polars.from_pandas(cross)), CategoryCross().fit(cross).transform(cross))

def test_the_library_stays_quick_to_import():
    code = "import sys, mlops_nb.train.fit, mlops_nb.features.build, mlops_nb.features.select, mlops_nb.features.names; print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"

# --- dates ---

def test_summer_time_and_zones():
    night = pd.Series(["2013-03-10T06:30:00Z", "2013-03-10T07:30:00Z", "2013-11-03T05:30:00Z", "2013-11-03T06:30:00Z"])
    assert moments(night, "America/New_York").dt.hour.tolist() == [1, 3, 1, 1]
    mixed = pd.Series(["2013-07-04T12:00:00+02:00", "2013-07-04T12:00:00Z", None])
    assert moments(mixed, "UTC").dt.hour.tolist()[:2] == [10, 12]
    with pytest.raises(BadInput, match="mixes time zones"): moments(mixed)
    assert moments(pd.Series([1372932000.]), "Europe/Berlin").dt.hour.tolist() == [12]
    with pytest.raises(BadInput, match="unknown time zone"): moments(night, "Mars")

def test_a_clock_is_kept_and_a_lost_zone_is_refused():
    aware = pd.DataFrame({"at": pd.date_range("2013-07-04", periods=48, freq="h", tz="Europe/Berlin")})
    clock = CalendarEncoder().fit(aware)
    np.testing.assert_array_equal(clock.transform(aware.assign(at=aware["at"].dt.tz_convert("Asia/Tokyo"))), clock.transform(aware))
    with pytest.raises(BadInput, match="Europe/Berlin"): clock.transform(aware.assign(at=aware["at"].dt.tz_localize(None)))
    with pytest.raises(BadInput, match="without a time zone"): CalendarEncoder().fit(aware.assign(at=aware["at"].dt.tz_localize(None))).transform(aware)
    assert np.isnan(clock.transform(aware.head(2).assign(at=[None, None]))).all()

def test_cycles_close_and_missing_stays_missing():
    at = pd.DataFrame({"at": pd.to_datetime(["2013-12-31 23:59", "2014-01-01 00:00", None])})
    out = calendar(at, ["hour", "weekday", "month", "yearday"], cyclic=True)
    near = out.filter(regex="_(sin|cos)$").diff().iloc[1].abs()
    assert near.filter(like="hour").max() < .01 and near.filter(like="yearday").max() < .05 and near.filter(like="month").max() < .6 and out.iloc[2].isna().all()
    with pytest.raises(BadInput, match="did you mean 'weekday'"): calendar(at, ["weekdy"])
    with pytest.raises(BadInput, match="does not read as dates"): CalendarEncoder().fit(pd.DataFrame({"at": ["soon"]}))

# --- outliers, text, pairs ---

def test_the_fence_holds_wild_values_and_leaves_normal_ones():
    x = np.random.default_rng(0).normal(size=(5000, 1))
    assert Winsorizer(flag=False).fit(x).transform(x) == pytest.approx(x)
    wild = np.r_[x, [[1e9]], [[np.inf]], [[-np.inf]], [[np.nan]]]
    out = Winsorizer().fit(wild).transform(wild)
    assert np.nanmax(np.abs(out[:, 0])) < 6 and out[:, 1].sum() == 3 and np.isnan(out[-1, 0]) and out[-1, 1] == 0
    assert Winsorizer().fit(np.full((5, 1), np.nan)).transform([[3.]]).tolist() == [[3., 0.]]
    rare = np.r_[np.zeros((99, 1)), [[1.]]]
    assert Winsorizer().fit(rare).transform([[0.], [1.], [2.]]).tolist() == [[0, 0], [1, 0], [1, 1]]
    for bad in (dict(low=.9, high=.1), dict(fence=-1), dict(high=2)):
        with pytest.raises(BadInput): Winsorizer(**bad).fit(x)

def test_text_few_rows_missing_and_nothing_to_read():
    X = pd.DataFrame({"a": ["one word", None, "two words"], "b": [None, None, ""]})
    out = TextEncoder().fit(X)
    assert out.get_feature_names_out().tolist() == ["a_svd0", "a_svd1", "a_svd2", "b_svd0"] and np.isfinite(out.transform(X)).all()
    assert (out.transform(X)[1] == 0).all()
    with pytest.raises(BadInput, match="n_components 0"): TextEncoder(0).fit(X)

def test_pairs_new_and_missing():
    cross = CategoryCross([("origin", "dest")]).fit(table()[["origin", "dest"]])
    odd = pd.DataFrame({"origin": ["EWR", "XXX", None], "dest": ["BOS", "BOS", "BOS"]})
    assert np.isnan(cross.transform(odd)[:, 0]).tolist() == [False, True, True]
    with pytest.raises(BadInput, match="did you mean 'dest'"): CategoryCross([("origin", "dst")]).fit(odd)

# --- the pipeline ---

def test_roles_of_wide_text():
    df = table(3000).assign(tail=[f"N{i}" for i in np.random.default_rng(0).integers(0, 290, 3000)], id=[f"id{i}" for i in range(3000)])
    assert {"tail", "remark", "id"} == set(roles(df)["dropped"]) and "many" not in roles(df)
    wide = roles(df, many=True, text=True)
    assert (wide["many"], wide["text"], wide["dropped"]) == (["tail"], ["remark"], ["id"])
    with pytest.raises(BadInput, match="there twice"): roles(pd.concat([df, df[["wind"]]], axis=1))

@pytest.mark.parametrize("estimator", [HistGradientBoostingClassifier(max_iter=10), LogisticRegression(max_iter=500), RandomForestClassifier(10), HistGradientBoostingRegressor(max_iter=10), Ridge()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("more", [{}, dict(many=True, text=True, winsorize=True, interactions=[("origin", "dest"), ("wind", "rain")], timezone="UTC"), dict(n_components=2, winsorize=True)], ids=["plain", "everything", "components"])
def test_every_option_with_every_kind_of_estimator(estimator, more):
    df = table(1000)
    df["tail"] = [f"N{i}" for i in np.random.default_rng(0).integers(0, 300, 1000)]
    y = answer(df).astype(float) if "Regressor" in type(estimator).__name__ or type(estimator) is Ridge else answer(df)
    model = pipeline(df, estimator, **more).fit(df, y)
    odd = df.tail(3).assign(dest="XXX", wind=[np.nan, 1e6, 3], remark=None, at=pd.NaT, tail="unseen", rain=np.nan)
    assert np.isfinite(np.asarray(model.predict(odd), float)).all() and model.score(df, y) > .3
    raw = raw_columns(model)
    assert list(raw) == model[:-1].get_feature_names_out().tolist() and {c for r in raw.values() for c in r} <= set(df.columns)
    if "many" in more: assert raw["origin_x_dest"] == ("origin", "dest") and raw["wind_x_rain"] == ("wind", "rain") and raw["remark_svd3"] == ("remark",) and raw["wind_outlier"] == ("wind",)
    if "n_components" in more: assert raw["pca0"] == ("wind", "rain")

def test_a_rate_that_is_cross_fitted_does_not_leak():
    rng = np.random.default_rng(0)
    X, y = pd.DataFrame({"id": [f"i{k}" for k in rng.integers(0, 400, 6000)], "x": rng.normal(size=6000)}), rng.integers(0, 2, 6000)
    model = pipeline(X, HistGradientBoostingClassifier(max_iter=50, max_depth=3, random_state=0), many=True).fit(X[:4000], y[:4000])
    assert abs(model.score(X[4000:], y[4000:]) - .5) < .04
    learned = model[:-1].fit_transform(X, y)["id"]
    assert abs(np.corrcoef(learned, y)[0, 1]) < .1 < np.corrcoef(model[:-1].transform(X)["id"], y)[0, 1]

def test_wrong_pairs_are_told():
    df = table()
    for pairs, said in (([("wind", "dest")], "two numbers or two categories"), ([("wind", "win")], "did you mean 'wind'"), ([("at", "dest")], "is a time")):
        with pytest.raises(BadInput, match=said): pipeline(df, Ridge(), interactions=pairs)
    with pytest.raises(BadInput, match="can be a feature"): pipeline(df[["remark"]], Ridge())

# --- names ---

def truth(part, X, rng):
    "For each output, the raw columns that move it when they alone are shuffled."
    before = np.asarray(part.transform(X), float)
    moved = {c: ~np.isclose(np.asarray(part.transform(X.assign(**{c: X[c].to_numpy()[rng.permutation(len(X))]})), float), before, equal_nan=True).all(axis=0) for c in X}
    return [{c for c in X if moved[c][i]} for i in range(before.shape[1])]

def test_names_tell_what_shuffling_shows():
    "Every column that moves an output is named, over many kinds of steps."
    rng, X = np.random.default_rng(0), pd.DataFrame(np.random.default_rng(1).normal(size=(200, 3)), columns=["a", "a_b", "b"]).assign(c=np.random.default_rng(2).choice(["a", "b_a"], 200))
    numbers = make_pipeline(StandardScaler(), make_union(PolynomialFeatures(2), SplineTransformer(n_knots=3), KBinsDiscretizer(3, encode="onehot-dense", quantile_method="averaged_inverted_cdf"), PCA(2)), SelectKBest(k=9))
    part = make_column_transformer((numbers, ["a", "b", "a_b"]), (OneHotEncoder(sparse_output=False), ["c"]), (TfidfVectorizer(analyzer="char"), "c"), remainder="passthrough", sparse_threshold=0)
    part.fit(X, rng.integers(0, 2, 200))
    found = raw_columns(part)
    assert len(found) == part.transform(X).shape[1]
    for (name, raw), moved in zip(found.items(), truth(part, X, rng)): assert moved <= set(raw) and (moved == set(raw) or "pca" in name or "spline" in name), (name, raw, moved)

def test_names_of_several_classes_of_arrays_and_of_unknown_outputs():
    X, y = pd.DataFrame({"c": list("abcabd")*20, "d": list("xy")*60}), np.arange(120) % 3
    assert raw_columns(TargetEncoder().fit(X, y)) == {f"{c}_{k}.0": (c,) for c in "cd" for k in range(3)} or set(raw_columns(TargetEncoder().fit(X, y)).values()) == {("c",), ("d",)}
    fitted = StandardScaler().fit(np.eye(3))
    assert raw_columns(fitted, columns=["p", "q", "r"]) == {"p": ("p",), "q": ("q",), "r": ("r",)}
    with pytest.raises(BadInput, match="have no names"): raw_columns(fitted)
    with pytest.raises(BadInput, match="no output 'cx'"): raw_columns(OneHotEncoder().fit(X), ["cx"])

# --- by column, through fit ---

def test_each_transformer_for_each_kind_of_estimator_takes_raw_rows():
    from mlops_nb.train.fit import fit, predict
    df = table().assign(wait=lambda d: d["at"] - d["at"].min(), late=answer(table()))
    given = {"at": "cyclic", "wind": "winsorize", "rain": "one-hot", "origin": "ordinal", "dest": "drop", "tail": "target", "remark": "text"}
    odd = df.drop(columns="late").tail(3).assign(origin="XXX", tail="new", remark=None, wind=np.inf, rain=7., wait=pd.NaT)
    for estimator in (HistGradientBoostingClassifier(max_iter=5), LogisticRegression(max_iter=500), RandomForestClassifier(5)):
        model = fit(df, "late", estimator, features={"transformers": given})
        raw = raw_columns(model)
        assert {c for columns in raw.values() for c in columns} == {*given, "wait"} - {"dest"} and raw["at_hour_sin"] == ("at",) and raw["wind_outlier"] == ("wind",) and raw["rain_1.0"] == ("rain",)
        assert np.isfinite(predict(model, odd)).all()
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(predict(again, odd), predict(model, odd))
    assert fit(df, "late", HistGradientBoostingClassifier(max_iter=5), features={"transformers": given})[-1].categorical_features == ["origin"]

def test_the_usual_choice_is_what_a_role_gets():
    df, y = table(), answer(table())
    usual = pipeline(df, HistGradientBoostingClassifier(max_iter=5), many=True, text=True, winsorize=True).fit(df, y)
    told = pipeline(df, HistGradientBoostingClassifier(max_iter=5), transformers=dict(at="calendar", wind="winsorize", rain="winsorize", origin="ordinal", dest="ordinal", tail="ordinal", remark="text")).fit(df, y)
    np.testing.assert_array_equal(usual.predict_proba(df), told.predict_proba(df))

@pytest.mark.parametrize("features, words", [
    ({"transfomers": {}}, "did you mean 'transformers'"), (["tail"], "is no dictionary"), ({"transformers": {"tial": "target"}}, "did you mean 'tail'"), ({"transformers": {"tail": "traget"}}, "did you mean 'target'"),
    ({"transformers": {"dest": "winsorize"}}, "takes numbers"), ({"transformers": {"at": "number"}}, "takes numbers"), ({"transformers": {"dest": "cyclic"}}, "does not read as dates"), ({"transformers": {"id": "ordinal"}}, "gradient boosting takes 255")])
def test_a_transformer_that_does_not_fit_is_refused(features, words):
    from mlops_nb.train.fit import fit
    df = table().assign(id=[f"n {i}" for i in range(400)], late=answer(table()))
    with pytest.raises(BadInput, match=words): fit(df, "late", features=features)

def test_the_train_workflow_passes_them_on_and_scoring_gets_raw_columns(tmp_path, monkeypatch):
    import json
    from pathlib import Path
    nb = json.loads((Path(__file__).parents[1]/"nbs/workflows/train.ipynb").read_text())
    cells = ["".join(c["source"]) for c in nb["cells"]]
    parameters = next("".join(c["source"]) for c in nb["cells"] if "parameters" in c["metadata"].get("tags", []))
    assert "features = {}" in parameters and any('"features": features' in c for c in cells)
    from mlops_nb.registry import contest, models
    from mlops_nb.train.goal import Goal, goal
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    (tmp_path/"settings.ini").write_text((Path(__file__).parents[1]/"settings.ini").read_text())
    from mlops_nb.core.config import settings
    getattr(settings, "cache_clear", lambda: None)()
    frame = table(1500).assign(label=lambda d: answer(d).astype(int))
    found = contest.train(frame, "columns", goal(), "at", "2013-05-01", "sklearn.ensemble.HistGradientBoostingClassifier", features={"transformers": {"tail": "target", "at": "cyclic"}}, max_iter=5)
    assert {"tail", "at_hour_sin"} <= set(found.model[0].get_feature_names_out()) and found.holdout["score"].between(0, 1).all()
    loaded = models.tracking().get_run(found.version.run).data.params["features"]
    assert "'tail': 'target'" in loaded
