# Two commands do everything on a fresh machine with Python 3.11+:  make demo,  make test
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test golden scores lint install clean

demo: $(INSTALLED)  ## restore real photographs and draw a contact sheet
	$(BIN)/python examples/demo.py --out demo

test: $(INSTALLED)  ## everything that runs in minutes; with PELLUCID_DATA also the authors' numbers
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

golden: $(INSTALLED)  ## every number of the original authors' weights; needs PELLUCID_DATA
	@test -n "$$PELLUCID_DATA" || { echo "set PELLUCID_DATA to the folder of test sets and weights" >&2; exit 1; }
	$(BIN)/python -m pytest -m golden tests/golden

scores: $(INSTALLED)  ## every score of the weights that ship, measured again; needs PELLUCID_DATA
	$(BIN)/python benchmarks/weights.py scores

lint: $(INSTALLED)  ## style, types, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with  make PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into .venv, which takes some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv demo
