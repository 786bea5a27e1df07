# One verb a chore. Everything but Jaeger (in ~/.cache/wavegate) is made inside this folder: `.venv` holds the
# project and its tests, `.tools` what generates and checks the contract (it needs another protobuf, see
# buf.gen.yaml). Both are installed from locks with hashes, once. The locks are complete, and pip resolves nothing
# (--no-deps): what has been published since, and how old the pip is, makes no difference.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

VENV := .venv
TOOLS := .tools
PY := $(VENV)/bin/python
# buf calls its plugins as `python`, and they need the tools' one.
BUF := PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" buf
BASELINE := protos/baseline.binpb
# What `make fix` and `make check` look at.
PYTHON_CODE := server clients/python clients/conformance scripts $(wildcard tests benchmarks examples)

##@ Use it

.PHONY: help
help: ## Show this text
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nmake PYTHON=… setup picks the Python where there is no .venv yet; ARGS="…" is handed on by run, demo, test, test-unit, test-e2e, conformance, bench and soak.\n'

.PHONY: setup
setup: $(VENV)/.installed $(VENV)/.speech ## Make .venv: the project, its speech engines and its development tools

.PHONY: speech
speech: $(VENV)/.installed ## Try again to install the speech engines, where `make setup` could not
	@$(PY) scripts/speech_engines.py --must --stamp $(VENV)/.speech

.PHONY: run
run: setup ## Set up, then serve in the foreground (ARGS="--listen 127.0.0.1:50052" …)
	@exec $(VENV)/bin/wavegate-server $(ARGS)

.PHONY: demo
demo: setup ## Set up, then speak, listen and change settings in mid-stream, with a table of latencies
	@exec $(VENV)/bin/wavegate demo $(ARGS)

.PHONY: jaeger
jaeger: setup ## Serve a real Jaeger on 127.0.0.1:16686, for `OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 make run`
	@exec $(PY) scripts/jaeger.py run

##@ Change it

.PHONY: test
test: setup ## Set up, then run every test that this machine has the toolchain for (ARGS="-k name" …)
	@# -rs: every test that was left out, and why.
	$(VENV)/bin/pytest -m "not polyglot" --cov --cov-report=term -rs $(ARGS)

.PHONY: test-polyglot
test-polyglot: setup ## The clients in Go, Java and TypeScript, as far as this machine has their toolchains, and Envoy and nginx in front
	$(VENV)/bin/pytest -m polyglot -rs $(ARGS)

.PHONY: test-unit
test-unit: setup ## The tests that need neither a process nor a socket, on all cores: under a minute and a half (ARGS="-k name" …)
	$(VENV)/bin/pytest -m unit -n auto -q $(ARGS)

.PHONY: test-e2e
test-e2e: setup ## The tests of a whole gateway, with its upstream and its clients (ARGS="-k name" …)
	$(VENV)/bin/pytest -m e2e -rs $(ARGS)

.PHONY: conformance
conformance: setup ## Judge the clients of every language that this machine has the toolchain for, and print the matrix (ARGS="--only resume" …)
	@exec $(PY) -m clients.conformance.judge --matrix $(ARGS)

.PHONY: bench
bench: setup ## Measure the gateway against a direct WebSocket client (ARGS="--only tts-realtime --seconds 10" …)
	@exec $(PY) -m benchmarks $(ARGS)

.PHONY: soak
soak: setup ## 40 conversations while upstreams of all kinds keep failing, then random tests with new seeds (ARGS="--seconds 600 --seed 1" …)
	@exec $(PY) -m benchmarks.soak $(ARGS)

.PHONY: check
check: check-style check-types check-imports check-locks check-commits check-contract protos-check ## Every static check; `make fix` mends what it can

.PHONY: fix
fix: setup $(TOOLS)/.installed ## Format, and mend what the linters can mend
	$(VENV)/bin/ruff check --fix $(PYTHON_CODE)
	$(VENV)/bin/ruff format $(PYTHON_CODE)
	$(BUF) format --write

.PHONY: check-style
check-style: setup
	$(VENV)/bin/ruff check $(PYTHON_CODE)
	$(VENV)/bin/ruff format --check $(PYTHON_CODE)

.PHONY: check-types
check-types: setup
	$(VENV)/bin/mypy

.PHONY: check-imports
check-imports: setup
	$(VENV)/bin/lint-imports

.PHONY: check-locks
check-locks: setup $(TOOLS)/.installed
	$(PY) scripts/check_locks.py

.PHONY: check-commits
check-commits: setup
	$(PY) scripts/check_commits.py

.PHONY: check-contract
check-contract: $(TOOLS)/.installed
	$(BUF) format --diff --exit-code
	$(BUF) lint
	$(BUF) breaking --against $(BASELINE)

##@ The contract

# Go, Java and TypeScript need their toolchains; ALL=1 makes a missing one an error.
GENERATE := PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(TOOLS)/bin/python scripts/generate.py $(if $(ALL),--all)
.PHONY: protos
protos: $(TOOLS)/.installed ## Generate the code of every language from protos/
	$(GENERATE)

.PHONY: protos-check
protos-check: $(TOOLS)/.installed ## Fail where the generated code is not what protos/ says
	@$(GENERATE) --check

# A release makes what it ships the baseline of `buf breaking`; nothing else may.
.PHONY: protos-baseline
protos-baseline: $(TOOLS)/.installed ## At a release: make the contract of today the one not to break
	$(BUF) build --exclude-source-info --output $(BASELINE)

##@ Ship it

.PHONY: docs
docs: setup ## Write the reference of the Python client into build/docs
	$(PY) scripts/python_reference.py build/docs

# Names, versions and hashes only: a lock says nothing of the index it was made from.
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
# The extra alone: uv would add the project's own dependencies to it.
SPEECH := $(TOOLS)/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*project["optional-dependencies"]["speech"], sep="\n")'
.PHONY: lock
lock: $(TOOLS)/.installed ## Write the locks from pyproject.toml (UPGRADE=1: with the newest versions)
	$(COMPILE) pyproject.toml --group dev --output-file requirements.lock
	$(COMPILE) pyproject.toml --constraints requirements.lock --output-file requirements-runtime.lock
	$(SPEECH) | $(COMPILE) - --python-version 3.11 --constraints requirements.lock --output-file requirements-speech.lock
	$(COMPILE) --group pyproject.toml:speech-build --python-version 3.11 --output-file requirements-speech-build.lock
	$(COMPILE) --group pyproject.toml:tools --python-version 3.11 --output-file requirements-tools.lock
	@$(MAKE) check-locks

.PHONY: build
build: setup ## Build the wheels into dist/: wavegate, and wavegate-client with the client alone
	rm -rf dist
	$(PY) -m hatchling build --target wheel --directory dist
	cd clients/python && ../../$(PY) -m hatchling build --target wheel --directory ../../dist
	@ls -l dist

.PHONY: clean
clean: ## Remove everything that these verbs made in this folder (Jaeger and Prometheus stay in ~/.cache/wavegate)
	rm -rf $(VENV) $(TOOLS) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A new environment each time its lock changes, so that nothing lingers that is no longer asked for. The
# stamp is the lock it was made from: a lock that was only touched costs nothing.
$(VENV)/.locked: requirements.lock
	@if cmp --quiet $< $@; then touch $@; exit; fi; \
	python=$$(scripts/find-python); echo "Making $(VENV) with $$python"; \
	"$$python" -m venv --clear $(VENV); \
	$(PY) -m pip install --quiet --no-deps --require-hashes --requirement $<; \
	cp $< $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "$(VENV) is ready"

# May end without the engines, and says then what is missing: the gateway needs none for the real service.
$(VENV)/.speech: requirements-speech.lock requirements-speech-build.lock $(VENV)/.installed
	@$(PY) scripts/speech_engines.py --stamp $@

$(TOOLS)/.installed: requirements-tools.lock
	@if cmp --quiet $< $@; then touch $@; exit; fi; \
	python=$$(scripts/find-python 3.14); echo "Making $(TOOLS) with $$python"; \
	"$$python" -m venv --clear $(TOOLS); \
	$(TOOLS)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement $<; \
	cp $< $@; \
	echo "$(TOOLS) is ready"
