"""Modules:

- `mlops_nb.run.zygote`: The process that imports the libraries once and forks a kernel for every request. `nbs/run/warm.ipynb` tells its story."""

__version__ = "0.1.0"
