"Libraries with threads, pools and processes of their own work in a warm kernel, two at once, and say there what they say in a cold one: none waits for a thread that the fork lost."
import os, sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import psutil, pytest

from mlops_nb.run import warm
from tests.conftest import wait_until
from tests.test_warm import PARENT, by_default, executed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
OPTIONAL = {"polars", "shap", "numba"}
LIMIT = 120   # seconds a cell may take; a deadlock takes for ever

START = """
import os, tempfile, warnings
import numpy as np, pandas as pd
warnings.simplefilter("ignore")
tmp = tempfile.mkdtemp()
rng = np.random.default_rng(0)
x = rng.normal(size=(4_000, 6)); y = (x[:, 0] + rng.normal(size=4_000) > 0).astype(int)
df = pd.DataFrame(x, columns=list("abcdef")).assign(k=np.arange(4_000) % 7, y=y)
"""

CELLS = {
"blas": "print(np.linalg.svd(x[:600] @ x[:600].T, compute_uv=False)[:3].round(6), round(float(np.linalg.det(x.T @ x)), 3))",
"hist_gradient_boosting": """
from sklearn.ensemble import HistGradientBoostingClassifier
print(round(float(HistGradientBoostingClassifier(max_iter=15, random_state=0).fit(x, y).predict_proba(x)[:, 1].sum()), 9))""",
"joblib_threads": """
from sklearn.ensemble import RandomForestClassifier
print(RandomForestClassifier(10, n_jobs=2, random_state=0).fit(x, y).predict(x).sum())""",
"loky": """
from joblib import Parallel, delayed
def square(n): return n*n, os.environ.get("LOKY_WORKER") or "a worker"
print(Parallel(2)(delayed(square)(n) for n in range(6)))""",
"multiprocessing_fork": """
import multiprocessing
def halved(n): return n/2, float(x[n].sum().round(6))
with multiprocessing.get_context("fork").Pool(2) as pool: print(pool.map(halved, range(5)))""",
"multiprocessing_spawn": """
import math, multiprocessing
with multiprocessing.get_context("spawn").Pool(2) as pool: print(pool.map(math.factorial, range(8)))""",
"multiprocessing_forkserver": """
import math, multiprocessing
with multiprocessing.get_context("forkserver").Pool(2) as pool: print(pool.map(math.factorial, range(8)))""",
"process_pool": """
from concurrent.futures import ProcessPoolExecutor
def total(k): return int(df[df.k == k].y.sum())
with ProcessPoolExecutor(2) as pool: print(list(pool.map(total, range(7))))""",
"subprocess": """
import asyncio, subprocess, sys
print(subprocess.run(["echo", "one"], capture_output=True, text=True).stdout, subprocess.check_output([sys.executable, "-c", "print(2)"]))
async def three():
    p = await asyncio.create_subprocess_exec("echo", "three", stdout=asyncio.subprocess.PIPE)
    return (await p.communicate())[0], p.returncode
print(await three())
!echo four""",
"pyarrow": """
import pyarrow as pa, pyarrow.compute as pc, pyarrow.csv, pyarrow.dataset as ds, pyarrow.parquet as pq
for k in range(4): pq.write_table(pa.Table.from_pandas(df), f"{tmp}/{k}.parquet")
print(ds.dataset([f"{tmp}/{k}.parquet" for k in range(4)]).to_table(use_threads=True, filter=ds.field("a") > 0).num_rows)
pyarrow.csv.write_csv(pa.Table.from_pandas(df), f"{tmp}/a.csv")
print(pyarrow.csv.read_csv(f"{tmp}/a.csv", pyarrow.csv.ReadOptions(use_threads=True, block_size=4096)).group_by("k").aggregate([("y", "sum")]).sort_by("k").to_pydict())""",
"deltalake": """
from deltalake import DeltaTable, write_deltalake
for k in range(2): write_deltalake(f"{tmp}/delta", df, mode="append", partition_by=["k"])
DeltaTable(f"{tmp}/delta").merge(df[["a", "k", "y"]].head(50), "t.a = s.a and t.k = s.k", source_alias="s", target_alias="t").when_matched_update({"y": "100"}).execute()
table = DeltaTable(f"{tmp}/delta")
print(table.version(), len(table.to_pandas()), int(table.to_pandas().y.sum()), DeltaTable(f"{tmp}/delta", version=0).to_pandas().shape)""",
"duckdb": """
import duckdb
db = duckdb.connect(f"{tmp}/a.duckdb")
db.execute("set threads = 2")
print(db.sql("select i % 5 as k, sum(i) as s from range(2_000_000) t(i) group by k order by k").fetchall(), db.sql("select k, sum(y) from df group by k order by k").fetchall())
db.sql("copy df to '%s/d.parquet'" % tmp)
print(duckdb.sql("select count(*), round(sum(a), 6) from '%s/d.parquet'" % tmp).fetchall())""",
"polars": """
import polars as pl
frame = pl.from_pandas(df)
frame.write_parquet(f"{tmp}/p.parquet")
print(frame.group_by("k").agg(pl.col("y").sum(), pl.col("a").max().round(6)).sort("k").rows())
lazy = pl.scan_parquet(f"{tmp}/p.parquet").filter(pl.col("a") > 0).sort("b")
print(lazy.collect().height, lazy.group_by("k").agg(pl.len()).sort("k").collect(engine="streaming").rows())
lazy.sink_parquet(f"{tmp}/q.parquet")
print(pl.read_parquet(f"{tmp}/q.parquet").shape)""",
"numba": """
import numba
@numba.njit(parallel=True)
def total(x):
    s = 0.
    for i in numba.prange(x.shape[0]): s += x[i].sum()
    return s
print(round(total(x), 6))""",
"shap": """
import shap
from sklearn.ensemble import RandomForestRegressor
from sklearn.ensemble import HistGradientBoostingClassifier
for model in (RandomForestRegressor(5, max_depth=4, n_jobs=2, random_state=0), HistGradientBoostingClassifier(max_iter=5, random_state=0)):
    values = shap.TreeExplainer(model.fit(x, y)).shap_values(x[:200])
    print(np.shape(values), np.abs(values).sum(0).round(6))""",
"mlflow_sqlite": """
import mlflow, mlflow.sklearn
from sklearn.linear_model import LogisticRegression
mlflow.set_tracking_uri(f"sqlite:///{tmp}/mlflow.db")
mlflow.set_experiment(experiment_id=mlflow.create_experiment("e", artifact_location=f"{tmp}/artifacts"))
with mlflow.start_run():
    mlflow.log_metric("auc", .7)
    logged = mlflow.sklearn.log_model(LogisticRegression().fit(x, y), name="m", pip_requirements=[], serialization_format="cloudpickle")
print(mlflow.search_runs()["metrics.auc"].tolist(), mlflow.pyfunc.load_model(logged.model_uri).predict(x).sum())""",
"matplotlib": """
import matplotlib, matplotlib.pyplot as plt
print(matplotlib.get_backend())
plt.plot(df.groupby("k").y.sum().to_numpy())
plt.gca().set_title("late")
plt.show()""",
"tqdm": """
from tqdm.auto import tqdm
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool: print(sum(tqdm(pool.map(lambda n: n*n, range(200)), total=200)))""",
}

def shown(cell):
    "What a cell shows: its text, its data; widgets and progress bars by their kind only, their numbers are chance."
    kinds = [next(iter(o.get("data", {"stderr": ""}))) for o in cell.outputs if o.get("name") != "stdout"]
    texts = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
    return texts, kinds, [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]

@pytest.fixture(scope="module")
def cold():
    "What every library says in a cold kernel, one after the other in one."
    with by_default("local-provisioner"): cells = executed(START, *CELLS.values(), timeout=LIMIT, env=warm.QUIET, allow_errors=True)
    return dict(zip(CELLS, cells[1:]))

PRELOADED = ("polars", "duckdb", "numba", "shap")   # the second time round: imported before the fork
AGAIN = (*PRELOADED, "blas", "hist_gradient_boosting", "joblib_threads", "loky", "multiprocessing_fork", "pyarrow", "mlflow_sqlite")

@pytest.fixture(scope="module")
def zygote(request):
    "The process that forks the kernels; with the libraries of `MLOPS_NB_PRELOAD` or without."
    with pytest.MonkeyPatch.context() as patch:
        if request.param: patch.setenv("MLOPS_NB_PRELOAD", request.param)
        warm.start()
        warm.wait(180)
        with by_default(warm.NAME): yield next(r["pid"] for r in warm.status() if r["zygote"] == warm.zygote_name({**warm.QUIET, **os.environ}))

def family(pid): return [p for p in psutil.process_iter() if _session(p) == pid]

def _session(p):
    try: return os.getsid(p.pid) if p.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, psutil.Error): return None

@pytest.mark.parametrize("zygote, library", [("", c) for c in CELLS] + [(" ".join(PRELOADED), c) for c in AGAIN], indirect=["zygote"], ids=[*CELLS, *(f"{c}_preloaded" for c in AGAIN)])
def test_works_as_cold(cold, zygote, library):
    "Twice at once, in a fork; and with the kernel goes what the library had started."
    if library in OPTIONAL and not find_spec(library): pytest.skip(f"{library} is not installed")   # never imported here: shap sets variables that would make another zygote
    run = lambda _: executed(PARENT, "print(os.getpid())", START, CELLS[library], timeout=LIMIT, env=warm.QUIET)
    with ThreadPoolExecutor(2) as pool: kernels = list(pool.map(run, range(2)))
    for parent, own, _, cell in kernels:
        assert shown(parent)[0] == f"{zygote}\n"
        assert shown(cell) == shown(cold[library])
        wait_until("end of the children", lambda: not family(int(shown(own)[0])), seconds=20)

INSIDE = """
import asyncio, os
import matplotlib.pyplot, sklearn.ensemble
import nbformat
from nbclient import NotebookClient
nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; print(os.getppid())")])
await NotebookClient(nb, kernel_name="python3", extra_arguments=["--log-level=40"]).async_execute()
print(nb.cells[0].outputs[0].text, os.getpid())
"""

def test_kernels_of_a_kernel_share_the_zygote():
    "What ipykernel and scikit-learn write into the environment of a notebook that runs other notebooks makes no other zygote."
    warm.start()
    warm.wait(120)
    with by_default(warm.NAME): parent, cell = executed(PARENT, INSIDE, env=dict(warm.QUIET, JUPYTER_DEFAULT_PROVISIONER_NAME=warm.NAME), timeout=LIMIT)
    assert shown(cell)[0].split()[0] == shown(parent)[0].strip()
