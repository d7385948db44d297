# Two commands do everything on a fresh machine: `make demo` and `make test`. Each needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
# Bytecode is compiled at install: Prefect's first start takes half a minute without it.
READY := .venv/.ready

.PHONY: all demo demo-fraud test test-all bench-serve check lock up down clean

all: $(READY)  ## set up, then look the installation over
	$(BIN)/keepfit doctor

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "keepfit needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Say make PYTHON=python3.11.")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	( $(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)" \
	  && $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock \
	  && $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ) \
	|| ( echo "uv did not install; pip goes on." \
	  && $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock \
	  && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . )
	touch $@

demo: $(READY)  ## from nothing to a served model that was retrained because the data moved
	$(BIN)/keepfit demo

demo-fraud: $(READY)  ## weeks of card payments; a new fraud pattern appears, is noticed, learned and caught again with no hand on it
	$(BIN)/keepfit demo fraud

test: $(READY)
	$(BIN)/pytest

test-all: $(READY)
	$(BIN)/pytest -m "slow or not slow"

bench-serve: $(READY)  ## what a prediction costs, against an echo and the model alone; overload, swaps, the log, MLflow's server (wants wrk)
	$(BIN)/pytest -q -s -m slow tests/benchmarks -k "serving or load"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check --python .venv
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/codespell

lock:  ## after a change of pyproject.toml; names no index address
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url \
	  --no-header --output-file requirements.lock pyproject.toml

up: $(READY)
	$(BIN)/keepfit up

down:
	test ! -x $(BIN)/keepfit || $(BIN)/keepfit down

clean: down  ## removes the environment and what tools leave behind; the state in .keepfit stays (keepfit down --wipe removes it)
	rm -rf .venv .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
