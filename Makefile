# `make help` lists the targets. The virtual environment is created from the locks, and updated when one of them changes.
SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.installed
CONFIG ?= configs/digits.yaml
ARGS ?=
JSON ?= bench.json
SIZE ?= full
# One process per core, at most four: a whole run takes 2 GB. `make test SIDE_BY_SIDE=` runs one test after another.
SIDE_BY_SIDE ?= -n logical --maxprocesses 4 --dist loadfile
# The commit that `make quick` compares the working tree with.
BASE ?= HEAD
PY_FILES := schema runtime images components trainer pipeline serving bench tests docs setup.py
# deploy/choose-python.sh finds one, and the TFX that installs on it.
PYTHON ?=

.DEFAULT_GOAL := help
.PHONY: help setup run serve quick check test test-next test-cluster test-image test-kubernetes test-faults test-corpus mutation bench \
	bench-report bench-serving bench-detection lint format docs hooks lock wheel image clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv from the locks (a minute; 4 GB)

$(STAMP): $(wildcard requirements*.lock)
	@deploy/set-up.sh $(VENV) $(PYTHON)
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

test: $(STAMP) ## format check, lint, types and every test that needs no special machine (a quarter of an hour)
	@$(MAKE) --no-print-directory lint
	@$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-next: $(STAMP) ## where TFX 1.21 does not install: test on it with Debian 13's C library (minutes; 4 GB)
	@tests/next/run.sh $(SIDE_BY_SIDE) $(ARGS)

test-cluster: $(STAMP) ## run the whole pipeline on a Flink and a Spark cluster that it starts (20 minutes; Java, Maven)
	@$(VENV)/bin/python -m pytest -m cluster tests/cluster $(ARGS)

test-image: $(STAMP) ## follow the Dockerfile without a container engine, and run the pipeline in the result (as root)
	@$(VENV)/bin/python -m pytest -m image tests/image/test_image_walk.py $(ARGS)

test-kubernetes: $(STAMP) ## run manifests and images on a real Kubernetes that it builds (20 minutes; Debian 12, root, Go)
	@$(VENV)/bin/python -m pytest -s -m kubernetes tests/kubernetes $(ARGS)

test-faults: $(STAMP) ## kill, starve and lock out real runs, feed them bad models, and print the outcomes (minutes)
	@$(VENV)/bin/python -m pytest -m faults tests/faults $(ARGS)

test-corpus: $(STAMP) ## compare a folder of images through ingestion, score, REST and gRPC with Pillow (FOLDER=...)
	@PYTHONPATH=.:tests/support $(VENV)/bin/python tests/support/image_corpus.py $(FOLDER)

mutation: $(STAMP) ## change the arithmetic in a thousand small ways, and print what no test notices (an hour)
	@export TF_USE_LEGACY_KERAS=1 TF_CPP_MIN_LOG_LEVEL=2; $(VENV)/bin/mutmut run --max-children 2 $(ARGS) && $(VENV)/bin/mutmut results

bench: $(STAMP) ## compare every claim about speed with its reference (SIZE=small or tiny; ARGS="--json bench.json")
	@$(VENV)/bin/python -m bench --size $(SIZE) $(ARGS)

bench-report: $(STAMP) ## record the results in JSON (bench.json) in docs/performance.md: its table and its plot
	@$(VENV)/bin/python -m bench.recorded $(JSON)

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
# One lock for all Pythons of TFX 1.21; pyfarmhash would otherwise be built from source.
UNIVERSAL = --universal --python-version 3.11 --override overrides.in

lock: $(STAMP) ## resolve setup.py, requirements-dev.in and the constraints into the locks of both versions of TFX
	@$(LOCK) setup.py --all-extras --constraint constraints.in $(UNIVERSAL) --output-file requirements.lock
	@$(LOCK) requirements-dev.in --constraint requirements.lock $(UNIVERSAL) --output-file requirements-dev.lock
	@$(LOCK) setup.py --all-extras --constraint constraints-tfx1.16.in --python-version 3.10 --output-file requirements-tfx1.16.lock
	@$(LOCK) requirements-dev.in --constraint requirements-tfx1.16.lock --python-version 3.10 --output-file requirements-tfx1.16-dev.lock

wheel: $(STAMP) ## build dist/*.whl from the last commit; the same commit gives the same bytes
	@deploy/build-wheel.sh dist $(VENV)/bin/python

image: ## build the container images with docker or podman (REGISTRY=... TARGETS="cpu gpu serving")
	@TARGETS="$(or $(TARGETS),cpu gpu serving)" deploy/build-image.sh $(REGISTRY)

clean: ## remove the virtual environment and caches (runs/ stays)
	rm -rf $(VENV) mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
