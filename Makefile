# Commands on a fresh machine:
#   make demo         trains, samples and judges DDPM and DDPM-IP on real digits; prints the path of an HTML report
#   make test         lint, types, tests; of the large tests a tenth, always the same
#   make test-long    lint, types, and all tests whole
#   make docs         the documentation as a site, build/docs/index.html; links to files of the repository lead to SOURCE_URL
#   make test-install what is installed from a fresh clone, outside the checkout (docs/releasing.md)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# A worker a core, each with 1.5 GB at most, and each test on one core.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-long test-install docs lint unit clean

demo: $(VENV)/.installed-demo
	$(BIN)/ddpm-ip demo

# Side by side: mypy fills one core alone for half a minute where nothing is cached.
test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory -j 2 lint unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests scripts examples benchmarks docs
	$(BIN)/ruff format --check src tests scripts examples benchmarks docs
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(PYTEST)

# Property tests with 300 examples instead of 30, and every case of the tests marked large.
test-long: lint
	$(PYTEST) --long

# The reference is made of the code as it is now, so nothing of an earlier build is kept. Any warning is an error.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -E -q -W --keep-going -b html -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

# A clone of HEAD, an environment of its own and a wheel, in a temporary folder; packages from where pip is configured to look.
test-install:
	$(PYTHON) tests/install/check.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; set PYTHON=/path/to/python3.x"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, so that nothing else can choose another build of it.
$(VENV)/.installed-torch: constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (the first time takes some minutes)"
	$(PIP) torch
	@touch $@

$(VENV)/.installed-demo: pyproject.toml $(VENV)/.installed-torch
	$(PIP) -e ".[log,plot]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed-torch
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps torch-fidelity
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.installed-torch
	$(PIP) -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) build/docs build/doctrees .pytest_cache .mypy_cache .ruff_cache
