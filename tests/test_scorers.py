"A compiled scorer answers as the model itself does, whatever the pipeline and whatever arrives; else it is plain and says why."
import datetime, decimal, math, os, subprocess, sys, threading, warnings
import numpy as np, pandas as pd, pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (ExtraTreesClassifier, ExtraTreesRegressor, GradientBoostingClassifier, GradientBoostingRegressor, HistGradientBoostingClassifier, HistGradientBoostingRegressor,
                              RandomForestClassifier, RandomForestRegressor)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, PoissonRegressor, Ridge, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, OneHotEncoder, OrdinalEncoder, PolynomialFeatures, RobustScaler, StandardScaler, TargetEncoder
from mlops_nb.core.finding import BadInput
from mlops_nb.features.build import pipeline
from mlops_nb.serve.export import export, load
from mlops_nb.serve.scorer import asked, difference, scorer
from mlops_nb.serve.table import Table, of_frame, of_rows, rows

pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = ["BOS", "LAX", "Zürich", "東京", "", " ", "naïve", "a\tb", "0", "n/a", "😀", "BOS "]
ODD = [None, float("nan"), "", "never seen", "12", 1e308, -1e308, 1e39, float("inf"), -float("inf"), 10**30, 10**400, -5, 0, -0.0, 1e-320, True, False, "2013-07-04 17:30", "2013-07-04T17:30:00Z", "2013-02-30", "now",
       "0001-01-01", datetime.datetime(2013, 7, 4, 17, 30), datetime.datetime(2013, 7, 4, 17, 30, tzinfo=datetime.timezone.utc), datetime.date(2013, 7, 4), pd.Timestamp("2020-02-29"), pd.NaT, pd.NA, np.float32(.1),
       np.int8(3), b"BOS", decimal.Decimal("1.5"), [1], {"a": 1}, "x"*10_000, "\ud800", 2**53 + 1, 2**63]

def frame(rng, n):
    "Columns of every kind, with gaps."
    def gaps(values, share, missing=None): return [missing if r < share else v for v, r in zip(values, rng.random(n))]
    common = rng.choice(len(WORDS), n, p=(w := 1/np.arange(1, len(WORDS) + 1)**1.5)/w.sum())
    return pd.DataFrame({
        "number": gaps(rng.normal(3, 5, n), .1, np.nan), "whole": rng.integers(-3, 12, n), "flag": rng.random(n) < .3, "huge": rng.normal(1.6e9, 1e4, n), "rain": np.where(rng.random(n) < .8, 0, rng.random(n)),
        "word": [WORDS[i] for i in common], "gap word": gaps([WORDS[i] for i in rng.permutation(common)], .15), "nan word": gaps([WORDS[i] for i in rng.permutation(common)], .15, np.nan), "many": [f"F{i}" for i in rng.integers(0, 40, n)],
        "at": pd.Series(pd.to_datetime("2012-01-01") + pd.to_timedelta(rng.integers(0, 60*24*700, n), unit="min")).where(rng.random(n) > .05)})

def answer(rng, df, classes):
    "Something to learn."
    z = df["number"].fillna(0) + 3*(df["word"] == "BOS") + df["whole"]/2 + rng.normal(0, 2, len(df))
    if not classes: return z
    return pd.qcut(z, classes, labels=False).to_numpy() if classes > 2 else np.where(z > z.median(), "yes", "no")

NUMBERS, TEXTS = ["number", "whole", "flag", "huge", "rain"], ["word", "gap word", "nan word", "many"]

def parts(rng, sparse):
    "A ColumnTransformer of chains over some of the columns."
    def numbers():
        steps = [SimpleImputer(strategy=str(rng.choice(["mean", "median", "most_frequent"])), add_indicator=bool(rng.random() < .5))]
        if rng.random() < .2: steps.append(FunctionTransformer(np.square))
        return make_pipeline(*steps, *rng.choice([StandardScaler(), MinMaxScaler(), MinMaxScaler(clip=True), MaxAbsScaler(), RobustScaler(), "passthrough"], rng.integers(1, 3)))
    def texts():
        encoder = rng.choice([OneHotEncoder(handle_unknown="ignore"), OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=int(rng.integers(2, 30))), OneHotEncoder(handle_unknown="ignore", drop="if_binary"), OneHotEncoder(),
                              OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), TargetEncoder(random_state=0)])
        return make_pipeline(*([SimpleImputer(strategy="constant", fill_value="?")] if rng.random() < .3 else []), encoder, *([StandardScaler(with_mean=False)] if rng.random() < .5 else []))
    def some(names): return rng.choice(names, rng.integers(1, len(names) + 1), replace=False).tolist()
    chains = [("numbers", numbers(), ["number", *some(NUMBERS[1:])]), ("texts", texts(), some(TEXTS))]
    return ColumnTransformer(chains + ([("codes", OneHotEncoder(handle_unknown="ignore"), ["whole"])] if rng.random() < .3 else []), sparse_threshold=float(sparse)*.9)

LINEAR = [(LogisticRegression(max_iter=50), 2), (LogisticRegression(max_iter=50), 3), (SGDClassifier(loss="log_loss", max_iter=5), 3), (RidgeClassifier(), 2), (RidgeClassifier(), 4), (LinearRegression(), 0), (Ridge(), 0), (ElasticNet(), 0)]
TREES = [(HistGradientBoostingClassifier(max_iter=8), 2), (HistGradientBoostingClassifier(max_iter=4), 3), (HistGradientBoostingRegressor(max_iter=8), 0), (HistGradientBoostingRegressor(loss="poisson", max_iter=5), 0),
         (RandomForestClassifier(5), 2), (RandomForestClassifier(5, max_depth=4), 3), (RandomForestRegressor(5), 0), (ExtraTreesClassifier(5), 2), (ExtraTreesRegressor(5), 0),
         (GradientBoostingClassifier(n_estimators=5), 2), (GradientBoostingClassifier(n_estimators=3), 3), (GradientBoostingRegressor(n_estimators=5), 0)]
OTHER = [(GaussianNB(), 2), (KNeighborsClassifier(3), 2)]

def said(ask, table):
    "Answers, or that there are none."
    try: return ask(table)
    except Exception as e: return type(e).__name__

def same(proven, table):
    "The scorer and the model say the same of a table, or neither says anything. A model may refuse a table for one of its rows; then the scorer is right about each of them alone."
    got, want = said(proven, table), said(proven.plain, Table(table.names, table.columns, table.n))
    if table.n > 1 and isinstance(want, str) and not isinstance(got, str): return all(same(proven, rows(table, i, i + 1)) and difference(got[i:i + 1], proven(rows(table, i, i + 1))) == 0 for i in range(table.n))
    if isinstance(got, str) or isinstance(want, str): return isinstance(got, str) and isinstance(want, str)
    return difference(got, want) <= 1e-12

def odd_tables(rng, df, count, used):
    "Single rows and small tables as JSON gives them, some values of used columns replaced by odd ones."
    plain = df.astype(object).where(df.notna(), None)
    for _ in range(count):
        n = int(rng.choice([1, 1, 3, 9]))
        records = plain.iloc[rng.integers(0, len(df), n)].to_dict("records")
        for r in records:
            if rng.random() < .7: r["at"] = None if r["at"] is None else r["at"].isoformat()
            for name in rng.choice(used, rng.integers(0, min(3, len(used) + 1)), replace=False): r[name] = ODD[rng.integers(len(ODD))]
        yield of_rows(records)

def proof(seed, estimator, classes, built, count=30):
    "A random pipeline, its scorer, and the odd tables on which the two differ."
    rng = np.random.default_rng(seed)
    df = frame(rng, 400)
    y = answer(rng, df, classes)
    if getattr(estimator, "loss", "") == "poisson" or isinstance(estimator, PoissonRegressor): y = np.exp(y/10)
    options = dict(many=bool(rng.random() < .5), winsorize=bool(rng.random() < .5), interactions=[("word", "many"), ("number", "whole")] if rng.random() < .5 else [])
    model = pipeline(df, estimator, **options) if built else make_pipeline(parts(rng, hasattr(estimator, "fit_intercept") and rng.random() < .5), estimator)
    if 'random_state' in estimator.get_params(): model[-1].set_params(random_state=seed)
    model.fit(df, y)
    proven = scorer(model, sample=df.sample(20, random_state=seed), method=str(rng.choice(["score", "predict"])))
    bad = [t.columns for t in odd_tables(rng, df, count, sorted(proven.way.columns.needed) if proven.way else [*df]) if not same(proven, t)]
    return proven, bad + [] if same(proven, of_frame(df)) else [*bad, of_frame(df).columns]

@pytest.mark.parametrize("built", [True, False], ids=["built", "random"])
@pytest.mark.parametrize("family", [LINEAR, TREES, OTHER], ids=["linear", "trees", "other"])
def test_any_pipeline_answers_as_scikit_learn_whatever_arrives(family, built):
    kinds = []
    for seed, (estimator, classes) in [*enumerate(family)][0 if built else 1::2 if len(family) > 2 else 1]:
        proven, bad = proof(seed, estimator, classes, built)
        assert not bad, (seed, estimator, proven, bad[:3])
        kinds.append(proven.kind)
    assert kinds.count({id(LINEAR): "linear", id(TREES): "trees", id(OTHER): "array"}[id(family)]) >= .6*len(kinds), kinds

def test_the_steps_alone_answer_as_the_pipeline_does_whatever_arrives():
    kinds = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        df = frame(rng, 300)
        model = make_pipeline(parts(rng, False), KNeighborsClassifier(3) if seed % 2 else LogisticRegression(max_iter=50))
        try: model.fit(df, answer(rng, df, 2))
        except ValueError: continue       # a neighbour takes no NaN
        proven = scorer(model, sample=df.sample(20, random_state=seed), compiled=False, method="predict_proba")
        used = sorted({n for _, names, _ in proven.way.groups for n in names}) if proven.way else [*df]
        assert not [t.columns for t in odd_tables(rng, df, 20, used) if not same(proven, t)] and same(proven, of_frame(df)), (seed, proven)
        kinds.append(proven.kind)
    assert kinds.count("parts") >= 3 and {*kinds} <= {"parts", "plain"}, kinds

def model_of(estimator, seed=0, classes=2, n=400):
    rng = np.random.default_rng(seed)
    df = frame(rng, n)
    return df, pipeline(df, estimator).fit(df, answer(rng, df, classes))

def test_a_row_is_answered_alike_alone_and_among_others():
    for estimator in (LogisticRegression(max_iter=50), HistGradientBoostingClassifier(max_iter=8)):
        df, model = model_of(estimator)
        proven, table = scorer(model, sample=df.head(20)), of_frame(df)
        whole = proven(table)
        for i in range(0, 400, 37): assert proven(rows(table, i, i + 1))[0] == proven(rows(table, i, i + 9))[0] == whole[i]

def test_numpy_alone_gives_the_same_bits_and_imports_nothing_else(tmp_path):
    for estimator, classes in ((LogisticRegression(max_iter=50), 2), (Ridge(), 0), (HistGradientBoostingClassifier(max_iter=8), 3), (RandomForestRegressor(5), 0)):
        df, model = model_of(estimator, classes=classes)
        proven = scorer(model, sample=df.head(20), method="predict" if classes == 3 else "score")
        loaded = load(export(proven, tmp_path/f"{proven.kind}.npz"))
        assert (loaded(of_frame(df)) == proven(of_frame(df))).all() and loaded.kind == proven.kind
        with pytest.raises(BadInput, match="number"): loaded(Table(tuple(df), {c: [[] if c == "number" else None] for c in df}, 1))
    code = f"""if True:
        import sys
        from mlops_nb.serve.export import load
        print(load({str(tmp_path/'linear.npz')!r}).row({dict.fromkeys(df)!r}))
        assert not {{"pandas", "sklearn", "scipy", "mlflow", "numba", "pyarrow"}} & {{*sys.modules}}
        print(next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 40_000, done.stdout      # kB
    for text in (b"", b"no", (tmp_path/"linear.npz").read_bytes()[:500]):
        (tmp_path/"bad.npz").write_bytes(text)
        with pytest.raises(BadInput, match="no exported scorer"): load(tmp_path/"bad.npz")

def test_a_pickle_in_the_file_is_never_read(tmp_path):
    np.savez(tmp_path/"evil.npz", about=np.array([{"format": 1}], object))
    with pytest.raises(BadInput, match="no exported scorer"): load(tmp_path/"evil.npz")

@pytest.mark.parametrize("transformer", [PCA(2), PolynomialFeatures(2), FunctionTransformer(lambda X: X*2)], ids=["pca", "polynomial", "own function"])
def test_what_is_not_known_is_plain_and_says_why(transformer, tmp_path):
    df = frame(np.random.default_rng(0), 200)[["whole", "huge", "rain"]]
    proven = scorer(make_pipeline(transformer, StandardScaler(), Ridge()).fit(df, df["rain"]), sample=df.head(20))
    assert proven.kind == "plain" and len(proven.why) > 2 and difference(proven(of_frame(df)), proven.plain(of_frame(df))) == 0
    with pytest.raises(BadInput, match="needs the model itself"): export(proven, tmp_path/"x.npz")

def test_a_sample_that_is_missing_empty_or_of_other_types_is_no_proof():
    df, model = model_of(LogisticRegression(max_iter=50))
    assert scorer(model).kind == scorer(model, sample=df[:0]).kind == "plain" and scorer(model, sample=df.head(9), compiled=False).kind in ("plain", "parts")
    for other in (df.head(20).assign(number=lambda d: d["number"].astype("float32")), df.head(20).assign(word=lambda d: d["word"].astype("category")), df.head(20).assign(whole=lambda d: d["whole"].astype("Int64"))):
        proven = scorer(model, sample=other)
        assert same(proven, of_frame(other)) and same(proven, of_frame(df)), proven
    with pytest.raises(BadInput, match="other versions"): scorer(model, sample=df.head(9), expected=np.zeros(9))
    with pytest.raises(BadInput, match="did you mean"): scorer(model, sample=df.head(9), method="predict_probas")

def test_columns_missing_extra_and_in_another_order():
    df, model = model_of(LogisticRegression(max_iter=50))
    proven, table = scorer(model, sample=df.head(20)), of_frame(df.head(7))
    assert (proven(of_frame(df.head(7)[[*df][::-1]].assign(more=1))) == proven(table)).all() and proven.odd == 0
    with pytest.raises(Exception, match="number"): proven(of_frame(df.head(7).drop(columns="number")))
    with pytest.raises(Exception): proven(of_frame(df.head(0)))
    shuffled = df[[*df][::-1]].drop(columns=proven.way.columns.features[0].source.names[0], errors="ignore").assign(took=pd.Timedelta("1h"), kind=pd.Categorical(["a"]*400))
    chosen = make_pipeline(ColumnTransformer([("n", StandardScaler(), ["whole", "rain"])]), Ridge()).fit(df, df["huge"])
    assert scorer(chosen, sample=shuffled.head(20)).kind == "linear" and difference(scorer(chosen, sample=shuffled.head(20))(table), chosen.predict(df.head(7))) <= 1e-12
    bare = df[["whole", "rain"]]
    proven = scorer(LinearRegression().fit(bare, df["huge"]), sample=bare.head(20))
    assert proven.kind == "linear" and same(proven, of_frame(bare))
    for wrong in (bare[["rain", "whole"]], bare.assign(more=1), bare[["rain"]]): assert same(proven, of_frame(wrong)) and isinstance(said(proven, of_frame(wrong)), str)

def test_a_zone_is_the_clock_of_the_training_data():
    rng = np.random.default_rng(0)
    for zone in (None, "America/New_York", "UTC"):
        df = frame(rng, 300).assign(at=lambda d: d["at"].dt.tz_localize("UTC").dt.tz_convert(zone) if zone else d["at"])
        model = pipeline(df, LogisticRegression(max_iter=50)).fit(df, answer(rng, df, 2))
        proven = scorer(model, sample=df.head(20))
        for form in (lambda v: v, lambda v: v.isoformat(), lambda v: v.to_pydatetime(), lambda v: v.tz_convert("Asia/Tokyo") if v.tzinfo else v.tz_localize("Asia/Tokyo")):
            for i in range(0, 300, 29):
                row = df.iloc[i].to_dict() | {"at": None if pd.isna(df["at"][i]) else form(df["at"][i])}
                assert same(proven, of_rows([row | {"number": None if row["number"] != row["number"] else row["number"]}])), (zone, row)

def test_bits_at_the_edges_of_splits():
    for estimator in (HistGradientBoostingRegressor(max_iter=8), RandomForestRegressor(5, random_state=0), GradientBoostingRegressor(n_estimators=5)):
        df = frame(np.random.default_rng(0), 300)[["whole", "rain", "huge"]]
        model = estimator.fit(df, answer(np.random.default_rng(0), frame(np.random.default_rng(0), 300), 0))
        proven = scorer(model, sample=df.head(20))
        nodes = proven.way.body.nodes[proven.way.body.nodes["column"] >= 0]
        edge = df.iloc[np.zeros(3*len(nodes), int)].to_numpy(float).copy()
        for i, node in enumerate(nodes): edge[3*i:3*i + 3, node["column"]] = np.nextafter(node["cut"], [-np.inf, node["cut"], np.inf])
        table = of_frame(pd.DataFrame(edge, columns=[*df]))
        assert proven.kind == "trees" and (proven(table) == proven.plain(table)).all()

def test_a_live_row_that_differs_ends_the_fast_way_for_good(caplog):
    df, model = model_of(LogisticRegression(max_iter=50))
    proven, table = scorer(model, sample=df.head(20)).shadow(.5), of_frame(df.head(9))
    for _ in range(20): proven(table)
    assert proven.kind == "linear" and 3 <= proven.checked <= 17
    proven.way.body.folded[0][:] += 1e-9
    while proven.kind == "linear": got = proven(table)
    assert (got == proven.plain(table)).all() and "live row" in proven.why and "live row" in caplog.text
    with pytest.raises(BadInput, match="outside"): proven.shadow(2)

def test_many_threads_ask_at_once():
    df, model = model_of(HistGradientBoostingClassifier(max_iter=8))
    proven, table = scorer(model, sample=df.head(20)).shadow(.05), of_frame(df)
    want, wrong = proven.plain(table), []
    def ask(k):
        for i in range(k, 400, 8):
            if difference(proven(rows(table, i, i + 1)), want[i:i + 1]): wrong.append(i)
    threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong and proven.kind == "trees"

def test_memory_does_not_grow_with_what_is_asked():
    import tracemalloc
    df, model = model_of(LogisticRegression(max_iter=50))
    proven, row = scorer(model, sample=df.head(20)), df.iloc[0].to_dict()
    def ask(n, at):
        for i in range(n): proven(of_rows([row | {"word": f"new {at + i}", "number": float(i)}]))
    ask(50, 0)
    tracemalloc.start()
    ask(3000, 1000)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 50_000, grown

@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_boosters_of_other_libraries(library):
    kind = pytest.importorskip(library)
    for name, classes in (("Classifier", 2), ("Classifier", 3), ("Regressor", 0)):
        estimator = getattr(kind, ("LGBM" if library == "lightgbm" else "XGB") + name)(n_estimators=6, n_jobs=1, **({"verbose": -1} if library == "lightgbm" else {}))
        rng = np.random.default_rng(0)
        df = frame(rng, 400)
        y = pd.factorize(answer(rng, df, classes))[0] if classes else answer(rng, df, 0)
        for X, model in ((df, pipeline(df, estimator).fit(df, y)), (df[["number", "whole", "rain"]], type(estimator)(**estimator.get_params()).fit(df[["number", "whole", "rain"]], y))):
            proven = scorer(model, sample=X.sample(30, random_state=0))
            table, limit = of_frame(X), 1e-12 if library == "lightgbm" else 5e-7
            assert proven.kind in ("trees", "array") and difference(proven(table), proven.plain(table)) <= limit and proven(table).dtype == proven.plain(table).dtype, proven

def test_a_wrapped_model_of_mlflow_answers_as_its_wrapper(tmp_path):
    import mlflow
    from mlops_nb.train.persistence import quiet, save
    df, model = model_of(LogisticRegression(max_iter=50))
    with quiet():
        wrapped = mlflow.pyfunc.load_model(str(save(model, tmp_path/"m", df.head(20), ["scikit-learn"]).folder))
        proven = scorer(wrapped, sample=df.head(20))
        assert proven.kind == "linear" and difference(proven(of_frame(df)), wrapped.predict(df)) <= 1e-12 and proven(of_frame(df)).shape == (400, 2)
        class Own(mlflow.pyfunc.PythonModel):
            def predict(self, context, model_input, params=None): return model_input["whole"]*2
        mlflow.pyfunc.save_model(str(tmp_path/"own"), python_model=Own())
        own = scorer(mlflow.pyfunc.load_model(str(tmp_path/"own")), sample=df.head(20))
        assert own.kind == "plain" and (own(of_frame(df)) == df["whole"]*2).all()
