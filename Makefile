# Everything is run through here; `make help` lists what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The many interpreters of a run compile each module once, also where the environment forbids it.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-fast compat check docs bench gpu format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/demo.installed ## Train a small forecaster on real data; results in demo_output/
	$(BIN)/python examples/forecast.py

test: $(VENV)/test.installed ## Run the tests, the docstring examples and every example in the docs (ARGS=… for pytest, THOROUGH=1)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) * 2)) --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m alone
endif

test-fast: $(VENV)/test.installed ## Run the tests that start no process, server, cluster or framework
	$(BIN)/python -m pytest -n $$(getconf _NPROCESSORS_ONLN) --dist worksteal -m "not alone" --ignore=tests/integration

compat: ## Run the tests with the oldest versions, and with the newest on newer Pythons (ENV=oldest, newest)
	$(PYTHON) .ci/compat.py $(ENV)

check: $(VENV)/check.installed ## Check format, lint, types, imports between rooms, docstrings and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/numpydoc lint $$(find xtorch_data -name '*.py')
	$(BIN)/codespell

docs: $(VENV)/docs.installed ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/bench.installed ## Run the benchmarks (WORKLOAD=forecast, QUICK=1)
	WORKLOAD="$(WORKLOAD)" QUICK="$(QUICK)" $(BIN)/python -m benchmarks

gpu: $(VENV)/test.installed $(VENV)/bench.installed ## Run the tests and the benchmark that need a CUDA device, in minutes
	$(BIN)/python -c "import torch; assert torch.cuda.is_available(), 'there is no CUDA device'"
	$(BIN)/python -m pytest -m gpu
	WORKLOAD=gpu QUICK=1 $(BIN)/python -m benchmarks

format: $(VENV)/check.installed ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environments and everything that was made
	rm -rf $(VENV) .compat site demo_output build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra, so that a target installs what it needs and only once.
$(VENV)/%.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@
