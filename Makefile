.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-all lint bench clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(STAMP) ## make .venv with every version pinned

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: setup ## the whole way on the built-in sample: runs/demo/evaluation/report.html
	$(BIN)/llumi demo

test: setup ## the tests
	$(BIN)/python -m pytest

test-all: setup ## the tests and the slow ones: chaos, several hosts, soak
	$(BIN)/python -m pytest -m 'slow or not slow'

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## performance, as ratios against baselines of the same run
	$(BIN)/python -m benchmarks

clean: ## remove .venv and caches, keep runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
