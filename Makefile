# `make run` is the main job, `make test` the tests; both set up the environment first. Needed: Python 3.11 to 3.13, git, make.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
PYTHONS := python3.11 python3.12 python3.13 python3 python
CODE := fedmtl clients strategies simulations tests benchmarks tools docs
# Options of pytest, such as ARGS="-m 'not slow'", or of fedmtl run, such as ARGS="--seed 1 --out runs/seed-1".
ARGS :=
# Tests run on every core, but for those of files that ARGS names: these few are sooner done than workers are started.
WORKERS = $(if $(findstring .py,$(ARGS)),,-n auto --maxprocesses 8 --dist loadgroup --no-loadscope-reorder --max-worker-restart 0)

export OMP_NUM_THREADS ?= 1
# Bytecode is kept, whatever the environment says: tests start many processes, each of which loads half a second sooner.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup run test check docs bench soak lock

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

setup: $(STAMP)  ## create .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml tools/install.py
	@echo "Setting up $(VENV) (a few minutes the first time) ..."
	@python=""; \
	for candidate in $(PYTHONS); do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "no Python 3.11 to 3.13 found: install one, or put it on PATH" >&2; exit 1; fi; \
	if [ -e $(BIN)/python ] && ! $(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	  rm -rf $(VENV); fi; \
	[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || $$python -m venv $(VENV)
	@$(BIN)/python tools/install.py
	@touch $@
	@echo "$(VENV) is ready: $$($(BIN)/python --version)"

run: setup  ## set up, then run the main job (results in runs/)
	$(BIN)/fedmtl run $(or $(ARGS),--overwrite)

test: setup  ## set up, then run all tests, the quick ones first
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

check: setup  ## lint, format and types
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

docs: setup  ## build the documentation into docs/_build
	rm -rf docs/api
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

bench: setup  ## client updates per second against a bare PyTorch loop
	$(BIN)/python -m benchmarks.throughput $(ARGS)

# The soak's first part keeps what it has done; its options, such as ARGS="--kills 20", leave the second as it is.
soak: setup  ## hours of random configurations, kills, honest fleets and malformed updates; goes on where it was cut
	$(BIN)/python -m tools.soak $(ARGS)
	FEDMTL_MALFORMED=10000 FEDMTL_MALFORMED_GRID=1000 FEDMTL_MALFORMED_NODE=30 $(BIN)/python -m pytest -k malformed \
	  tests/strategies/core/test_malformed_updates.py tests/strategies/flower/test_grid_fleet.py \
	  tests/simulations/flower/test_malformed_messages.py

lock: setup  ## write requirements.lock anew from pyproject.toml
	$(BIN)/python tools/lock.py
