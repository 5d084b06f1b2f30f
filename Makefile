# What you do with a checkout. Every target makes its environment, .venv, first; `make` alone lists them.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
# Arguments for the tool that a target runs: make test ARGS="tests/compiler -k shapes"
ARGS ?=
# How many processes share the tests: one more than there are cores, since tests wait for part of their time. A debugger (--pdb)
# needs JOBS=0.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
SHARED := -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test check format reference docs bench test-kafka crash oracle coverage lock package release clean always

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'PYTHON=/path/to/python chooses the interpreter (CPython 3.11 to 3.13), ARGS="..." goes to the tool that is run.'

demo: $(READY) ## a flow on an in-process broker, shown as it runs
	$(BIN)/loom demo $(ARGS)

test: $(READY) ## all tests that need nothing but Python
	$(PYTEST) $(SHARED) -m "not kafka and not crash" $(ARGS)

check: $(READY) ## lint, format, types, layers and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_private_imports.py

format: $(READY) ## fix what `make check` reports, where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(READY) ## write docs/reference/ and tests/public_api.txt from the source
	$(BIN)/python scripts/make_reference.py

docs: $(READY) ## build the documentation site into build/site
	$(BIN)/python scripts/make_site.py

bench: $(READY) ## the benchmarks
	$(BIN)/python -m bench $(ARGS)

test-kafka: $(READY) ## the tests that start a real Apache Kafka (needs java 17 and mvn)
	$(PYTEST) $(SHARED) -m "kafka and not crash" $(ARGS)

crash: $(READY) ## every fault under every guarantee: what has no result yet (hours; stop and resume it as you like)
	$(PYTEST) -m crash $(ARGS)

oracle: $(READY) ## thousands of generated flows against an interpreter (tens of minutes)
	LOOM_ORACLE=$${LOOM_ORACLE:-nightly} $(PYTEST) $(SHARED) tests/streaming/runtime/stages/oracle $(ARGS)

coverage: $(READY) ## `make test` with a report of the lines it did not reach
	$(PYTEST) $(SHARED) -m "not kafka and not crash" --cov --cov-report=term-missing $(ARGS)

lock: ## resolve requirements/dev.txt again (needs python3.11, 3.12 and 3.13)
	scripts/lock.sh

package: $(READY) ## build wheel, sdist and bill of materials into dist/ and check them
	$(BIN)/python scripts/release.py --package

release: $(READY) ## check, build, cut the changelog; stops before publishing
	$(BIN)/python scripts/release.py

clean: ## remove the environment and what was generated, but the broker's jars (.cache)
	rm -rf $(VENV) .venv-newer .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# An interpreter that is named explicitly may differ from the one in .venv, which no timestamp tells.
$(READY): requirements/dev.txt pyproject.toml scripts/make-venv.sh $(if $(PYTHON),always)
	@PYTHON="$(PYTHON)" scripts/make-venv.sh $(VENV)
