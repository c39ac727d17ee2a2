# make demo   train, compare and run MD on real quantum-chemistry data (about 10 minutes, 2 cores)
# make test   the tests CI runs (under 20 minutes, 2 cores);  make test-all: every test
# Both set up everything they need in .venv; setting up twice takes a second.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all coverage docs build peers-mace lint format data clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## create .venv with everything pinned

# mace-torch without its dependencies: it pins an e3nn that NequIP cannot use (docs/mace-compat.md)
# torch first and by its exact pin: a range would fetch the newest CUDA build on a CPU machine
$(STAMP): pyproject.toml setup.py constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps "mace-torch==0.3.16"
	@touch $(STAMP)

demo: $(STAMP)  ## train five models on ethanol, compare them, run MD: demo/report.md
	$(BIN)/eqplugin demo --out demo

lint: $(STAMP)  ## ruff, import layering and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

test: $(STAMP) lint  ## what CI runs
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope -m "not slow"

test-all: $(STAMP) lint  ## every test, the long ones too
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope

build: $(STAMP)  ## sdist and wheel in dist/
	$(BIN)/python -m build --no-isolation

coverage: $(STAMP)  ## make test, and which lines it runs: htmlcov/index.html
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope -m "not slow" \
	  --cov --cov-report=term --cov-report=html

docs: $(STAMP)  ## the documentation as a site: docs/_build/html/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

peers-mace: $(STAMP)  ## MACE's own tests on the repaired MACE: make peers-mace SRC=path/to/mace
	$(BIN)/python tools/peers_mace.py $(SRC)

format: $(STAMP)  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

data: $(STAMP)  ## regenerate the shipped quick-start data from its seeds
	$(BIN)/python tools/make_data.py make ethanol-xtb --out examples/data/ethanol_xtb
	$(BIN)/python tools/make_data.py make cuau-emt --out examples/data/cuau_emt

clean:  ## remove the environment, what was built and what the demo wrote
	rm -rf $(VENV) build dist demo outputs docs/_build docs/reference/generated htmlcov .coverage
