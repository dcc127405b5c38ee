"""Modules:

- `mlops_nb.run.client`: nbclient's client for a notebook run to its end by a machine: no fixed waits, and a clear word when the kernel dies. `nbs/run/engine.ipynb` tells its story.
- `mlops_nb.run.zygote`: The process that imports the libraries once and forks a kernel, or a command of ours, for every request. `nbs/run/warm.ipynb` tells its story."""

__version__ = "0.1.0"
