# Two commands do it all: `make repro` runs the pipeline, `make test` the tests. Both make .venv first.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help repro test check leaderboard compare doctor ui recipes bench bench-scale lock clean

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

# uv where it is found, else brought into the new environment by pip; exact versions with hashes, compiled once
$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "error: $(PYTHON) is not Python 3.11 to 3.13; run make with PYTHON=python3.12, say"; exit 1; }
	@rm -rf $(VENV)
	@if command -v uv >/dev/null; then uv venv -q --python "$$(command -v $(PYTHON))" $(VENV); \
		else $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q uv; fi
	VIRTUAL_ENV=$(VENV) uv pip install --compile-bytecode --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) uv pip install --no-deps -e .
	@pulmo setup
	@touch $@

repro: $(VENV)/installed  ## Run the pipeline (dvc repro) and show what came out
	dvc repro
	@pulmo summary

test: $(VENV)/installed  ## Run every test
	pytest -n auto --dist worksteal

check: $(VENV)/installed  ## Format, lint, types and the fast tests: for you, the hook and CI
	ruff format --check .
	ruff check .
	mypy
	pytest -n auto --dist worksteal -m "not slow and not network"

leaderboard: $(VENV)/installed  ## Compare the experiments, best first on validation
	@pulmo experiments

compare: $(VENV)/installed  ## The same by DVC alone, in a table that 120 columns hold: what differs, without hashes
	@dvc exp show --no-pager --only-changed --sort-by val.auroc --sort-order desc \
		--drop '(data|models|reports|src|stages)/|Created|val.auroc_|test.(acc|sens|spec|f1)'

doctor: $(VENV)/installed  ## Look for what keeps this checkout from working, with the cures
	@pulmo doctor

ui: $(VENV)/installed  ## Browse the runs in MLflow; prints the address of their table
	@pulmo ui

recipes: $(VENV)/installed  ## Run every recipe and print the leaderboard; for real films: make recipes SET=data.source=kaggle
	pulmo recipe run $(addprefix -S ,$(SET))

bench: $(VENV)/installed  ## Run the benchmarks, but for fuzzing, scale, probes and quality; each prints ratios measured in one run
	@for file in $(filter-out bench/fuzz%.py bench/scale.py bench/probes.py bench/quality.py,$(wildcard bench/[a-z]*.py)); do echo "== $$file"; python $$file || exit 1; done

FILMS ?= 100000

bench-scale: $(VENV)/installed  ## Seconds and memory for ever more films, up to FILMS (100,000)
	FILMS=$(FILMS) python bench/scale.py --plot docs/scale-films.svg

lock:  ## Resolve requirements.lock anew
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -o requirements.lock

# Not data and models whole: films and weights of your own may lie there
OUTPUTS := data/raw data/processed data/source.json data/films.csv data/splits.csv models/trained models/package

clean:  ## Remove what the pipeline wrote, but not the environment nor the run history
	rm -rf $(OUTPUTS) dvc_plots .resume .cache
	git clean -qfdX reports
