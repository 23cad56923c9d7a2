# Everything that people and CI run has a name here. A fresh machine needs make and Python >= 3.11, nothing else: the
# first target that needs it makes .venv, with uv and the exact versions of uv.lock where uv is installed, else with pip.

DATA ?= .shadowq
PORT ?= 9324
# COVERAGE=1 prints branch coverage of the quick tests
COVERAGE ?=
# for instance: make test ARGS="-k failover"
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
BENCH_BIN := .venv-bench/bin
BENCH_READY := .venv-bench/.ready
PYTHON ?= $(firstword $(foreach python,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(python) -c 'import sys; sys.version_info >= (3, 11) and print("$(python)")' 2>/dev/null)) no-python)

.PHONY: help up down status sim test test-quick test-cluster test-clients test-terraform lint format bench bench-quick bench-smoke bench-failover bench-placement clean

help:
	@echo "make up        start etcd and three regions here; Ctrl-C stops them (DATA=.shadowq PORT=9324)"
	@echo "make down      stop one that was started with: .venv/bin/shadowq up --detach"
	@echo "make status    show processes and queues"
	@echo "make test      all tests (COVERAGE=1, ARGS=...): test-quick in one process, test-cluster with real clusters"
	@echo "               test-clients with other people's SQS clients, from PyPI and npm"
	@echo "make sim       simulated clusters under faults, seed after seed (MINUTES=10 JOBS=2, or ARGS='--seeds 1-10000')"
	@echo "make test-terraform   Terraform's AWS provider, where there is one; takes minutes"
	@echo "make lint      ruff, mypy --strict, import-linter, terraform fmt"
	@echo "make format    let ruff and terraform put things in order"
	@echo "make bench-failover   the time without successful operations at failover (ARGS='--blows 5')"
	@echo "make bench-placement  sets of replicas by the ack latency that clients measure, regions being apart"
	@echo "make bench     beside NATS, RabbitMQ, moto and the floors, an hour; bench-quick: 3 minutes; bench-smoke: it works"
	@echo "make clean     remove .venv and what tools leave behind; data directories stay"

up: $(READY)
	@exec $(BIN)/shadowq up --data $(DATA) --port $(PORT)

down: $(READY)
	@$(BIN)/shadowq down --data $(DATA)

status: $(READY)
	@$(BIN)/shadowq status --data $(DATA)

test: test-quick test-cluster test-clients

test-quick: $(READY)
	$(BIN)/pytest -n 2 -m "not cluster and not clients and not terraform" $(if $(COVERAGE),--cov --cov-report=term:skip-covered) $(ARGS)

# a failing seed says how it is replayed; docs/simulation.md
MINUTES ?= 10
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
sim: $(READY)
	$(BIN)/python -m tests.simulation --jobs $(JOBS) $(if $(ARGS),$(ARGS),--minutes $(MINUTES) --start $$(date +%s))

# one after the other: each of them starts many processes, and what they look at is time
test-cluster: $(READY)
	$(BIN)/pytest -m cluster --durations=12 $(ARGS)

# what they need is installed once, into .pytest_cache; without a registry in reach they are skipped
test-clients: $(READY)
	$(BIN)/pytest -m clients -rs tests/conformance/clients $(ARGS)

# not part of test, for it takes minutes; skipped without Terraform's AWS provider on this machine
test-terraform: $(READY)
	$(BIN)/pytest -m terraform -rs tests/conformance/clients $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v terraform >/dev/null; then terraform fmt -check -recursive terraform; else echo "terraform: absent"; fi
	@if command -v uv >/dev/null; then uv lock --check; else echo "uv: absent, uv.lock not checked"; fi

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if command -v terraform >/dev/null; then terraform fmt -recursive terraform; fi

# how long clients go without a successful operation when an owner or a primary dies or freezes; some 6 minutes
bench-failover: $(READY)
	$(BIN)/python benchmarks/failover.py $(ARGS)

# five regions behind a relay: whether queues are put where their clients wait least; some 5 minutes
bench-placement: $(READY)
	$(BIN)/python -m benchmarks.placement $(ARGS)

# RabbitMQ and wrk are Debian's, installed where that is possible; the rest is in an environment of its own, so that
# `make test` keeps its. What cannot be had is reported as absent.
bench: $(BENCH_READY)
	$(BENCH_BIN)/python -m benchmarks.compare $(ARGS)
	$(BENCH_BIN)/python -m benchmarks.delayed
	$(BENCH_BIN)/python -m benchmarks.queues
	$(BENCH_BIN)/python -m benchmarks.depth

bench-quick: $(BENCH_READY)
	$(BENCH_BIN)/python -m benchmarks.compare --quick $(ARGS)

bench-smoke: $(BENCH_READY)
	$(BENCH_BIN)/python -m benchmarks.compare --smoke
	$(BENCH_BIN)/python -m benchmarks.delayed --rounds 1 --seconds 0.1
	$(BENCH_BIN)/python -m benchmarks.queues --queues 20 --operations 64
	$(BENCH_BIN)/python -m benchmarks.depth --messages 2000 --operations 64

clean:
	rm -rf .venv .venv-bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BENCH_READY): pyproject.toml uv.lock
	@if command -v uv >/dev/null; then \
		UV_PROJECT_ENVIRONMENT=.venv-bench uv sync --no-default-groups --group bench; \
	else \
		{ [ -x $(BENCH_BIN)/python ] || $(PYTHON) -m venv .venv-bench; } && \
		$(BENCH_BIN)/python -m pip install --quiet --upgrade "pip>=25.1" && \
		$(BENCH_BIN)/python -m pip install --quiet --editable . --group bench; \
	fi
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! { [ -d /usr/lib/rabbitmq ] && command -v wrk >/dev/null; }; then \
		apt-get install --yes --quiet --no-install-recommends rabbitmq-server wrk || echo "RabbitMQ, wrk: not installed"; \
	fi
	@touch $@

$(READY): pyproject.toml uv.lock
	@if command -v uv >/dev/null; then \
		echo "installing into .venv with uv"; uv sync --extra local; \
	elif [ "$(PYTHON)" = no-python ]; then \
		echo "Python 3.11 or newer is needed: install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	else \
		echo "installing into .venv with pip"; \
		{ [ -x $(BIN)/python ] || $(PYTHON) -m venv .venv; } && \
		$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" && \
		$(BIN)/python -m pip install --quiet --editable ".[local]" --group dev; \
	fi
	@touch $@
