# Everything from a plain python3 and make. The first target called makes .venv, which downloads
# PyTorch and takes minutes; after that, it is touched only when a pyproject.toml changes.

PYTHON ?= python3
VENV := .venv

BIN := $(abspath $(VENV))/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test test-long lint format types docs benchmarks clean

help:
	@echo "make demo        run the bone-age example on radiographs that it draws itself"
	@echo "make test        run the tests of ldlcam and of the example"
	@echo "make test-long   run the tests that take longer"
	@echo "make lint        check style and formatting     make format   mend what can be mended"
	@echo "make types       check types                    make docs     build the documentation"
	@echo "make benchmarks  time ldlcam beside its alternatives"
	@echo "make clean       remove what was built; $(VENV)/ and runs/ stay"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml examples/boneage/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: Python 3.11 or newer is needed, and '$(PYTHON)' is not that;" \
			"name one that is: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check \
		--editable ".[dev]" --editable "examples/boneage[test]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/boneage run --preset demo --out runs/demo

test: $(INSTALLED)
	$(BIN)/pytest -m "not long"
	cd examples/boneage && $(BIN)/pytest -m "not long"

test-long: $(INSTALLED)
	$(BIN)/pytest -m long
	cd examples/boneage && $(BIN)/pytest -m long

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy
	cd examples/boneage && $(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build/html

benchmarks: $(INSTALLED)
	$(BIN)/python benchmarks/loss.py
	$(BIN)/python benchmarks/regions.py
	$(BIN)/python benchmarks/localization.py
	$(BIN)/python benchmarks/crops.py
	$(BIN)/python benchmarks/imports.py

clean:
	rm -rf build dist docs/_build examples/boneage/build examples/boneage/dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis examples/boneage/.hypothesis examples/boneage/.mypy_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf
