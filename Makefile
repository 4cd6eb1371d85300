# The two commands: make run, make test. Everything is installed into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
PARTS  := pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)

.PHONY: help run test test-all lint types bench soak fuzz audit clean

help:
	@grep -E '^## ' $(MAKEFILE_LIST) | sed 's/^## //'

# What serving needs; the plugins' "pop3hub" is this checkout, since pip sees all of them at once.
$(VENV)/served: $(PARTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(patsubst %/pyproject.toml,-e ./%,$(wildcard plugins/*/pyproject.toml)) -e .
	touch $@

$(VENV)/installed: $(PARTS) requirements-dev.txt | $(VENV)/served
	$(PIP) -r requirements-dev.txt
	touch $@

## make run        serve a sample mailbox on 127.0.0.1:1110 (user luke, password hello)
run: $(VENV)/served
	@echo 'Serving a sample mailbox; try:  curl pop3://luke:hello@127.0.0.1:1110/1'
	@exec $(BIN)/pop3hub --backend memory --memory-user luke:hello \
	  --memory-mail examples/sample_mail --listen pop3://127.0.0.1:1110

## make test       run every suite but the slow tests
test: $(VENV)/installed
	$(BIN)/python -m pytest -q -m "not slow"

## make test-all   run every test, the slow ones and those with real clients too
test-all: $(VENV)/installed
	$(BIN)/python -m pytest -q

## make lint       ruff: style and format
lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

## make types      mypy, strict
types: $(VENV)/installed
	$(BIN)/mypy pop3hub $(wildcard plugins/*/pop3hub_*)

## make bench      speed and memory, as docs/performance.md tells them
bench: $(VENV)/installed
	$(BIN)/python benchmarks/run.py

## make soak       ten minutes of bad clients, a bad store and no descriptors; SECONDS= for others
SECONDS ?= 600
soak: $(VENV)/installed
	$(BIN)/python benchmarks/soak.py --seconds $(SECONDS)

## make fuzz       ten minutes of octets that atheris finds, for parsers and sessions; SECONDS= likewise
fuzz: $(VENV)/installed
	$(PIP) atheris
	$(BIN)/python benchmarks/fuzz.py --seconds $(SECONDS)

## make audit      known weaknesses of the dependencies, asked of the advisory database (network)
audit: $(VENV)/installed
	$(PIP) pip-audit
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip -r constraints.txt

## make clean      remove what was installed, built and cached
clean:
	rm -rf $(VENV) .ci-venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
