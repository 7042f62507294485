# Straightshot: `make demo` sets everything up and runs the demo; `make help` lists the rest.
# Needs make and Python 3.11 or newer; everything else goes into ./.venv from a pinned lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := infra/requirements/lock.txt
CLUSTER_LOCK := infra/requirements/cluster.txt
READY := $(VENV)/ready
UV_VERSION := 0.13.8
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header
TEST_WORKERS ?= 2
BENCHMARKS = $(basename $(filter-out test_%,$(notdir $(wildcard tests/benchmarks/*.py))))
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile \
    --durations=15 --durations-min=5

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults check bench lock clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv from the lock; does nothing when it stands

demo: $(READY)  ## set up, then run the demo DAG into ./runs (35 to 90 minutes on two cores)
	@$(BIN)/straightshot run --preset demo

test: $(READY)  ## set up, then run every test but the long ones of test-faults
	@$(PYTEST) -m "not faults and not cluster"

test-faults: $(READY)  ## set up, then kill every stage at its fault points, and start real clusters
	@$(PYTEST) -m "faults or cluster"

check: $(READY)  ## lint, format, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY)  ## compare speeds with peers, each benchmark in turn: for a quiet machine
	@$(BIN)/python -c 'import os, platform, torch; print(os.cpu_count(), "cores of", \
	    platform.processor() or platform.machine(), "- torch", torch.__version__)'
	@for name in $(BENCHMARKS); do echo "$$name:"; $(BIN)/python -m tests.benchmarks.$$name || exit 1; done

lock: $(READY)  ## pin what pyproject.toml asks for; UPGRADE=--upgrade takes the newest it allows
	@$(COMPILE) $(UPGRADE) --extra onnx --group pyproject.toml:dev pyproject.toml -o $(LOCK)
	@$(COMPILE) --constraint $(LOCK) --extra cluster pyproject.toml -o $(CLUSTER_LOCK)

clean:  ## remove .venv and the tools' caches; runs/ stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock goes in with its hashes, the project itself in editable form without looking anything up.
$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "Straightshot needs Python 3.11 or newer; '$(PYTHON)' is" \
	        "$$($(PYTHON) --version 2>&1 || true): try make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) from $(LOCK): about 5 GB, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/uv --version 2>/dev/null | grep -q "^uv $(UV_VERSION)" \
	    || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r $(LOCK)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
