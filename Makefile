# `make help` lists the targets. The virtual environment is created from the locks, and updated when one of them changes.
SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.installed
CONFIG ?= configs/digits.yaml
ARGS ?=
SIZE ?= full
# One process per core, at most four: a whole run takes 2 GB. `make test SIDE_BY_SIDE=` runs one test after another.
SIDE_BY_SIDE ?= -n logical --maxprocesses 4 --dist loadfile
# The commit that `make quick` compares the working tree with.
BASE ?= HEAD
PY_FILES := schema runtime images components trainer pipeline serving bench tests docs setup.py
# Any Python 3.10. pyenv's shim works only for the versions selected in pyenv, so look into its versions too.
PYTHON ?= $(shell for p in python3.10 "$$HOME"/.pyenv/versions/3.10.*/bin/python3.10 \
	"$$(uv python find 3.10 2>/dev/null)"; do "$$p" -c 'import sys,venv,ensurepip; assert sys.version_info[:2]==(3,10)' \
	2>/dev/null && command -v "$$p" && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup run serve quick check test test-cluster test-image test-kubernetes test-faults test-corpus mutation bench \
	bench-serving bench-detection lint format docs hooks lock wheel image clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv from the locks (a minute; 3 GB)

$(STAMP): requirements.lock requirements-dev.lock requirements-uv.lock
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.10 with venv was not found; TFX 1.16 supports no other version." >&2; \
	echo "Install it:  uv python install 3.10  |  pyenv install 3.10  |  apt install python3.10-venv (Ubuntu 22.04)" >&2; \
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

serve: $(STAMP) ## serve the latest pushed model (REST 8501, gRPC 8500)
	@$(VENV)/bin/autoencoder serve $(ARGS)

quick: $(STAMP) ## format check, lint, types and the tests that your changes affect (BASE=HEAD; under a minute)
	@$(MAKE) --no-print-directory lint
	@tests="$$($(VENV)/bin/python tests/support/affected_tests.py $(BASE))" && echo "tests: $${tests:-none, nothing changed since $(BASE)}" && \
	if [ -n "$$tests" ]; then $(VENV)/bin/python -m pytest -m "not slow" $(SIDE_BY_SIDE) $(ARGS) $$tests; fi

check: $(STAMP) ## format check, lint, types and all quick tests (three minutes on two cores)
	@$(MAKE) --no-print-directory lint
	@$(VENV)/bin/python -m pytest -m "not slow" $(SIDE_BY_SIDE) $(ARGS)

test: $(STAMP) ## format check, lint, types and every test that needs no special machine (ten minutes)
	@$(MAKE) --no-print-directory lint
	@$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-cluster: $(STAMP) ## run the whole pipeline on a Flink and a Spark cluster that it starts (20 minutes; Java, Maven)
	@$(VENV)/bin/python -m pytest -m cluster tests/cluster $(ARGS)

test-image: $(STAMP) ## follow the Dockerfile without a container engine, and run the pipeline in the result (as root)
	@$(VENV)/bin/python -m pytest -m image tests/image/test_image_walk.py $(ARGS)

test-kubernetes: $(STAMP) ## run manifests and images on a real Kubernetes that it builds (11 minutes; Debian 12, root, Go)
	@$(VENV)/bin/python -m pytest -s -m kubernetes tests/kubernetes $(ARGS)

test-faults: $(STAMP) ## kill, starve and lock out real runs, feed them bad models, and print the outcomes (minutes)
	@$(VENV)/bin/python -m pytest -m faults tests/faults $(ARGS)

test-corpus: $(STAMP) ## compare a folder of images through ingestion, score, REST and gRPC with Pillow (FOLDER=...)
	@PYTHONPATH=.:tests/support $(VENV)/bin/python tests/support/image_corpus.py $(FOLDER)

mutation: $(STAMP) ## change the arithmetic in a thousand small ways, and print what no test notices (an hour)
	@export TF_USE_LEGACY_KERAS=1 TF_CPP_MIN_LOG_LEVEL=2; $(VENV)/bin/mutmut run --max-children 2 $(ARGS) && $(VENV)/bin/mutmut results

bench: $(STAMP) ## compare every claim about speed with its reference (SIZE=small for minutes; ARGS="--json bench.json")
	@$(VENV)/bin/python -m bench --size $(SIZE) $(ARGS)

bench-serving: $(STAMP) ## the same for serving alone
	@$(VENV)/bin/python -m bench serving --size $(SIZE) $(ARGS)

bench-detection: $(STAMP) ## compare how well defects are found with PCA, PaDiM, PatchCore (DATA=FOLDER; ARGS="--families all")
	@$(VENV)/bin/python -m bench.detection $(if $(DATA),--data "$(DATA)") $(ARGS)

lint: $(STAMP) ## format check, lint and types
	@$(VENV)/bin/ruff format --check $(PY_FILES)
	@$(VENV)/bin/ruff check $(PY_FILES)
	@$(VENV)/bin/mypy

format: $(STAMP) ## format the code and sort the imports
	@$(VENV)/bin/ruff check --fix $(PY_FILES)
	@$(VENV)/bin/ruff format $(PY_FILES)

docs: $(STAMP) ## regenerate docs/configuration.md from the configuration's models
	@$(VENV)/bin/python docs/configuration_page.py

hooks: $(STAMP) ## run make quick before every commit
	@$(VENV)/bin/pre-commit install

LOCK = $(VENV)/bin/uv pip compile --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --quiet

lock: $(STAMP) ## resolve setup.py, requirements-dev.in and constraints.in into the locks
	@$(LOCK) setup.py --all-extras --constraint constraints.in --output-file requirements.lock
	@$(LOCK) requirements-dev.in --constraint requirements.lock --output-file requirements-dev.lock

wheel: $(STAMP) ## build dist/*.whl from the last commit; the same commit gives the same bytes
	@deploy/build-wheel.sh dist $(VENV)/bin/python

image: ## build the container images with docker or podman (REGISTRY=... TARGETS="cpu gpu serving")
	@TARGETS="$(or $(TARGETS),cpu gpu serving)" deploy/build-image.sh $(REGISTRY)

clean: ## remove the virtual environment and caches (runs/ stays)
	rm -rf $(VENV) mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
