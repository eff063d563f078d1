# Every target makes `.venv` when it is missing or out of date: nothing is needed but python3 >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(wildcard *.py */*.py) py.typed README.md

.PHONY: demo test lint types bench clean

demo: $(VENV)/.package
	$(BIN)/specbeam demo --output demo --overwrite

test: $(VENV)/.package
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: $(VENV)/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV) && $(BIN)/mypy --strict -p specbeam

bench: $(VENV)/.package
	rm -rf $(VENV)/beauty
	for name in lossless calls speed modes filters; do $(BIN)/python benchmarks/$$name.py --bundle $(VENV)/beauty || exit; done

# torch first and by itself: the rest then finds it installed and resolves no other.
$(VENV)/.dependencies: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SpecBeam needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Set PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt ".[cpu,export,align,parquet,explain,text,groups,dev]"
	touch $@

# Installed as a wheel, not as a link to the checkout; `build` would keep modules that were removed.
$(VENV)/.package: $(VENV)/.dependencies $(filter-out tests/% benchmarks/%,$(SOURCES))
	rm -rf build
	$(PIP) install --quiet --no-deps --force-reinstall .
	rm -rf build
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
