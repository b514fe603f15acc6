# Everything a newcomer needs: `make demo`, `make test`. Each target installs what it needs first.
# All paths are relative, so the checkout may lie in a folder with a space in its name.
PYTHON_BIN := .venv/bin/python
# Files end on both workers at about the same time: the longest come first (tests/conftest.py). What
# the tests start anew, dozens of processes, does not compile our sources each time.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(PYTHON_BIN) -m pytest -q
# The command by its interpreter: a script's first line does not bear a space everywhere.
CODEPMP := $(PYTHON_BIN) -m codepmp_ray.command

.DEFAULT_GOAL := help
.PHONY: help setup demo reproduce submit check acceptance test test-fast test-cluster fuzz soak lint typecheck format gpu-report clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install everything into .venv (does nothing when it is up to date)
	@./scripts/setup.sh

demo: setup ## the whole main job on this machine; ARGS="--compare seed=1 section.key=value ..."
	@$(CODEPMP) demo $(if $(CONFIG),--config "$(CONFIG)") $(ARGS)

reproduce: setup ## the paper's tables and figures at laptop size, with a report; ARGS="data_dir=FOLDER"
	@$(CODEPMP) paper all $(if $(STUDIES),--config "$(STUDIES)") $(ARGS)

submit: setup ## a job to a running cluster, followed to its end: JOB="pairs make" ARGS="--config ... run_dir=..."
	@$(CODEPMP) cluster submit $(SUBMIT) $(JOB) $(ARGS)

check: setup ## can the recipe run here? CONFIG=recipe ARGS="section.key=value ..."
	@$(CODEPMP) cluster check $(if $(CONFIG),--config "$(CONFIG)") $(ARGS)

test: setup ## all tests but those of test-cluster; ARGS="-k name" selects
	@$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not rehearsal" tests $(ARGS)

test-fast: setup ## the quick tests: no Ray, no vLLM
	@$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not rehearsal" tests/unit tests/architecture $(ARGS)

test-cluster: setup ## hosts that come, die and are cut off during real jobs: at most 40 minutes; Linux
	@failed=; for name in autoscaling autoscaling_cpu chaos training serving; do \
		$(PYTHON_BIN) -m benchmarks.cluster_$$name || failed="$$failed $$name"; \
	done; \
	$(PYTEST) -n 2 --dist loadfile -m rehearsal tests || failed="$$failed rehearsals"; [ -z "$$failed" ] || { echo "test-cluster: not met:$$failed" >&2; exit 1; }

acceptance: setup ## the README's three uses on an autoscaling cluster, each with a kill in its middle; Linux
	@$(PYTHON_BIN) -m scripts.acceptance

fuzz: setup ## 10,000 requests made from the service's OpenAPI schema
	@$(PYTHON_BIN) -m benchmarks.serve_fuzz $(ARGS)

soak: setup ## 30 minutes of mixed load on the service; prints what its processes' memory did
	@$(PYTHON_BIN) -m benchmarks.serve_soak $(ARGS)

lint: setup ## style, formatting and the direction of imports
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m ruff format --check --quiet . || \
		{ echo "lint: the files above are not formatted; run make format" >&2; exit 1; }
	@.venv/bin/lint-imports --no-logo

typecheck: setup ## static types
	@.venv/bin/basedpyright --pythonpath $(PYTHON_BIN)

format: setup ## rewrite the files as lint wants them
	@$(PYTHON_BIN) -m ruff check --fix-only --quiet .
	@$(PYTHON_BIN) -m ruff format --quiet .

gpu-report: ## every figure that needs a GPU, at most 40 minutes; QUICK=1: 8 minutes, torch and transformers alone
	@$(if $(QUICK),python3 -m benchmarks.gpu_report --quick,./scripts/setup.sh bench && $(PYTHON_BIN) -m benchmarks.gpu_report) $(ARGS)

clean: ## remove .venv and caches; runs/ is kept
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
