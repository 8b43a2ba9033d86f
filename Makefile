# Two commands for a stranger: `make demo` and `make test`. Both make their own environment first.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
PHOTO  ?=
OUT    ?= out

.PHONY: demo test lint benchmark clean

$(VENV)/installed: pyproject.toml setup.py constraints.txt $(wildcard src/hiface/render/kernels/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit("hiface needs Python 3.10 or newer; try: make PYTHON=python3.12 ...") if sys.version_info < (3, 10) else 0'
	@echo "making the environment in $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@$(PIP) install -c constraints.txt -e ".[demo,dev]"
	@touch $@

demo: $(VENV)/installed
	@$(BIN)/python tools/demo.py --out "$(OUT)" $(if $(PHOTO),--photo "$(PHOTO)")

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

test: $(VENV)/installed lint
	$(BIN)/python -m pytest

benchmark: $(VENV)/installed
	$(BIN)/python benchmarks/render.py
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python benchmarks/fit_synthetic.py

clean:
	rm -rf $(VENV) out build dist src/*.egg-info
