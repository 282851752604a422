PYTHON ?= python3
EXTRAS ?= dev
VENV := .venv
BIN := $(VENV)/bin
comma := ,
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile
INSTALLED := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: demo test-fast test check docs format clean

# The environment is built once, and again only when pyproject.toml has changed or other EXTRAS are asked for.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	touch $@

demo: $(INSTALLED)  ## train on the built-in shapes, then print PQ and draw pictures
	$(BIN)/python train.py experiment=demo hydra.run.dir=runs/demo
	$(BIN)/python evaluate.py ckpt=runs/demo/checkpoints/best.ckpt

test-fast: $(INSTALLED)  ## the tests to run while working: no network, no process, none that takes a second
	$(PYTEST) -m "not long and not slow"

test: $(INSTALLED)  ## a few minutes; ALL=1 runs the slow ones too; what needs another extra is skipped (EXTRAS=dev,tf,…)
	$(PYTEST) $(if $(ALL),,-m "not slow")

check: $(INSTALLED)  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

docs: $(INSTALLED)  ## the pages of docs/ as a site in build/docs
	$(BIN)/mkdocs build --strict

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs outputs multirun
