# On a new machine with Python 3.11+, two commands are enough:  make demo,  make test
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test ray golden scores lint docs install clean

demo: $(INSTALLED)  ## restore real photographs and draw a contact sheet
	$(BIN)/python examples/demo.py --out demo

test: $(INSTALLED)  ## all tests that take minutes; with PELLUCID_DATA also scores of the authors' weights
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not ray"

ray: $(INSTALLED)  ## tests on two computers that Ray simulates on this one; needs the extra ray
	$(BIN)/python -m pytest -m ray tests/clusters

golden: $(INSTALLED)  ## all scores of the original authors' weights; needs PELLUCID_DATA
	@test -n "$$PELLUCID_DATA" || { echo "set PELLUCID_DATA to the folder of test sets and weights" >&2; exit 1; }
	$(BIN)/python -m pytest -m golden tests/golden

scores: $(INSTALLED)  ## measure all scores of the weights that ship again; needs PELLUCID_DATA
	$(BIN)/python benchmarks/weights.py scores

lint: $(INSTALLED)  ## check style, types and spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(INSTALLED)  ## write docs/api.md from the docstrings
	$(BIN)/python tools/api_reference.py > docs/api.md.new
	@mv docs/api.md.new docs/api.md

install: $(INSTALLED)  ## everything into .venv

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, e.g.  make PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into .venv (takes a few minutes)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv demo
