# Everything runs in .venv, which the first target that needs it sets up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint bench counts readme clean

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[bench]"
	touch $@

demo: $(VENV)/.demo
	$(BIN)/vmjit demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "not gpu"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.run

# What generated code takes in host instructions, against what was recorded; valgrind counts them.
counts: $(VENV)/.bench
	$(BIN)/python -m benchmarks.counts --check benchmarks/results/host-counts.json

# The README's tables and plots, from the committed result files.
readme: $(VENV)/.dev
	$(BIN)/python -m benchmarks.readme

clean:
	rm -rf $(VENV) build dist *.egg-info
