# fluvial: set-up, demo, tests. Needs Python 3.11 or newer and make; everything else is installed into .venv/ and a user cache.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src producers stream_apps sinks schemas -name '*.py' -o -name '*.avsc' -o -name '*.cql' -o -name '*.lock' -o -name '*.xml' 2>/dev/null)

.PHONY: help install dev demo test check lint types unit integration faults faults-of-servers bench lock proto clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.packages: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "fluvial needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@touch $@

$(VENV)/.wheel: $(VENV)/.packages pyproject.toml $(SOURCES)
	@rm -rf build/wheel build/lib && mkdir -p build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build/wheel/fluvial-*.whl
	@rm -rf build/lib build/bdist.*
	@touch $@

install: $(VENV)/.wheel ## install fluvial's wheel and all it needs into .venv/

dev: $(VENV)/.packages ## install it editable instead, for work on fluvial itself
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.wheel

demo: install ## real servers, real and simulated events, results to look at
	$(BIN)/fluvial demo

test: install ## all tests, on real servers that they start themselves
	$(BIN)/pytest

unit: install ## the tests that need no server
	$(BIN)/pytest -q tests/unit tests/contract

integration: install ## the tests on real servers
	$(BIN)/pytest -q tests/integration tests/faults

faults: install ## every fault of the matrix, seeded trials, a report: TRIALS=20 or MINUTES=60, ROW=4 SEED=17
	$(BIN)/python tests/faults/run.py $(if $(ROW),--row $(ROW)) $(if $(SEED),--seed $(SEED)) $(if $(TRIALS),--trials $(TRIALS)) $(if $(MINUTES),--minutes $(MINUTES))

faults-of-servers: install ## three brokers, three nodes: kills, cuts, clocks, disks (about twenty minutes); SEED=17
	SEED=$(SEED) $(BIN)/pytest -q -s tests/faults/trials_*.py

lint: $(VENV)/.packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.packages
	@mkdir -p build/types/fluvial
	@for f in src/fluvial/*; do ln -sfn "$(CURDIR)/$$f" build/types/fluvial/; done
	@for d in producers stream_apps sinks schemas; do ln -sfn "$(CURDIR)/$$d" build/types/fluvial/; done
	$(BIN)/mypy --config-file pyproject.toml -p fluvial

check: lint types unit ## lint, types and unit tests

bench: install ## fluvial and its peers, measured in one run
	$(BIN)/python tests/bench/run.py

lock: ## resolve requirements.lock anew
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --extra dev --python-version 3.11 --output-file requirements.lock pyproject.toml build-requirements.in

proto: ## make schemas/*_pb2*.py of the .proto files
	mkdir -p build/proto/fluvial/schemas && cp schemas/*.proto build/proto/fluvial/schemas/
	cd build/proto && ../../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. fluvial/schemas/ingest.proto fluvial/schemas/sparkplug.proto
	rm build/proto/fluvial/schemas/sparkplug_pb2_grpc.py
	cp build/proto/fluvial/schemas/*_pb2* schemas/

clean: ## remove what was built (not .fluvial/, not the caches)
	rm -rf build dist $(VENV) *.egg-info
