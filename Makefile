# `make` lists the targets. Variables: SCALE (cpu, smoke, lm or a YAML file), FLAVOUR (cpu or cuda), PROFILE (slurm, or a folder),
# PYTHON, JOBS (of the tests), WITH (of compare: someone's archive), ARGS.
PYTHON ?= python3
SCALE ?= cpu
ARGS ?=
JOBS ?= 2
UV_VERSION := 0.13.9

VENV := .venv
# The flavour that is installed already, and cpu in a new clone.
FLAVOUR ?= $(patsubst $(VENV)/.installed-%,%,$(firstword $(wildcard $(VENV)/.installed-*) $(VENV)/.installed-cpu))
BIN := $(VENV)/bin
LOCK := requirements/$(FLAVOUR).lock
STAMP := $(VENV)/.installed-$(FLAVOUR)
# Byte-compiled now, once: otherwise every process that may not write compiles thousands of modules at each start.
install_into = $(BIN)/uv pip install --quiet --compile-bytecode --python $(1)/bin/python --no-deps
INSTALL := $(call install_into,$(VENV))
# PROFILE=slurm: profiles/slurm, for a cluster.
SNAKEMAKE := $(BIN)/snakemake $(if $(PROFILE),--profile $(or $(wildcard profiles/$(PROFILE)),$(PROFILE)))
# The scale beside what ARGS configures, in one --config: of two, Snakemake takes the last alone.
CONFIG = $(if $(filter --config -C,$(ARGS)),$(patsubst -C,--config scale=$(SCALE),$(patsubst --config,--config scale=$(SCALE),$(ARGS))),--config scale=$(SCALE) $(ARGS))
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed-$(FLAVOUR)
DOCS := .venv-docs
DOCS_STAMP := $(DOCS)/.installed
SMK_FILES := Snakefile workflows/rules

.DEFAULT_GOAL := help
.PHONY: help setup reproduce verify compare reference archive matrix tune smoke figures test test-all docs bench gpu-check peers lint format lock clean
.DELETE_ON_ERROR:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  Options: SCALE=cpu|smoke|lm|FILE.yaml  FLAVOUR=cpu|cuda  PROFILE=slurm  PYTHON=python3.12  ARGS='more arguments'"

reproduce: $(STAMP) ## Set up and run everything at SCALE (default cpu)
	$(SNAKEMAKE) reproduce-all $(CONFIG)

verify: $(STAMP) ## Which results of SCALE do not match their manifest, or the present code and config
	@$(BIN)/sdpg verify --scale $(SCALE) $(ARGS)

compare: $(STAMP) ## Does this run of SCALE agree with the committed reference (or WITH=FILE, an archive), within sampling error?
	@$(BIN)/sdpg compare --scale $(SCALE) $(if $(WITH),--with "$(WITH)") $(ARGS)

archive: $(STAMP) ## Pack the results of SCALE with generations and manifest into one file, to be published
	@$(BIN)/sdpg archive --scale $(SCALE) $(ARGS)

reference: $(STAMP) ## Make the results of SCALE the reference (to be committed), if they match their manifest; ARGS=--check: is it stale?
	@$(BIN)/sdpg reference --scale $(SCALE) $(ARGS)

matrix: $(STAMP) ## All cells of SCALE side by side
	$(SNAKEMAKE) matrix $(CONFIG)

tune: $(STAMP) ## Choose the settings of SCALE again: its sweep, then config/tuned/SCALE.yaml and .csv
	$(SNAKEMAKE) reproduce-all --config scale=$(SCALE)-sweep
	cp results/$(SCALE)-sweep/sweep/tuned.yaml config/tuned/$(SCALE).yaml
	cp results/$(SCALE)-sweep/sweep/tuned.csv config/tuned/$(SCALE).csv

test: $(STAMP) ## Set up and run the tests; ARGS goes to pytest
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: override ARGS := --all $(ARGS)
test-all: test ## As `test`, with those that take minutes, an hour in all

# The CUDA build of vLLM needs a GPU. What ARGS configures takes the place of this.
smoke: $(STAMP) ## Everything at scale smoke: the whole chain in minutes
	$(SNAKEMAKE) smoke $(if $(filter --config -C,$(ARGS)),,$(if $(filter cuda,$(FLAVOUR)),--config scale=smoke set=resources.gpus=1)) $(ARGS)

figures: $(STAMP) ## The figures of SCALE, and what they need
	$(SNAKEMAKE) figures $(CONFIG)

bench: $(STAMP) $(PEERS_STAMP) ## Measure against TRL, Liger, vLLM and the machine; ARGS=--quick: two minutes, nothing kept
	$(BIN)/python -m benchmarks.bench $(ARGS)

docs: $(DOCS_STAMP) ## Build the documentation site into site/ (open site/index.html), and check its links
	rm -rf site
	$(DOCS)/bin/python docs/site/prepare.py $(DOCS)/pages mkdocs.site.yml
	$(DOCS)/bin/zensical build --strict --clean --config-file mkdocs.site.yml
	$(DOCS)/bin/python docs/site/check.py site

# With the environment of `make setup` if it is there, else with any Python that has torch and transformers.
gpu-check: ## Check this machine's GPU in 8 minutes: right, within memory, how fast; ARGS="--only a,b"
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu_check $(ARGS)

peers: $(PEERS_STAMP) ## Make .venv-peers, the environment of what `bench` compares with

lint: $(STAMP) $(DOCS_STAMP) ## Check style, format, the workflow and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check $(SMK_FILES)
	$(SNAKEMAKE) --lint
	$(DOCS)/bin/hadolint Dockerfile

format: $(STAMP) ## Put style and format right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt $(SMK_FILES)

setup: $(STAMP) ## Make .venv from the lock of FLAVOUR

# The line $(1)/torch.txt into the environment $(1): cpu from pip's indexes, or else from PyTorch's own.
define install_torch
@set -e; if [ "$(FLAVOUR)" = cpu ]; then \
  echo "Installing $$(cat $(1)/torch.txt)"; \
  $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(1)/torch.txt 2> $(1)/torch.log || { \
    echo "pip's indexes do not offer it; taking it from PyTorch's own (known to uv)"; \
    $(call install_into,$(1)) --torch-backend=cpu -r $(1)/torch.txt || { cat $(1)/torch.log >&2; exit 1; }; }; \
else $(call install_into,$(1)) -r $(1)/torch.txt; fi
endef

HAS_HEADERS := import os, sys, sysconfig; sys.exit(not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")))

# The environment is made again whenever the lock changes, so that nothing of an older one is left in it. --no-deps: the lock
# is complete, and leaves out what would break it (requirements/excludes.txt).
$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "error: Python 3.11, 3.12 or 3.13 is needed, got: $$($(PYTHON) --version 2>&1). Another one: make PYTHON=python3.12" >&2; exit 1; }
	@command -v which >/dev/null || { echo "error: Snakemake's Slurm plugin needs the command 'which'; install it" >&2; exit 1; }
	@if [ "$(FLAVOUR)" = cpu ] && command -v nvidia-smi >/dev/null; then \
	  echo "This machine seems to have an NVIDIA GPU; to use it: make FLAVOUR=cuda ..."; fi
	@if [ "$(FLAVOUR)" = cuda ] && ! { command -v cc >/dev/null && $(PYTHON) -c '$(HAS_HEADERS)'; }; then \
	  echo "note: on a GPU Triton needs a C compiler and Python.h, and did not find both; on Debian and Ubuntu: apt install build-essential python3-dev"; fi
	rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@grep '^torch==' $(LOCK) > $(VENV)/torch.txt && grep -v '^torch==' $(LOCK) > $(VENV)/rest.txt
	$(call install_torch,$(VENV))
	@echo "Installing $$(grep -c . $(VENV)/rest.txt) more packages; from an empty cache this takes minutes"
	$(INSTALL) -r $(VENV)/rest.txt
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

# Peers have a separate environment, with the project's torch (and on CUDA its libraries), so that they cannot change it.
$(PEERS_STAMP): benchmarks/peers/requirements.txt $(LOCK) | $(STAMP)
	rm -rf $(PEERS)
	@$(BIN)/python -m venv $(PEERS)
	@grep '^torch==' $(LOCK) > $(PEERS)/torch.txt && grep -E '^(setuptools|triton|nvidia-.*|cuda-.*)==' $(LOCK) > $(PEERS)/libraries.txt
	$(call install_torch,$(PEERS))
	@echo "Installing the benchmarks' peers"
	$(call install_into,$(PEERS)) -r $(PEERS)/libraries.txt -r benchmarks/peers/requirements.txt
	@touch $@

# The site has an environment of its own, without torch, vLLM or anything else of the project's: it can be built where nothing else is.
$(DOCS_STAMP): requirements/docs.lock
	rm -rf $(DOCS)
	@$(PYTHON) -m venv $(DOCS) || { rm -rf $(DOCS); echo "error: $(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "Installing the $$(grep -c . $<) packages of the documentation"
	$(DOCS)/bin/uv pip install --quiet --compile-bytecode --python $(DOCS)/bin/python --no-deps -r $<
	@touch $@

# Without --upgrade the pins of the present locks stay wherever the .in files allow: make lock ARGS=--upgrade
COMPILE = $(BIN)/uv pip compile --quiet --excludes requirements/excludes.txt --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --no-annotate --no-header $(ARGS)

lock: $(STAMP) ## Resolve requirements/*.in again: the locks and environment.yml
	UV_FIND_LINKS="$${UV_FIND_LINKS-$$PIP_FIND_LINKS}" $(COMPILE) requirements/cuda.in -o requirements/cuda.lock
	UV_FIND_LINKS="$${UV_FIND_LINKS-$$PIP_FIND_LINKS}" $(COMPILE) requirements/cpu.in -o requirements/cpu.lock \
	  $$([ -n "$${UV_FIND_LINKS-$$PIP_FIND_LINKS}" ] || echo --torch-backend=cpu)
	UV_FIND_LINKS="$${UV_FIND_LINKS-$$PIP_FIND_LINKS}" $(COMPILE) requirements/docs.in --constraints requirements/cpu.lock -o requirements/docs.lock
	$(BIN)/python requirements/environment.py > .environment.yml && mv .environment.yml environment.yml

clean: ## Remove caches and the site; results and .venv stay
	rm -rf .pytest_cache .ruff_cache .hypothesis .snakemake .cache site mkdocs.site.yml
	find . -path ./$(VENV) -prune -o -path ./$(PEERS) -prune -o -path ./$(DOCS) -prune -o -path ./.git -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
