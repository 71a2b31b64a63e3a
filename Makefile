# Two commands do everything on a fresh machine, set-up included: `make demo` and `make test`.
# Needed beforehand: make and git. Python 3.11, its venv module and mosquitto come through apt where they are missing.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
STAMP := $(VENV)/.installed
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get
CODE := protocol orchestrator device_client
# Folders that may not be there in every checkout.
CHECKED := $(CODE) $(wildcard tests) $(wildcard benchmarks)
ARGS ?=
# Tests wait for brokers and processes half of the time, so three keep two cores busy. A file's tests stay together, for
# they share what they started; tests/conftest.py says which files come first.
AT_ONCE := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: help setup broker token backends compiler demo test test-all check format lock bench bench-delivery bench-device bench-rollouts clean

help:
	@echo 'make demo      set up, then run a whole fleet on this machine (ARGS="--devices 12")'
	@echo 'make test      set up, then run the tests (ARGS="-k topics"); under 10 minutes on two cores'
	@echo 'make test-all  with the tests marked slow, and Hypothesis searching anew'
	@echo 'make check     format, lint, types, layers; under a minute'
	@echo 'make format    let ruff rewrite what it can'
	@echo 'make bench     run the benchmarks'
	@echo 'make bench-delivery  delivery beside its peers, which it installs (ARGS="link_speed --rounds 5")'
	@echo 'make bench-device  what the agent costs its device; about three minutes'
	@echo 'make bench-rollouts  the engine over a million members, plans, halts, simulations; about twenty minutes'
	@echo 'make setup     only the set-up: .venv, locked dependencies, mosquitto'
	@echo 'make lock      resolve the dependencies anew into requirements/*.txt (needs uv)'
	@echo 'make clean     remove .venv and caches'

setup: $(STAMP) broker

# Runs again when the lock or the project's metadata changes; an installed package costs nothing then.
$(STAMP): $(LOCK) pyproject.toml
	@python=; \
	for candidate in python3.11 python3.12 python3.13 python3; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ ! -x $(BIN)/python ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  if [ -z "$$python" ] || ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo 'set-up: installing python3 and python3-venv'; \
	    $(APT) update -q && $(APT) install -q -y --no-install-recommends python3 python3-venv || exit 1; \
	    python=/usr/bin/python3; \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	      { echo "set-up: needs Python 3.11 or newer, found $$($$python --version)" >&2; exit 1; }; \
	  fi; \
	  rm -rf $(VENV) && $$python -m venv $(VENV) || exit 1; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
	@touch $@

broker:
	@command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ] || { \
	  echo 'set-up: installing mosquitto'; \
	  $(APT) update -q && $(APT) install -q -y --no-install-recommends mosquitto; }

# A software token for the tests of keys on tokens; without it they are skipped and say so.
token:
	@command -v softhsm2-util >/dev/null 2>&1 || { \
	  echo 'set-up: installing softhsm2, for the tests of keys on tokens'; \
	  $(APT) update -q && $(APT) install -q -y --no-install-recommends softhsm2; } || \
	  echo 'set-up: softhsm2 could not be installed: keys on tokens will NOT be tested'

# A compiler for the shim that cuts the power in tests; without it, or without root, they are skipped and say so.
compiler:
	@command -v gcc >/dev/null 2>&1 || { \
	  echo 'set-up: installing gcc, for the tests of power cuts'; \
	  $(APT) update -q && $(APT) install -q -y --no-install-recommends gcc libc6-dev e2fsprogs mount; } || \
	  echo 'set-up: gcc could not be installed: power cuts will NOT be tested'

# What RAUC's and SWUpdate's installers and gates on D-Bus drive; without it their tests are skipped and say so.
backends:
	@missing=; \
	for pair in rauc:rauc rauc:rauc-service dbus-daemon:dbus mksquashfs:squashfs-tools swupdate:swupdate \
	    fw_printenv:libubootenv-tool cpio:cpio openssl:openssl; do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v "$${pair%%:*}" >/dev/null 2>&1 || missing="$$missing $${pair#*:}"; \
	done; \
	/usr/bin/python3 -c 'import dbusmock' 2>/dev/null || missing="$$missing python3-dbusmock"; \
	[ -z "$$missing" ] || { \
	  echo "set-up: installing$$missing, for the tests of installers and gates"; \
	  $(APT) update -q && $(APT) install -q -y --no-install-recommends $$missing; } || \
	  echo "set-up:$$missing could not be installed: those installers and gates will NOT be tested"

demo: setup
	$(BIN)/flagship demo $(ARGS)

test: setup token backends compiler
	$(BIN)/python -m pytest -m "not slow" $(AT_ONCE) $(ARGS)

test-all: setup token backends compiler
	$(BIN)/python -m pytest --hypothesis-profile=searching $(AT_ONCE) $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy $(CHECKED)
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)

bench: setup
	@for file in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
	  echo "== $$file"; $(BIN)/python $$file $(ARGS) || exit 1; done

bench-delivery: setup
	$(BIN)/python -m benchmarks.delivery $(ARGS)

bench-device: setup
	$(BIN)/python -m benchmarks.device --json benchmarks/results/device.json
	$(BIN)/python -m benchmarks.device.table

bench-rollouts: setup
	@for name in planning looking halting simulating; do \
	  echo "== $$name"; $(BIN)/python -m benchmarks.rollouts.$$name --json benchmarks/results/$$name.json || exit 1; done
	$(BIN)/python -m benchmarks.rollouts.table

# The device's and the orchestrator's files take their versions from the largest one.
COMPILE := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header
lock:
	@command -v uv >/dev/null || { echo 'lock: needs uv on the PATH; install it with: pip install uv' >&2; exit 1; }
	$(COMPILE) --all-extras -o requirements/dev.txt
	$(COMPILE) --extra orchestrator -c requirements/dev.txt -o requirements/orchestrator.txt
	$(COMPILE) -c requirements/dev.txt -o requirements/device.txt
	@! grep -nE '://|--(extra-)?index-url|--find-links|--trusted-host' requirements/*.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
	find $(CHECKED) -name __pycache__ -type d -prune -exec rm -rf {} +
