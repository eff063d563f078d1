# Every target makes `.venv` when it is missing or out of date: nothing is needed but python3 >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TOOLS := $(VENV)-tools
SOURCES := $(shell find . \( -name '*.py' -o -path './serve/cpp/*' -type f \) -not -path './.*') py.typed README.md
EXAMPLES := $(abspath $(wildcard examples/*.py))

# Of `make gpu`: where the report goes, and options of benchmarks/hardware/all.py.
OUT ?= gpu-report
ARGS ?=

.PHONY: demo test test-services lint types bench gpu fuzz audit licences clean

demo: $(VENV)/.package
	$(BIN)/specbeam demo --output demo --overwrite

test: $(VENV)/.package
	$(BIN)/python -m pytest -m 'not services' --numprocesses logical --maxprocesses 4 --dist loadfile

# Servers, compilers, browsers and clients, started and talked to. A test whose program is missing says so and is skipped.
test-services: $(VENV)/.package
	$(BIN)/python -m pytest -m services

lint: $(VENV)/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	cd $(VENV) && $(BIN)/mypy --strict --config-file $(abspath pyproject.toml) -p specbeam
	cd $(VENV) && $(BIN)/mypy --strict --config-file $(abspath pyproject.toml) $(EXAMPLES)
	@if $(BIN)/pyright --version >/dev/null 2>&1; then $(BIN)/pyright --pythonpath $(BIN)/python $(EXAMPLES); \
	  else echo 'pyright comes from npm, which cannot be reached: the examples were checked by mypy alone'; fi

bench: $(VENV)/.package
	rm -rf $(VENV)/beauty
	for name in quality.lossless speed.calls speed.walltime quality.modes speed.filters; do $(BIN)/python -m benchmarks.$$name --bundle $(VENV)/beauty || exit; done

# Everything that is said of GPUs, measured on this machine's; run again, it does what lacks (docs/hardware/README.md).
gpu: $(VENV)-gpu/.package
	$(VENV)-gpu/bin/python benchmarks/hardware/all.py $(OUT) --resume $(ARGS)

# Every reader and loader on changed inputs, for an hour at most; what goes wrong is kept in fuzz-failures/.
fuzz: $(VENV)/.package
	$(BIN)/python -m benchmarks.reliability.fuzz --inputs 20000 --minutes 60

# Known vulnerabilities of the pinned versions. It needs an advisory service, so it is no part of any check; a package
# that could not be looked up is a failure, not a pass.
audit: $(TOOLS)/.ready
	$(TOOLS)/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt || \
	  { echo 'make audit: vulnerable, or not audited: see above (a package "not found" was not looked up)' >&2; exit 1; }

# Licences of what the extras bring along, without NVIDIA's packages and the tools of development.
licences: $(TOOLS)/.ready $(VENV)-licences/.ready
	$(TOOLS)/bin/pip-licenses --python=$(VENV)-licences/bin/python --from=mixed --order=name --format=markdown \
	  --with-urls --ignore-packages specbeam

$(TOOLS)/.ready: constraints.txt
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt pip-audit pip-licenses
	touch $@

$(VENV)-licences/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)-licences
	$(VENV)-licences/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt torch
	$(VENV)-licences/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
	  ".[cpu,quantize,export,align,parquet,explain,text,groups,ray,serve,embed]"
	rm -rf build
	touch $@

# torch first and by itself: the rest then finds it installed and resolves no other.
$(VENV)/.dependencies: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SpecBeam needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Set PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt ".[cpu,export,align,parquet,explain,text,groups,ray,serve,embed,services,dev]"
	touch $@

# Installed as a wheel, not as a link to the checkout; `build` would keep modules that were removed.
$(VENV)/.package: $(VENV)/.dependencies $(filter-out ./tests/% ./benchmarks/% ./examples/%,$(SOURCES))
	rm -rf build
	$(PIP) install --quiet --no-deps --force-reinstall .
	rm -rf build
	touch $@

# What pip does not find for this machine is left out: the kit says so, and passes it over.
$(VENV)-gpu/.dependencies: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)-gpu
	$(VENV)-gpu/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt torch
	$(VENV)-gpu/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
	  ".[export,quantize,text,explain]"
	add() { $(VENV)-gpu/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt ".[$$1]" \
	    || { echo "make gpu: the packages of the extra $$1 were not installed: what needs them is passed over" >&2; false; }; }; \
	  { add gpu || add cpu; } && { add tensorrt || true; } && { add tensorrt-rtx || true; }
	rm -rf build
	touch $@

$(VENV)-gpu/.package: $(VENV)-gpu/.dependencies $(filter-out ./tests/% ./benchmarks/% ./examples/%,$(SOURCES))
	rm -rf build
	$(VENV)-gpu/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --force-reinstall .
	rm -rf build
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-gpu $(TOOLS) $(VENV)-licences build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
