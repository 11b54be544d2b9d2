# The developer interface. Standard output belongs to the commands: pip and venv write to standard error.
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
BIN := .venv/bin
ARGS ?=
SEEDS ?= 200
FIRST ?= 1

.PHONY: demo test lint format bench bench-stages latency scale reaction takeover chaos simulate-faults validity clean help

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile

demo: .venv/.installed ## Replay a real sample through an embedded broker, the worker and ClickHouse
	@$(BIN)/liftstream demo $(ARGS)

test: lint ## Lint, types, layers, and every test, with a real Kafka, ClickHouse and S3 server where they can be had
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/.installed ## Ruff, mypy, import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/.installed ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-stages: .venv/.installed ## CPU per event of each stage of the worker, next to its budget
	@$(BIN)/pytest benchmarks/stages/bench_stages.py -q --benchmark-columns=min,median,max,rounds $(ARGS)

bench: .venv/.installed ## Events per second through Kafka, worker and ClickHouse, with the result checked
	@$(BIN)/python -m benchmarks $(ARGS)

latency: .venv/.installed ## Seconds from an event to ClickHouse at 20,000 events a second, next to the budgets
	@$(BIN)/python -m benchmarks.latency $(ARGS)

scale: .venv/.installed ## CPU per event, memory, pauses and restores from 0.1 to 10 million users; needs 12 GB
	@$(BIN)/python -m benchmarks.scale $(ARGS)

takeover: .venv/.installed ## Seconds until partitions go on when workers die, freeze, stop, return, come and go
	@$(BIN)/python -m benchmarks.takeover $(ARGS)

reaction: .venv/.installed ## Seconds from the record that breaks a guardrail to its decision, on real services
	@$(BIN)/python -m benchmarks.reaction $(ARGS)

simulate-faults: .venv/.installed ## SEEDS=1000 FIRST=1: the whole worker under every fault of docs/faults.md, against the oracle
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) $(ARGS)

chaos: .venv/.installed ## ARGS="--minutes 10 --seed 7": real workers, Kafka and ClickHouse, all broken, against the oracle
	@$(BIN)/python -m tests.chaos $(ARGS)

validity: .venv/.installed ## False alarms, coverage and power of the intervals, into docs/validity.md
	@$(BIN)/python -m benchmarks.validity $(ARGS)

clean: ## Remove everything that was made
	@rm -rf .venv .services .demo build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Anew whenever pyproject.toml changes. PYTHON=... chooses the interpreter.
.venv/.installed: pyproject.toml
	@set -e; exec >&2; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	done; \
	test -n "$$python" || { echo "liftstream needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python."; exit 1; }; \
	test -x $(BIN)/python || "$$python" -m venv .venv || { rm -rf .venv; \
	    echo "Python cannot make a virtual environment: install its venv module (Debian: apt install python3-venv)."; exit 1; }; \
	echo "Installing liftstream and what it needs into .venv (once, about a minute)."; \
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[local,test]'; \
	touch $@
