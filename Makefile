# `make help` lists the targets. The virtual environment is made once, from the locks, and made anew only when one of
# them changes.
SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.installed
CONFIG ?= configs/digits.yaml
ARGS ?=
SIZE ?= full
# A process for each core, up to four: a whole run takes 2 GB. `make test SIDE_BY_SIDE=` runs one test after another.
SIDE_BY_SIDE ?= -n logical --maxprocesses 4 --dist loadfile
PY_FILES := schema runtime images components trainer pipeline serving bench tests setup.py
# Any Python 3.10: pyenv's own shim answers only for versions it was told about, so ask for the version file's.
PYTHON ?= $(shell for p in python3.10 "$$HOME"/.pyenv/versions/3.10.*/bin/python3.10 \
	"$$(uv python find 3.10 2>/dev/null)"; do "$$p" -c 'import sys,venv,ensurepip; assert sys.version_info[:2]==(3,10)' \
	2>/dev/null && command -v "$$p" && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup run serve test test-cluster test-image test-faults bench bench-serving check format lock wheel image clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv from the locks (a minute; 3 GB)

$(STAMP): requirements.lock requirements-dev.lock requirements-uv.lock
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.10 with venv is needed and was not found: TFX 1.16 installs on no other." >&2; \
	echo "Get it by one of:  uv python install 3.10  |  pyenv install 3.10  |  apt install python3.10-venv (Ubuntu 22.04)" >&2; \
	echo "or name it:  make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.10" >&2; exit 1; fi
	@echo "setting up $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@$(VENV)/bin/uv pip sync --quiet --compile-bytecode --python $(VENV)/bin/python --require-hashes requirements-uv.lock \
	requirements.lock requirements-dev.lock
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP) ## run the whole pipeline (CONFIG=configs/digits.yaml ARGS="--set trainer.epochs=5")
	@$(VENV)/bin/autoencoder run $(CONFIG) $(ARGS)

serve: $(STAMP) ## serve the model that was pushed last (REST 8501, gRPC 8500)
	@$(VENV)/bin/autoencoder serve $(ARGS)

test: $(STAMP) ## lint, types and every test that needs no special machine
	@$(MAKE) --no-print-directory lint
	@$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-cluster: $(STAMP) ## the whole pipeline on a Flink and a Spark cluster of its own (20 minutes; Java, Maven)
	@$(VENV)/bin/python -m pytest -m cluster tests/cluster $(ARGS)

test-image: $(STAMP) ## the Dockerfile's steps and the pipeline in what they make, without an engine (as root)
	@$(VENV)/bin/python -m pytest -m image tests/image/test_image_walk.py $(ARGS)

test-faults: $(STAMP) ## runs that are killed, starved, locked out and fed bad models: fault x component x outcome (minutes)
	@$(VENV)/bin/python -m pytest -m faults tests/faults $(ARGS)

.PHONY: mutation
mutation: $(STAMP) ## change the arithmetic in a thousand small ways; a change that no test sees is printed (an hour)
	@export TF_USE_LEGACY_KERAS=1 TF_CPP_MIN_LOG_LEVEL=2; $(VENV)/bin/mutmut run --max-children 2 $(ARGS) && $(VENV)/bin/mutmut results

bench: $(STAMP) ## hold every claim about speed against its reference (SIZE=small for minutes; ARGS="--json bench.json")
	@$(VENV)/bin/python -m bench --size $(SIZE) $(ARGS)

bench-serving: $(STAMP) ## the same for serving alone
	@$(VENV)/bin/python -m bench serving --size $(SIZE) $(ARGS)

check: $(STAMP) ## format check, lint, types and the quick tests (three minutes on two cores)
	@$(MAKE) --no-print-directory lint
	@$(VENV)/bin/python -m pytest -q -m "not slow" $(SIDE_BY_SIDE) $(ARGS)

.PHONY: lint
lint: $(STAMP)
	@$(VENV)/bin/ruff format --check $(PY_FILES)
	@$(VENV)/bin/ruff check $(PY_FILES)
	@$(VENV)/bin/mypy

format: $(STAMP) ## format the code and sort the imports
	@$(VENV)/bin/ruff check --fix $(PY_FILES)
	@$(VENV)/bin/ruff format $(PY_FILES)

LOCK = $(VENV)/bin/uv pip compile --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --quiet

lock: $(STAMP) ## resolve setup.py, requirements-dev.in and constraints.in anew into the locks
	@$(LOCK) setup.py --all-extras --constraint constraints.in --output-file requirements.lock
	@$(LOCK) requirements-dev.in --constraint requirements.lock --output-file requirements-dev.lock

wheel: $(STAMP) ## build dist/*.whl from the last commit; the same commit gives the same bytes
	@deploy/build-wheel.sh dist $(VENV)/bin/python

image: ## build the pods' images, CPU and GPU, by docker or podman (REGISTRY=... TARGETS=cpu)
	@TARGETS="$(or $(TARGETS),cpu gpu)" deploy/build-image.sh $(REGISTRY)

clean: ## remove the virtual environment and caches (runs/ stays)
	rm -rf $(VENV) mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
