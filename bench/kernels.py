"A notebook that imports pandas, scikit-learn and MLflow and fits a model: stock papermill on a cold kernel against the same call on a warm one, alternating."
import os, platform, statistics, tempfile, time

import nbformat, papermill

from mlops_nb.run import warm

PAIRS = 5
CELLS = ["import pandas, mlflow.sklearn", "from sklearn.datasets import load_iris\nfrom sklearn.ensemble import HistGradientBoostingClassifier",
         "HistGradientBoostingClassifier(max_iter=5).fit(*load_iris(return_X_y=True)).score(*load_iris(return_X_y=True))"]

def seconds(path):
    began = time.perf_counter()
    papermill.execute_notebook(path, None, progress_bar=False, kernel_name="python3")
    return time.perf_counter() - began

def warmed(path):
    while not warm.ready(): time.sleep(.1)
    return seconds(path)

def cold(path):
    "The same call with Jupyter's own provisioner."
    from jupyter_client.provisioning import KernelProvisionerFactory as Factory
    factory = Factory.instance()
    mine, factory.default_provisioner_name = factory.default_provisioner_name, "local-provisioner"
    try: return seconds(path)
    finally: factory.default_provisioner_name = mine

def main():
    os.environ.update(warm.QUIET)
    with tempfile.TemporaryDirectory() as tmp, warm.kernels():
        path = f"{tmp}/fit.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS]), path)
        warm.start()
        cold(path), warmed(path)
        took = [(cold(path), warmed(path)) for _ in range(PAIRS)]
    a, b = (statistics.median(t[i] for t in took) for i in (0, 1))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; medians of {PAIRS} alternating pairs")
    print(f"cold {a:.2f} s   warm {b:.2f} s   {a/b:.1f}x")

if __name__ == "__main__": main()
