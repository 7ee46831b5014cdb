# Everything runs in a virtual environment of its own, made on first use and brought up to date
# when pyproject.toml or constraints.txt change. Another interpreter: make PYTHON=python3.12 ...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= not slow
KILLS ?= 50

INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test faults lint types check clean

demo: $(VENV)/installed  ## discover a loss function for a real data set
	$(BIN)/evoloss search diabetes

test: $(VENV)/installed-dev  ## three processes of one thread: they often wait for others that they started
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder \
		-m "$(TESTS)"

faults: $(VENV)/installed-dev  ## the long form of the tests that kill, fill disks and cut files
	EVOLOSS_KILLS=$(KILLS) $(BIN)/python -m pytest tests/execution tests/store \
		tests/unlearn/test_unlearn_workers.py --durations=10

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A half-made environment has no pip: it is made anew.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing evoloss into $(VENV) (torch is large: a minute or two)"
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) --editable ".[dev]"
	touch $@
