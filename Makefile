# make demo       from a clone to a proven small model
# make test       everything that CI checks
# make notebooks  run all notebooks in place and keep their outputs; NB=nbs/00_core.ipynb for one of them
# make readme     README.md from nbs/index.ipynb
# make docs       the notebooks as a web site in _docs
# make clean      remove what the above built; .venv and runs/ stay
#
# Each target sets up .venv first when settings.ini, setup.py or constraints.txt changed.

SHELL := bash
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
IN_VENV := PATH="$(abspath $(BIN)):$$PATH"

.PHONY: setup demo test notebooks readme docs clean
.NOTPARALLEL:

setup: $(READY)

$(READY): settings.ini setup.py constraints.txt
	@test -x $(BIN)/pip || { python=$$(.ci/python $(PYTHON)) && echo "Making $(VENV) with $$python" && $$python -m venv $(VENV); }
	@echo "Installing the pinned packages into $(VENV), a few minutes the first time"
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@$(IN_VENV) medvlm demo $(ARGS)

test: setup
	@$(IN_VENV) .ci/check_source
	@$(IN_VENV) python .ci/test_notebooks.py
	@$(IN_VENV) python -m pytest -q tests

notebooks: setup
	@$(IN_VENV) python .ci/run_notebooks.py $(NB)

readme: setup
	@$(IN_VENV) python .ci/readme.py

docs: setup
	@$(IN_VENV) python .ci/docs.py

clean:
	rm -rf _proc _docs build dist *.egg-info .pytest_cache nbs/nbdev.yml nbs/sidebar.yml
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -print0 | xargs -0 rm -rf
