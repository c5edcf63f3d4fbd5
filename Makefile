# Everything a developer does, by name. `make develop` first; CONTRIBUTING.md says more.

PYTHON ?= python3
BIN = .venv/bin

.PHONY: help develop build test core asan leaks lint format bench examples wheel clean

help:
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

develop:  ## .venv with the package (editable), the tests' requirements and the linters
	$(PYTHON) scripts/run_tests.py --setup-only --with dev

build: develop  ## what changed in csrc/ is compiled again (part of develop)

test:  ## the whole suite, with a PostgreSQL of its own
	$(PYTHON) scripts/run_tests.py

core: develop  ## the quick tests that run on every Python
	$(BIN)/python -m pytest -m core

examples:  ## every example on our loop
	$(PYTHON) scripts/run_examples.py

asan:  ## the core tests under ASan and UBSan (CC=gcc or clang)
	scripts/run_sanitized.sh $(PYTHON) .venv-asan

leaks:  ## the leak tests on a build that counts what it owns (PYTHON=python3-dbg counts more)
	UVLOOP_CLONE_DEBUG=1 scripts/run_installed.sh $(PYTHON) .venv-debug -m leaks --timeout 600

lint: develop  ## ruff, mypy, stubtest, clang-format: looks, changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/stubtest uvloop_clone._core --allowlist scripts/stubtest-allowlist.txt \
	    --ignore-unused-allowlist
	find csrc -name '*.[ch]' | sort | xargs $(BIN)/clang-format --dry-run -Werror

format: develop  ## ruff and clang-format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc -name '*.[ch]' | sort | xargs $(BIN)/clang-format -i

bench: develop  ## our loop beside every loop installed in .venv (BENCH=--quick, benchmarks/README.md)
	$(BIN)/python -m benchmarks $(BENCH)

wheel:  ## a wheel in dist/, warnings as errors
	UVLOOP_CLONE_WERROR=1 $(PYTHON) -m pip wheel --no-deps -w dist .

clean:  ## everything that was built
	rm -rf build dist .venv .venv-* *.egg-info uvloop_clone/_core.*.so uvloop_clone/_ffi.*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
