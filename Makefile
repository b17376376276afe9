# Two commands: `make serve` and `make test`. Each sets up all it needs, and is quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS ?=
WORKERS ?= 2

.PHONY: serve test check format bench bench-quick bench-local bench-peers soak eval-tiny eval-recorded eval-limits eval-scrapers train-tiny clean
.DELETE_ON_ERROR:

serve: $(VENV)/.local
	@$(BIN)/llmproxy serve $(ARGS)

test: $(VENV)/.dev $(VENV)/.node
	$(BIN)/pytest -n $(WORKERS) $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir .mypy_cache/imports
	$(BIN)/python -m providers.table --check docs/providers.md
	$(BIN)/python -m llmproxy.core.config_table --check docs/configuration.md
	$(BIN)/python -m backends.tables --check docs/local.md
	$(BIN)/python -m tests.sdk.matrix --check docs/dialects.md

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.planning
	$(BIN)/python -m benchmarks.overhead $(ARGS)

bench-local: $(VENV)/.dev
	$(BIN)/python -m benchmarks.local $(ARGS)
	$(BIN)/python -m benchmarks.served
	$(BIN)/python -m benchmarks.embeddings
	$(BIN)/python -m benchmarks.structure

bench-peers: $(VENV)/.dev
	$(BIN)/python -m benchmarks.peers --venv $(PEERS) $(ARGS)

bench-quick: $(VENV)/.dev
	$(BIN)/python -m benchmarks.overhead --quick

soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak $(ARGS)

eval-tiny: $(VENV)/.dev
	$(BIN)/python -m backends.tiny.evaluate $(ARGS)

eval-recorded: $(VENV)/.dev
	$(BIN)/python -m benchmarks.recorded --data $(DATA) $(ARGS)

eval-scrapers: $(VENV)/.dev
	$(BIN)/python -m benchmarks.scrapers --data $(DATA) $(ARGS)

eval-limits: $(VENV)/.dev
	$(BIN)/python -m benchmarks.limits $(ARGS)

train-tiny: $(VENV)/.dev
	$(BIN)/python -m backends.tiny.train $(ARGS)

clean:
	rm -rf $(VENV) tests/node/node_modules build *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("llmproxy needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Without a GPU the CPU build of torch is taken: the usual one brings gigabytes of CUDA. pip knows that build only where
# an index has it; uv finds it by itself (--torch-backend=auto, which also picks the right CUDA where there is a GPU).
$(VENV)/.torch: $(VENV)/bin/python
	@$(BIN)/python -c 'import torch' 2>/dev/null \
	  || { ! command -v nvidia-smi >/dev/null && $(BIN)/python -m pip install --quiet '$(TORCH)+cpu' 2>/dev/null; } \
	  || { $(BIN)/python -m pip install --quiet uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend=auto '$(TORCH)'; } \
	  || $(BIN)/python -m pip install --quiet '$(TORCH)'
	@touch $@

$(VENV)/.local: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[local,dev]'
	@touch $@ $(VENV)/.local

$(VENV)/.node: $(VENV)/.dev tests/node/package-lock.json
	npm ci --prefix tests/node --no-audit --no-fund --silent
	@touch $@
