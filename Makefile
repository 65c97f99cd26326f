# Everything here builds its own environment in .venv; nothing needs to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
# Compiled in a quarter of the time or a half, by how much care is taken besides, as tests are (tests/conftest.py).
QUICK := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1

.PHONY: demo test test-all docstrings lint types docs examples bank checkup-bank dist clean

demo: .venv/.installed
	$(BIN)/nablax learn digits --condition label --out runs/digits

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[app,docs,test]' --constraint constraints.txt --build-constraint constraints.txt
	touch $@

# Claims train, and are compiled as they were when they were recorded (tests/conftest.py has less care for the rest).
test: .venv/.installed
	$(BIN)/python -m pytest --numprocesses 2 --ignore tests/papers/test_claims.py
	XLA_FLAGS="--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=true" $(BIN)/python -m pytest --numprocesses 2 tests/papers/test_claims.py

test-all: export NABLAX_CLAIMS = all
test-all: test

# Compiled with as little care as the tests are (tests/conftest.py).
docstrings: export XLA_FLAGS = --xla_backend_optimization_level=0 $(QUICK)
docstrings: .venv/.installed
	$(BIN)/python -m pytest --numprocesses 2 --quiet --doctest-modules src/nablax

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed
	$(BIN)/mypy

docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# They train, and are compiled with some care. Where a library of networks does not install, its example says so and the rest run.
examples: export XLA_FLAGS = --xla_backend_optimization_level=1 $(QUICK)
examples: .venv/.installed
	-$(BIN)/python -m pip install --quiet --editable '.[app,frameworks]' --constraint constraints.txt
	ls examples/*.py | MPLBACKEND=Agg xargs -P 2 -I {} sh -c 'began=$$(date +%s); said=$$($(BIN)/python {} 2>&1); status=$$?; \
	    printf "== %s (%s s)\n%s\n" {} $$(($$(date +%s) - began)) "$$said"; exit $$status'

# Tables beside other models of tables: hours from nothing; it may be killed and called again. The peers need an older NumPy.
bank: .venv/.installed .venv-peers/.installed
	nice -n 15 $(BIN)/python -m benchmarks.tables --peer-python .venv-peers/bin/python

.venv-peers/.installed: benchmarks/tables_peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --requirement benchmarks/tables_peers.txt
	touch $@

# Trains what does not stand in benchmarks/checkup_bank.csv yet, and writes the guide's table.
checkup-bank: .venv/.installed
	$(BIN)/python -m benchmarks.checkup_bank
	$(BIN)/python -m benchmarks.checkup_rules

dist: .venv/.installed
	rm -rf dist
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m build

clean:
	rm -rf .venv .venv-peers site build dist .pytest_cache .ruff_cache .mypy_cache
