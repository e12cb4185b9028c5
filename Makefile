# Four things people do, and the checks that CI does. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Errors alone: what it warns of is of no use here.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
SIDE_BY_SIDE := -n 3 --dist loadscope --no-loadscope-reorder # tests/conftest.py says what runs beside what

.PHONY: help install stores llama-cpp quickstart test test-all check bench gpu gpu-kit gpu-day kuberay clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## .venv with the pinned versions of constraints.txt, and two small models in .cache/models
	@$(BIN)/python experiments/models/fetch.py

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ftlib needs Python 3.11 or later, but $(PYTHON) is " + sys.version.split()[0])'
	@echo "Installing into $(VENV): the pinned versions of constraints.txt. The first time takes minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -c constraints.txt torch
	@$(PIP) -c constraints.txt -e '.[dev,qlora,deepspeed,metrics,curate,mlflow,dashboards]'
	@touch $@

$(VENV)/stores/.installed: tests/support/stores-requirements.txt | install
	@test -x $(VENV)/stores/bin/python || $(BIN)/python -m venv $(VENV)/stores
	@$(VENV)/stores/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

quickstart: install ## sweep LoRA on a small chat model, serve the winner, ask it (no GPU); BASE=tiny pretrains its own
	@$(BIN)/python experiments/quickstart/run.py $(BASE)

check: install ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

stores: install
	@$(MAKE) --no-print-directory $(VENV)/stores/.installed || echo "The tests' object stores cannot be fetched: what needs them is skipped."

llama-cpp: install ## llama.cpp in .cache/environments, for the tests that run GGUF files (it is compiled: half an hour)
	@FTLIB_HOME=$(CURDIR)/.cache $(BIN)/ftlib setup llama-cpp

test: install stores ## every test that needs no GPU
	$(BIN)/pytest $(SIDE_BY_SIDE)

test-all: install stores ## the same, and every combination (marked matrix): every experiment file with --smoke, among others
	$(BIN)/pytest $(SIDE_BY_SIDE) -m ""

bench: install ## the benchmarks; their results belong in docs/log.md
	@$(PIP) -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/against_plain_tune.py
	$(BIN)/python benchmarks/pack_step.py --shape small
	$(BIN)/python benchmarks/pack_step.py --shape natural
	$(BIN)/python benchmarks/asha_replay.py replay
	$(BIN)/python benchmarks/serving.py engines
	$(BIN)/python benchmarks/serving.py http
	$(BIN)/python benchmarks/serving.py cycle

gpu: install ## memory and speed of LoRA, QLoRA, full fine-tuning and DPO on one CUDA GPU (a 1B shape, random weights)
	$(BIN)/python benchmarks/gpu.py

gpu-kit: ## the wheels that a bare CUDA machine lacks, in .kit, and the line that uses them (benchmarks/gpu_day.py)
	$(PYTHON) benchmarks/gpu_kit.py

gpu-day: install ## all that is to be known of a CUDA device, in eight minutes
	$(BIN)/python benchmarks/gpu_day.py

kuberay: install ## deploy/kuberay out of cluster.yaml
	$(BIN)/python -m ftlib.remote.kuberay cluster.yaml deploy/kuberay

clean: ## what the quickstart made
	rm -rf .cache/quickstart
