# VENV: the environment's folder (default: .venv, or an active environment in which MMDetection works).
# PYTHON: the Python to set it up from; if MMDetection works in that Python, it is used as it is.
VENV ?=
PYTHON ?=
# STACK: modern or classic (torch 2.1, numpy 1.26), set up in .venv or .venv-classic.
STACK ?=
ARGS ?=
# TEACHER: whose classes `make distill` adds to: one of configs/distill/shapes20_*.py.
TEACHER ?= shapes20_teacher

SETUP = bash tools/setup_env.sh $(if $(VENV),--venv "$(VENV)") $(if $(PYTHON),--python "$(PYTHON)") \
  $(if $(STACK),--stack "$(STACK)")
# One thread for each process: threads of several processes spin against each other on few cores.
PYTEST = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 "$$python" -m pytest -n auto --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
NOVEL = barred_square slanted_disc scaled_heart argyle_triangle spiral_hexagon bubbled_star \
  crossed_diamond halved_flower mottled_cross quartered_shield
SHAPES20 = data/shapes20/annotations/instances
CODE = mmdet_contrast configs tools projects benchmarks setup.py

.PHONY: help setup demo distill test test-slow lint format docs benchmarks clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: ## set up the environment in which the package trains
	@$(SETUP)

demo: ## generate data, train the contrastive RetinaNet on it, evaluate and draw
	@python="$$($(SETUP))" && PYTHON="$$python" bash tools/demo.sh $(ARGS)

distill: ## add ten classes to a detector in every way that there is; prints the table
	@python="$$($(SETUP))" && \
	"$$python" projects/shapes/make_shapes.py data/shapes20 --num-classes 20 \
	  --train 2500 --new 500 --test 1000 && \
	"$$python" projects/add_classes/run.py configs/distill/$(TEACHER).py \
	  --ann $(SHAPES20)_new.json --img-dir data/shapes20/new --classes $(NOVEL) \
	  --val $(SHAPES20)_test.json --val-img-dir data/shapes20/test \
	  --old-ann $(SHAPES20)_train.json --old-img-dir data/shapes20/train \
	  --work-dir work_dirs/distill/$(TEACHER) $(ARGS)

test: ## run the tests; ARGS goes to pytest
	@python="$$($(SETUP) --dev)" && $(PYTEST) $(ARGS)

test-slow: ## run the slow tests as well
	@python="$$($(SETUP) --dev)" && $(PYTEST) -m "slow or not slow" $(ARGS)

lint: ## check style, format, types, and that Python 3.8 has what the code uses
	@python="$$($(SETUP) --dev)" && "$$python" -m ruff check . && \
	  "$$python" -m ruff format --check . && "$$python" -m mypy && \
	  "$$python" -c 'import vermin; vermin.main()' -q --no-tips -t=3.8- --violations \
	    --eval-annotations --feature union-types --exclude str.decode $(CODE)
	@! grep -rnE '\.remove(prefix|suffix)\(' --include='*.py' $(CODE)

format: ## format the code
	@python="$$($(SETUP) --dev)" && "$$python" -m ruff check --fix . && "$$python" -m ruff format .

docs: ## build the site into site/; links are checked
	@python="$$($(SETUP) --dev)" && \
	"$$python" -m pip install -qq -r requirements/docs.txt && \
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true \
	  "$$python" -m mkdocs build --strict --clean --site-dir site

benchmarks: ## measure speed and memory; each script prints ours, theirs and the ratio
	@python="$$($(SETUP) --dev)" && for script in benchmarks/[a-z]*.py; do \
	  echo "== $$script"; "$$python" "$$script" || exit 1; done

clean: ## remove what was built; environments and work_dirs stay
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
