# Each target creates .venv first, with any Python 3.10 or newer.
PYTHON ?= python3
BIN := .venv/bin
# Compile packages when they are imported, not when they are installed: saves a minute.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all lint unit fuzz faults docs docs-commands aarch64 audit licences clean

demo: .venv/ready
	$(BIN)/wav2lip-npu demo

test: .venv/ready
	$(MAKE) -j2 lint unit

# Three processes for two cores: tests often wait for processes that they started.
unit: .venv/ready
	$(BIN)/python -m pytest -n 3 --dist worksteal

# With the slow variants, before a release.
test-all: .venv/ready
	$(MAKE) lint
	$(BIN)/python -m pytest -n 3 --dist worksteal -m ""

# Commands on damaged and odd files; FUZZ="--seed 7 --cases 100 --kind video" chooses others.
fuzz: .venv/ready
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ)

# Full disks, signals, killed processes …; FAULTS="--moments 2 --command infer" chooses.
faults: .venv/ready
	PYTHONPATH=tests $(BIN)/python -m faults $(FAULTS)

# The pages as a site that needs no network: build/site/index.html.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The commands that the pages show, with small files.
docs-commands: .venv/ready
	PYTHONPATH=tests $(BIN)/python -m docs_commands

# Before a release, with the network: wheels for aarch64, known vulnerabilities, licences of all.
aarch64: .venv/release
	$(BIN)/python tests/aarch64_wheels.py

audit: .venv/release
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > .venv/installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r .venv/installed.txt

# Extra fid in a folder of its own: torchvision of another build than torch's would not load.
licences: .venv/release
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target .venv/fid torch-fidelity torchvision
	PYTHONPATH=.venv/fid $(BIN)/python docs/list_licences.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck scripts/*.sh .ci/*

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.txt -e .[dev]
	touch $@

.venv/release: .venv/ready
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.txt -e .[dev,release]
	touch $@

clean:
	rm -rf .venv build demo *.egg-info
