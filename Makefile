# Every target makes .venv and installs into it by itself, and again when pyproject.toml or constraints.txt change.
#   make demo PYTHON=python3.12          another interpreter
#   make venv PIP_ARGS="--no-index ..."  extra arguments for pip, for instance where to find a particular build of torch

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test bench lint

help:
	@echo "make demo    carry the mask of one frame through a generated video and open the result (minutes)"
	@echo "make test    run every test"
	@echo "make lint    ruff (rules and format) and mypy --strict"
	@echo "make bench   speed and memory, ours beside the plain way"
	@echo "make venv    only create .venv and install"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Retrace needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1); say make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --no-input -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	@touch $@

venv: $(STAMP)

demo: $(STAMP)
	$(BIN)/retrace demo --out demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src benchmarks
