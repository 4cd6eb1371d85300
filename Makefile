# The two commands: make run, make test. Everything is installed into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PARTS  := plugins/memory_backend plugins/maildir_backend plugins/mongo_backend

.PHONY: help run test test-all lint types bench clean

help:
	@grep -E '^## ' $(MAKEFILE_LIST) | sed 's/^## //'

$(VENV)/installed: pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	touch $@

## make run        serve a sample mailbox on 127.0.0.1:1110 (user luke, password hello)
## make test       run every suite but the slow tests
test: $(VENV)/installed
	$(BIN)/python -m pytest -q -m "not slow"

## make test-all   run every test, the slow ones and those with real clients too
test-all: $(VENV)/installed
	$(BIN)/python -m pytest -q

## make lint       ruff: style and format
lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

## make types      mypy, strict
types: $(VENV)/installed
	$(BIN)/mypy pop3hub

clean:
	rm -rf $(VENV)
