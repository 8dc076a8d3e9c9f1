# `make` without arguments lists the targets. Each target builds what it needs first, so `make demo` works in a fresh clone.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench docs clean

BIN := .venv/bin
READY := .venv/.ready
# Build constraints also pin the build tools of packages (hatchling, setuptools, Cython).
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt

# An executable on the path may not work (shims of pyenv), so each one is run once.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

help:
	@echo 'make setup   .venv with the tested versions of everything (for another Python: make setup PYTHON=python3.12)'
	@echo 'make demo    the demo study, on embedded photographs'
	@echo 'make test    all tests, and the examples of README and docstrings'
	@echo 'make check   style, types, import layers'
	@echo 'make bench   all scripts of experiments/benchmarks'
	@echo 'make docs    the documentation, in site/'
	@echo 'make clean   removes .venv, caches and site/; keeps runs/ and mlflow.db'

setup: $(READY)
	@echo 'Ready: . .venv/bin/activate'

# The stamp is written last, so the next `make` resumes an interrupted setup.
$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'Python 3.11 or newer is required, got "$(PYTHON)"; specify one: make setup PYTHON=/path/to/python3.12' >&2; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null || command -v gcc >/dev/null || { \
		echo 'learn2learn needs a C compiler; install one: sudo apt-get install build-essential' >&2; exit 1; }
	@test -x $(BIN)/pip || { echo 'Creating .venv'; "$(PYTHON)" -m venv .venv; } || { \
		echo '"$(PYTHON)" cannot create a virtual environment: sudo apt-get install python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	@echo 'Installing torch'
	@$(INSTALL) torch
	@echo 'Installing metarestore and its tools'
	@$(INSTALL) --editable '.[dev]'
	@echo 'Building learn2learn'
	@$(INSTALL) --no-deps learn2learn --config-settings=--build-option=build_ext || { \
		echo 'learn2learn also needs the Python headers: sudo apt-get install python3-dev' >&2; exit 1; }
	@touch $@

demo: $(READY)
	@$(BIN)/metarestore demo

# Two processes; the tests that start Ray share one of them (mark: xdist_group("ray")).
test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY)
	@for script in $(sort $(wildcard experiments/benchmarks/*.py)); do echo "== $$script"; $(BIN)/python "$$script"; done

# The gallery is regenerated, so that it shows the current catalogue.
docs: .venv/.docs
	@rm -rf docs/catalogue
	@$(BIN)/metarestore tasks gallery --out docs/catalogue
	@$(BIN)/zensical build --clean --strict

.venv/.docs: $(READY)
	@$(INSTALL) --editable '.[docs]'
	@touch $@

clean:
	rm -rf .venv .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist site
	find platform tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +
