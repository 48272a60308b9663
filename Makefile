# `make` alone lists what there is. Every target makes the environment it needs, and makes it only once.

PYTHON ?=
VENV   ?= .venv
ARGS   ?=
JOBS   ?= 2

bin = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test test-all soak bench lock sbom dist clean ready-to-run ready-to-test

help:  ## this list
	@echo "make TARGET [PYTHON=python3.12]     needs Python 3.10 to 3.13; tells what is missing"
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ready-to-run  ## move the sample into the embedded Mixpanel (more options: ARGS="--dry-run")
	@$(bin)/python run_backfill.py --config configs/local.yaml $(ARGS) || { code=$$?; \
	  echo "run_backfill.py ended with exit code $$code; README.md says what each code means." >&2; exit $$code; }

test: ready-to-test  ## lint, type-check and test (another number of tests at a time: JOBS=1)
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)
	@echo "All good on $$($(bin)/python -V): ruff, mypy --strict, pytest"

test-all:  ## the same, on every Python from 3.10 to 3.13 that is found
	@MAKE="$(MAKE)" .ci/test-all

soak: ready-to-test  ## the tests that take minutes
	$(bin)/python -m pytest -m soak $(ARGS)

bench: ready-to-run  ## speed, CPU and memory, against their bars (more options: ARGS="--help")
	@$(bin)/python -m benchmarks.run_benchmark $(ARGS)

lock: ready-to-test  ## write requirements/*.txt anew: newer versions, with their hashes (needs uv)
	@.ci/lock

sbom: ready-to-test  ## list what a release is made of: dist/sbom.json (CycloneDX)
	@mkdir -p dist
	@$(bin)/cyclonedx-py requirements requirements/run.txt --output-reproducible --of JSON -o dist/sbom.json

dist: ready-to-test  ## build wheel and sdist; the same sources make the same bytes
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(bin)/python -m build --no-isolation .

clean:  ## remove what make made; runs and their dead letters stay in .backfill
	rm -rf .venv .venv-3.* build dist *.egg-info .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment to run in has less to install than one to test in.
ready-to-run:
	@.ci/venv $(VENV) . $(PYTHON)

ready-to-test:
	@.ci/venv $(VENV) ".[test]" $(PYTHON)
