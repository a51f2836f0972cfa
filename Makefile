# Two commands matter: `make bench` runs the main job on a real model, `make test` passes the tests.
# Each sets up what it needs the first time and nothing later.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
MODEL  ?= qwen2.5-coder-0.5b
LIMIT  ?= 20

.PHONY: help bench test check lint format types layers docs system clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[bench]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.bench

bench: $(VENV)/.bench ## run the main job on a real model, plain against green: table and page
	$(BIN)/lichen bench --model $(MODEL) --green --task humaneval --limit $(LIMIT)

test: $(VENV)/.dev ## run all tests
	$(BIN)/python -m pytest

check: lint types layers docs test ## everything CI runs

lint: $(VENV)/.dev ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## mypy strict
	$(BIN)/mypy

layers: $(VENV)/.dev ## import contracts
	$(BIN)/lint-imports

docs: $(VENV)/.dev ## is the generated reference up to date?
	$(BIN)/python docs/generate.py --check

system: ## Debian packages for the tests that need a browser, a database server, a sandbox
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	  bubblewrap chromium chromium-driver postgresql valgrind

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
