# VENV: the environment's folder (default: .venv, or an active environment in which MMDetection works).
# PYTHON: the Python to set it up from; if MMDetection works in that Python, it is used as it is.
VENV ?=
PYTHON ?=
ARGS ?=

SETUP = bash tools/setup_env.sh $(if $(VENV),--venv "$(VENV)") $(if $(PYTHON),--python "$(PYTHON)")
# Threads of several processes spin against each other on few cores.
THREADS = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} MKL_NUM_THREADS=$${MKL_NUM_THREADS:-2}

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format benchmarks clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: ## set up the environment in which the package trains
	@$(SETUP)

demo: ## generate data, train the contrastive RetinaNet on it, evaluate and draw
	@python="$$($(SETUP))" && PYTHON="$$python" bash tools/demo.sh $(ARGS)

test: ## run the tests; ARGS goes to pytest
	@python="$$($(SETUP) --dev)" && $(THREADS) "$$python" -m pytest $(ARGS)

test-slow: ## run the slow tests as well
	@python="$$($(SETUP) --dev)" && $(THREADS) "$$python" -m pytest -m "slow or not slow" $(ARGS)

lint: ## check style and format
	@python="$$($(SETUP) --dev)" && "$$python" -m ruff check . && "$$python" -m ruff format --check .

format: ## format the code
	@python="$$($(SETUP) --dev)" && "$$python" -m ruff check --fix . && "$$python" -m ruff format .

benchmarks: ## measure speed and memory; each script prints ours, theirs and the ratio
	@python="$$($(SETUP) --dev)" && for script in benchmarks/[a-z]*.py; do \
	  echo "== $$script"; "$$python" "$$script" || exit 1; done

clean: ## remove what was built; environments and work_dirs stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
