# Tasktrail. `make help` lists what can be done here.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# bcc is the distribution's python3-bpfcc, so the environment is made from the system's Python.
SYSTEM_PYTHON ?= /usr/bin/python3
VENV := .venv
PYTHON := $(VENV)/bin/python
PYTEST := $(PYTHON) -m pytest
SYSTEM_PACKAGES := python3-bpfcc python3-venv gcc libc6-dev
TEST_PACKAGES := default-jre-headless maven systemd libseccomp2 iproute2 openssl bpftool
COMPILED_TESTS := $(addprefix tests/unit/,test_embedded.py test_fuzz.py test_hostile.py test_saved.py test_wire_fuzz.py)
STAMP := $(VENV)/.installed

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: system $(STAMP) ## everything that run and test need: system packages (as root on Debian or Ubuntu) and .venv

.PHONY: system
system: # the distribution's packages; on another distribution, or without root, their names; and a bpffs, where systemd mounted none
	@[ "$$(id -u)" != 0 ] || mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf 2>/dev/null || true
	@if $(SYSTEM_PYTHON) -c 'import bcc, venv, ensurepip' 2>/dev/null && command -v gcc >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(SYSTEM_PACKAGES) >/dev/null; \
	else echo "install these as root, or what your distribution calls them: $(SYSTEM_PACKAGES)" >&2; exit 1; fi

$(STAMP): pyproject.toml | system
	@[ -x $(PYTHON) ] || $(SYSTEM_PYTHON) -m venv --system-site-packages $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: run
run: setup ## record this host, join and store it (as root); ask with $(VENV)/bin/tasktrail in a second terminal
	@$(PYTHON) -m tasktrail run

.PHONY: demo
demo: setup ## without root or BPF: replay a recording of a real host and ask about it
	@$(PYTHON) -m tasktrail demo

.PHONY: check
check: $(STAMP) ## style, types and the tests that need no root: a minute
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --check --quiet .
	@$(PYTHON) -m mypy
	@$(PYTEST) -q tests/unit tests/sim tests/corpus tests/test_tidy.py

.PHONY: test
test: setup test-system check ## all tests but the long ones, as root those of the kernel, the store, Kafka and the whole
	@$(PYTEST) -q tests/contract
	@$(PYTEST) -q tests/kernel
	@$(PYTEST) -q tests/e2e

.PHONY: test-faults
test-faults: setup test-system ## everything that goes wrong, made to go wrong, as root, the fleet's parts included: half an hour
	@$(PYTEST) -q tests/faults --ignore-glob='*/test_fleet_*'
	@$(PYTEST) -q tests/faults/test_fleet_*.py

.PHONY: test-fleet
test-fleet: setup test-system ## the fleet with a real Kafka, Faust workers, a ClickHouse, its units and rights, as root: ten minutes
	@$(PYTEST) -q tests/fleet

.PHONY: test-compiled
test-compiled: compiled ## the compiled join, as TASKTRAIL_COMPILE=1 installs it, by the tests of the plain one: two minutes
	@cp -r tests docs pyproject.toml build/compiled
	@cd build/compiled && $(CURDIR)/$(PYTHON) -P -c 'import sys; sys.path.insert(0, "."); from streams.join import transitions as it; assert it.__file__.endswith(".so"), it'
	@cd build/compiled && PYTHONPATH=. $(CURDIR)/$(PYTEST) -q tests/sim tests/corpus $(COMPILED_TESTS)

.PHONY: compiled
compiled: setup # this checkout installed into build/compiled
	@[ -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-dev >/dev/null; }
	@rm -rf build
	@TASKTRAIL_COMPILE=1 $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --target build/compiled .

.PHONY: test-kernels
test-kernels: setup ## the recorder in other kernels under qemu; KERNELS="5.10 6.1" chooses
	@$(PYTHON) -m tests.kernels $(KERNELS)

.PHONY: fuzz
fuzz: setup ## a million hostile batches, states and recordings, seeded: half an hour
	@$(PYTHON) -m tests.fuzz

.PHONY: test-system
test-system: # what the tests need besides
	@if command -v java >/dev/null && { command -v mvn >/dev/null || [ -n "$${TASKTRAIL_KAFKA_JARS:-}" ]; } && command -v ip >/dev/null \
	    && command -v bpftool >/dev/null && command -v openssl >/dev/null && command -v systemd-analyze >/dev/null && ldconfig -p | grep libseccomp.so.2 >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(TEST_PACKAGES) >/dev/null; \
	else echo "install these as root, or what your distribution calls them: $(TEST_PACKAGES)" >&2; exit 1; fi

.PHONY: fleet
fleet: setup ## all of a fleet on this machine: Kafka (Java 17, Maven once), ClickHouse, workers, hosts; as root also this one
	@$(PYTHON) -m deploy.local up

.PHONY: fleet-status
fleet-status: $(STAMP) ## what of it runs, and what is stored of each host
	@$(PYTHON) -m deploy.local status

.PHONY: fleet-down
fleet-down: $(STAMP) ## end all of it
	@$(PYTHON) -m deploy.local down

.PHONY: bench
bench: setup ## measure; figures go to docs/benchmarks.md
	@$(PYTHON) -m tests.bench.run_all

.PHONY: bench-recorders
bench-recorders: compiled ## the recorders that people use, on one storm beside ours, as root; table in docs/recorders.md
	@$(PYTHON) -m tests.bench.recorders

.PHONY: bench-fleet
bench-fleet: setup ## the fleet's path: events, rows, delays, recovery, questions; figures go to docs/benchmarks.md
	@$(PYTHON) -m tests.bench.bench_fleet

.PHONY: docs
docs: $(STAMP) ## write the generated pages again
	@$(PYTHON) -m schemas.dictionary
	@$(PYTHON) -m tasktrail.docs

.PHONY: corpus-bless
corpus-bless: $(STAMP) ## write the expected rows of the recordings again; then read the diff
	@CORPUS_BLESS=1 $(PYTEST) -q tests/corpus

.PHONY: clean
clean: ## remove what was built here; recordings and stores stay
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
