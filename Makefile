.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-all lint wheels bench clean

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

WHEELS_PYTHON ?= 3.12
WHEELS := trl peft accelerate datasets dill multiprocess pydantic pydantic_core annotated-types typing-inspection

wheels: setup ## .wheels/: what benchmarks/gpu_training.py can use on a GPU machine without a network
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version $(WHEELS_PYTHON) \
	  --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --dest .wheels \
	  $$(for name in $(WHEELS); do grep -i "^$$name==" constraints.txt; done)

bench: setup ## performance, as ratios against baselines of the same run
	$(BIN)/python -m benchmarks

clean: ## remove .venv and caches, keep runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
