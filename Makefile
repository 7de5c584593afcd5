# Every command sets up what it needs: a virtual environment from the lock, made with uv.
STACK ?= dev
OUT ?= build/$(STACK)
PYTHON ?= python3
UV_VERSION := 0.13.8
LAB_MINUTES ?= 60

# Certificates of the system, so that a network with an authority of its own works too (two names: uv renamed it).
export UV_SYSTEM_CERTS := 1
export UV_NATIVE_TLS := 1

VENV := .venv
RUN := $(VENV)/bin/python -m
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)

.PHONY: preview render up restore job edge-plan edge-flip-back edge-health dns-snapshot lab test lint bench lock setup

preview: setup ## what an up would change; REFRESH=1 asks cluster, firewall and DNS first
	@$(RUN) tools.engine preview --stack $(STACK) --out $(OUT) $(if $(REFRESH),--refresh)

render: setup ## the same without engine, cluster or credentials
	@$(RUN) tools.render --stack $(STACK) --out $(OUT)

edge-plan: ## what an up would change on the firewall, asked of the firewall itself
edge-flip-back: ## lead the redirects back to the legacy address, without Pulumi's state
edge-health: ## the state of each server, as HAProxy on the firewall sees it
edge-plan edge-flip-back edge-health: edge-%: setup
	@$(RUN) tools.edge $* --stack $(STACK) $(if $(KEY),--key $(KEY))

up: setup ## make it so; REFRESH=1 as above
	@$(RUN) tools.engine up --stack $(STACK) $(if $(REFRESH),--refresh)

# `--name value` for a variable that is set; the value reaches the program as it was given, `$` and `'` included.
option = $(if $(value $(2)),--$(1) '$(subst ','\'',$(value $(2)))')

restore: setup ## WHAT=list|whole|mailbox|message [AT=] [MAILBOX=] [MESSAGE_ID=] [INTO=] [REPLACE=1] [GO=1]; a dry run without GO=1
	@$(RUN) tools.job $(or $(JOB),mail-restore) --stack $(STACK) $(if $(PRINT),--print) -- --what $(or $(WHAT),list) \
	  $(call option,at,AT) $(call option,mailbox,MAILBOX) $(call option,message-id,MESSAGE_ID) $(call option,into,INTO) \
	  $(if $(REPLACE),--replace) $(if $(GO),--go)

job: setup ## JOB=<CronJob> [ARGS=…]: run one of the jobs now
	@$(RUN) tools.job $(or $(JOB),'') --stack $(STACK) $(if $(PRINT),--print) -- $(ARGS)

test: setup ## every test; installs Debian's packages where root may
	@tools/packages.sh
	@$(RUN) pytest -n 2

lint: setup
	@tools/packages.sh
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@$(VENV)/bin/basedpyright
	@$(VENV)/bin/yamllint --strict .
	@shellcheck $$(git ls-files '*.sh'; git grep -l '^#!/bin/sh' -- tests/contract/pfsense) .ci/run
	@for file in $$(git ls-files '*.php' '*.inc' tests/contract/pfsense/etc/rc.bootup); do php -l $$file >/dev/null || exit 1; done

bench: setup ## measurements, as ratios
	@$(RUN) tools.bench
	@$(RUN) tests.contract.bench

lab: setup ## the rendered mail edge on this machine, to play with; ends after LAB_MINUTES or with Ctrl-C
	@tools/packages.sh
	@$(RUN) tools.lab --stack $(STACK) --minutes $(LAB_MINUTES)

setup: $(VENV)/.locked

$(VENV)/.locked: requirements.lock $(UV)
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	@UV_COMPILE_BYTECODE=1 $(UV) pip sync --quiet --require-hashes --python $(VENV)/bin/python requirements.lock
	@touch $@

.tools/bin/uv:
	@$(PYTHON) -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

dns-snapshot: setup ## look at other people's DNS, for the offline verification
	@$(RUN) tools.dns_snapshot

lock: $(UV) ## resolve pyproject.toml again
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --group dev pyproject.toml -o requirements.lock
