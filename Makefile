# Every target works from a bare clone: the environment .venv is made on first use, from the
# versions pinned in constraints.txt, and brought up to date when they or setup.py change.
#
#   PYTHON=python3.12             the interpreter that .venv is made with (3.11 or newer)
#   TORCH_INDEX=https://…/cpu     where torch alone is taken from, such as a CPU build of it
#   ARGS="-k prompts"             further arguments of the demo, pytest or the benchmarks
#   WORKERS=0                     processes that run tests at once: as many as there are cores, up
#                                 to four; 0 runs them in pytest's own, where a debugger works

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Progress bars for a person who waits for torch, silence in a log.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input $(if $(MAKE_TERMOUT),,--quiet)

SEES_A_GPU := import sys, torch; sys.exit(not torch.cuda.is_available())

# Before .venv stands in front of it: what the Python named above is outside of it.
OUTSIDE := $(or $(shell command -v $(PYTHON)),$(PYTHON))

# torch finds ninja, which compiles the CPU kernels, through PATH only.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow mutants lint bench gpu cost clean

help:
	@echo "make setup      make .venv with the pinned versions (PYTHON=, TORCH_INDEX=)"
	@echo "make demo       which heads of the bundled model carry the answer: a table and out/"
	@echo "make test       the tests, a few minutes"
	@echo "make test-slow  the tests that take minutes each or need a peer library"
	@echo "make mutants    plants drawn faults and says which test sees each, about an hour"
	@echo "make lint       ruff check and ruff format --check"
	@echo "make bench      the benchmarks"
	@echo "make gpu        all that a GPU can tell, in ten minutes (ARGS=--dry needs none)"
	@echo "make cost       time and memory by prompts, variants and size of the model, into docs/"
	@echo "make clean      remove .venv and everything that was built"

setup: $(STAMP)
	@:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ioi_fast needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)"; \
	  echo "name another one, such as: make setup PYTHON=python3.12"; \
	  exit 1; } >&2
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "$(PYTHON) -m venv failed (on Debian and Ubuntu: apt install python3-venv)"; \
	  exit 1; } >&2

# Without build isolation, so that setuptools is the pinned one as well.
$(STAMP): setup.py pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (once; torch is large)"
	@$(PIP) install -c constraints.txt setuptools
	@if [ -n "$(TORCH_INDEX)" ]; then \
	  $(PIP) install -c constraints.txt --no-deps --index-url "$(TORCH_INDEX)" torch; fi
	@$(PIP) install -c constraints.txt --no-build-isolation -e ".[dev]"
	@$(BIN)/python -P -c "from ioi_fast.kernels.build import main; main()"
	@touch $@

demo: setup
	@ioi-fast demo --out out/ $(ARGS)

# The script and not "python -m pytest", which would put the folder kernels/ on the module path.
# A file's tests share models and prompts, so that a file stays in one process. Each process has one
# thread unless a test asks for more: threads of several that wait for each other cost twice the time.
# The order is that of tests/conftest.py, the longest files first: without the last option it would be
# by how many tests a file has, and the longest would come last, beside an idle process.
PYTEST := $(if $(filter 0,$(WORKERS)),,OMP_NUM_THREADS=1) \
  pytest -rs --numprocesses=$(WORKERS) --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test: setup
	@$(PYTEST) $(ARGS)

test-slow: setup
	@$(PYTEST) -m slow $(ARGS)

# Plants the drawn faults one by one in a copy of the checkout: about an hour.
mutants: setup
	@PYTHONPATH=tests/instruments python -m planted_faults $(ARGS)

lint: setup
	@ruff check .
	@ruff format --check .

bench: setup
	@ioi-fast bench $(ARGS)

# Where the Python named above has a torch that sees a GPU and .venv has none, that Python gets this
# checkout as an editable package, with nothing built apart, fetched or replaced; else it is .venv.
gpu:
	@python=$(BIN)/python; \
	if ! $$python -c '$(SEES_A_GPU)' 2>/dev/null && \
	    $(OUTSIDE) -c '$(SEES_A_GPU)' 2>/dev/null; then \
	  python=$(OUTSIDE); \
	  $$python -m pip --disable-pip-version-check install --quiet --no-deps --no-index \
	    --no-build-isolation -e .; \
	else $(MAKE) --no-print-directory setup; fi && \
	$$python -P -m ioi_fast.cli bench --backend triton $(ARGS)

cost: setup
	@$(PIP) install -c constraints.txt --no-build-isolation -e ".[cost]"
	@python -P -m ioi_fast.benchmarks.cost_curve $(ARGS)

clean:
	rm -rf $(VENV) build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
