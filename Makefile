# Three commands: make chat, make test, make check. Each sets up what it needs, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: chat test check lint types layers bench bench-serve bench-inspector bench-mcp lock clean

chat: $(READY)
	@$(BIN)/agentos chat

test: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal

check: lint types layers test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports --no-cache

bench: $(READY)
	$(BIN)/python bench/bench.py

bench-serve: $(READY)
	$(BIN)/python bench/bench_serve.py

bench-inspector: $(READY)
	$(BIN)/python bench/bench_inspector.py

bench-mcp: $(READY)
	$(BIN)/python bench/bench_mcp.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "agentos needs Python 3.11 or newer; run make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up $(VENV), once; this takes a minute or two."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# Needs uv. Versions and hashes only: no index is named, so any mirror serves.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
