# asyncelt: what a developer types. `make` alone lists the targets.
#
# Everything happens in .venv, which is built from pyproject.toml and constraints.txt when one of them has
# changed. Needs python >= 3.11 and a package index; uses uv where it is installed.

.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v $$p; break; }; done)
UV := $(shell command -v uv 2>/dev/null)

ifneq ($(UV),)
  MAKE_VENV = $(UV) venv --quiet --python "$(PYTHON)" $(VENV)
  INSTALL = $(UV) pip install --quiet --python $(BIN)/python -c constraints.txt
else
  MAKE_VENV = "$(PYTHON)" -m venv $(VENV)
  INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
endif

ARGS ?=

# An editable install compiles the extension in place, so it is installed anew when its source has changed.
SOURCES = pyproject.toml constraints.txt $(wildcard asyncelt/normalize/native/*.[ch])

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ------------------------------------------------------------------------------------------ environment
# One stamp per set of dependencies, so that the demo does not wait for the test tools.

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "asyncelt needs Python 3.11 or newer, and none is on the PATH." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi
	@echo "making $(VENV) with $(PYTHON)"
	@$(MAKE_VENV) || { echo "could not make $(VENV): is the venv module of $(PYTHON) installed?" >&2; exit 1; }

$(VENV)/.core: $(SOURCES) | $(BIN)/python
	@echo "installing asyncelt into $(VENV)"
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.test: $(SOURCES) | $(BIN)/python
	@echo "installing asyncelt and its test tools into $(VENV) (a minute or two, once)"
	@$(INSTALL) -e '.[test]'
	@touch $(VENV)/.core $@

$(VENV)/.dev: $(SOURCES) | $(BIN)/python
	@echo "installing asyncelt and all development tools into $(VENV) (a minute or two, once)"
	@$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.core $(VENV)/.test $@

# ---------------------------------------------------------------------------------------------- targets

.PHONY: demo
demo: $(VENV)/.core ## Load the installed distributions into DuckDB; run it twice (ARGS=--reset starts over)
	@$(BIN)/asyncelt demo $(ARGS)

.PHONY: test
test: $(VENV)/.test ## Run the tests (ARGS='-k name', ARGS=--slow, ARGS=--all-loops)
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: test-long
test-long: $(VENV)/.test ## Run the combinations and long forms that CI leaves out, hours (ARGS='-n 2 --dist loadgroup -k merge')
	@$(BIN)/python -m pytest --slow -m 'forms or long' $(ARGS)

.PHONY: kill
kill: $(VENV)/.test ## Kill -9 runs at every failpoint and at random moments, and count every row (ARGS='--times 3 --random 50')
	@$(BIN)/python -m tests.robustness.kill $(ARGS)

.PHONY: kill-streams
kill-streams: $(VENV)/.test ## Kill -9 streams, brokers and servers, and count every message (ARGS='--broker redis --destination postgres')
	@$(BIN)/python -m tests.robustness.streams.kill $(ARGS)

.PHONY: outage
outage: $(VENV)/.test ## Stop PostgreSQL for a minute, then kill it for another, under a stream (ARGS='--broker redis --seconds 60')
	@$(BIN)/python -m tests.robustness.streams.outage $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.test ## Compare thousands of random documents with the reference, half an hour (ARGS='-n 2 -k documents')
	@$(BIN)/python -m pytest -m fuzz --slow --hypothesis-profile fuzz $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## Check style and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.dev ## Format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: types
types: $(VENV)/.dev ## Run both type checkers
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: docs
docs: $(VENV)/.dev ## Build the site into site/, strictly and without a network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

.PHONY: coverage-table
coverage-table: $(VENV)/.test ## Write docs/coverage.md from the marks on the tests
	@$(BIN)/python -m tests.coverage.table

.PHONY: bench
bench: $(VENV)/.test ## Compare speed with the reference, quick form (benchmarks/README.md has the rest)
	@$(BIN)/python -m benchmarks $(if $(ARGS),$(ARGS),--quick)

.PHONY: build
build: $(VENV)/.dev ## Build sdist and wheel into dist/ and look inside
	@rm -rf build dist
	@$(BIN)/python -m build --quiet --outdir dist .
	@$(BIN)/check-wheel-contents dist/*.whl

.PHONY: clean
clean: ## Remove the environment and everything that was built
	@rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
