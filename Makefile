# Every task of the project. `make` alone lists them; ARGS goes through to the command: make demo ARGS="--workers 2"

SHELL := /bin/sh
.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
SOURCES := stream models trainer tests k8s
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif

# What to leave to HRNN_TORCH_INDEX of the lock: torch and what its wheels on PyPI bring along.
TORCH_PACKAGES := ^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z]*)==

.PHONY: help
help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP) ## Make .venv with everything in it (HRNN_TORCH_INDEX: another wheel index for torch)

$(STAMP): requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory check-tools
	@echo "installing into $(VENV), some 2 minutes: torch from PyPI brings 5 GB (see HRNN_TORCH_INDEX)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@set -e; test -t 1 && quiet= || quiet=--quiet; pip="$(BIN)/python -m pip --disable-pip-version-check $$quiet"; \
	if [ -n "$$HRNN_TORCH_INDEX" ]; then \
		version=$$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' requirements.lock); \
		awk '/^[^ ]/{out = ($$0 ~ /$(TORCH_PACKAGES)/)} !out' requirements.lock > $(VENV)/without-torch.lock; \
		$$pip install --require-hashes -r $(VENV)/without-torch.lock; \
		$$pip install --index-url "$$HRNN_TORCH_INDEX" "torch>=2.10,<=$$version"; \
	else \
		$$pip install --require-hashes -r requirements.lock; \
	fi; \
	$$pip install --no-deps --no-build-isolation -e .
	@touch $@

# Java and Maven are for the Kafka that demo and tests start; with HRNN_KAFKA_BOOTSTRAP set they start none.
.PHONY: check-tools
check-tools:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is missing: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) can't make virtual environments: apt-get install python3-venv"; exit 1; }
	@test -n "$$HRNN_KAFKA_BOOTSTRAP" || command -v "$${JAVA_HOME:+$$JAVA_HOME/bin/}java" >/dev/null || \
		{ echo "Java 17 or newer is missing: apt-get install openjdk-17-jdk-headless"; exit 1; }
	@test -n "$$HRNN_KAFKA_BOOTSTRAP" || command -v mvn >/dev/null || \
		{ echo "Maven is missing: apt-get install maven"; exit 1; }

.PHONY: demo
demo: install ## Real events through real Kafka, on this machine, in 4 minutes
	@$(BIN)/hrnn demo $(ARGS)

.PHONY: test
test: lint types unit integration system ## All checks and tests

.PHONY: unit
unit: install ## Tests of single parts, without a broker
	$(BIN)/python -m pytest tests/unit -n 2 --dist loadfile $(ARGS)

.PHONY: integration
integration: install ## Tests of the parts that talk to Kafka
	$(BIN)/python -m pytest tests/integration -n 2 --dist loadfile $(ARGS)

.PHONY: system
system: install ## Tests of whole processes and their faults, 60 s of chaos among them
	$(BIN)/python -m pytest tests/system $(ARGS)

.PHONY: lint
lint: install ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: install ## Put style right where a machine can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: install ## Check types
	$(BIN)/mypy

.PHONY: dashboards
dashboards: install ## Write Grafana's dashboards, docker/grafana/dashboards/*.json, from their code
	$(BIN)/python docker/grafana/dashboards.py

.PHONY: chaos
chaos: install ## Workers killed, stopped and paused under load, then every state and list checked
	@$(BIN)/python -m tests.system.chaos $(ARGS)

.PHONY: faults
faults: install ## Every fault by name, brokers and stores too, each followed by the same check (ARGS: --only NAME)
	@$(BIN)/python -m tests.system.faults $(ARGS)

.PHONY: bench
bench: install ## A backlog drained by one worker, beside plain Faust agents
	@$(BIN)/python -m tests.benchmarks.throughput $(ARGS)

.PHONY: bench-training
bench-training: install ## Events a second through a fit, beside the machine's own matrix products
	@$(BIN)/python -m tests.benchmarks.training $(ARGS)

.PHONY: lock
lock: ## Pin every dependency anew, with hashes (uv in a throw-away environment)
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder"; "$$folder/bin/pip" install --quiet --disable-pip-version-check uv; \
	printf 'hatchling\neditables\n' > "$$folder/build.in"; \
	"$$folder/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev \
		--generate-hashes --no-annotate --no-header --no-emit-index-url \
		--output-file requirements.lock pyproject.toml "$$folder/build.in"; \
	printf 'hatchling\n' > "$$folder/build.in"; \
	compile="$$folder/bin/uv pip compile --quiet --universal --python-version 3.11 --constraint requirements.lock \
		--generate-hashes --no-annotate --no-header --no-emit-index-url"; \
	$$compile --output-file docker/requirements.lock pyproject.toml; \
	$$compile --output-file docker/build.lock "$$folder/build.in"

# After a change of topics, settings, rules, dashboards or of the manifests themselves; look at what git then shows.
.PHONY: manifests
manifests: install ## Write the manifests that follow from the code, and the golden files of all overlays
	$(BIN)/python -m k8s.manifests
	$(BIN)/python -m tests.unit.deploy.rendering

.PHONY: clean
clean: ## Remove what the tasks made here; Kafka's jars stay in ~/.cache/hrnn-stream
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info hrnn-data
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
