# Every command sets up what it needs: a virtual environment from the lock, made with uv.
STACK ?= dev
OUT ?= build/$(STACK)
PYTHON ?= python3
UV_VERSION := 0.13.8
LAB_MINUTES ?= 60
# More than cores: most of the time a test waits for a daemon.
WORKERS ?= 4

# Certificates of the system, so that a network with an authority of its own works too (two names: uv renamed it).
export UV_SYSTEM_CERTS := 1
export UV_NATIVE_TLS := 1

VENV := .venv
RUN := $(VENV)/bin/python -m tools
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)

.PHONY: help preview render up drift destroy restore job doctor edge-plan edge-flip-back edge-health edge-check dns-snapshot lab lab-compare lab-doctor test golden lint bench docs docs-site lock setup init adopt stack-init mutation

help: ## this list; STACK=<name> chooses the stack (dev)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

init: setup ## start a site: asks what it cannot read off the cluster, writes the stack file and keys; STACK=home [DOMAIN= CONTEXT= NODES= FIREWALL= ADDRESSES= MAILBOX=]
	@$(RUN) init --stack $(STACK) $(call option,domain,DOMAIN) $(call option,context,CONTEXT) $(call option,nodes,NODES) \
	  $(call option,pods,PODS) $(call option,storage-class,STORAGE_CLASS) $(call option,firewall,FIREWALL) $(call option,addresses,ADDRESSES) $(call option,mailbox,MAILBOX)

adopt: setup ## take a running system over: writes `adopt` into the settings or says what forbids it; [SAVE= | FROM=] [ALIASES=file ACCOUNTS=file LEAVE= KEY=]
	@$(RUN) adopt --stack $(STACK) $(call option,save,SAVE) $(call option,from,FROM) $(call option,aliases,ALIASES) \
	  $(call option,accounts,ACCOUNTS) $(call option,leave,LEAVE) $(call option,key,KEY)

preview: setup ## what an `up` would change; REFRESH=1 asks cluster, firewall and DNS first
	@$(RUN) preview --stack $(STACK) --out $(OUT) $(if $(REFRESH),--refresh)

render: setup ## the same without engine, cluster or credentials; JSON=1 prints the findings as JSON instead
	@$(RUN) render --stack $(STACK) --out $(OUT) $(if $(JSON),--json)

edge-plan: ## what an `up` would change on the firewall, asked of the firewall itself; KEY=<file of the SSH key>
edge-flip-back: ## point the redirects back to the legacy address, without Pulumi's state
edge-health: ## the state of each server, as HAProxy on the firewall sees it
edge-plan edge-flip-back edge-health: edge-%: setup
	@$(RUN) edge-$* --stack $(STACK) $(if $(KEY),--key $(KEY))

edge-check: setup ## connect to every mail service as a client does, as an `up` does after new redirects
	@$(RUN) edge-check --stack $(STACK)

drift: setup ## what others have changed since the last `up`, in cluster, DNS and firewall; KEY=<file of the firewall's SSH key>
	@$(RUN) drift --stack $(STACK) $(if $(KEY),--key $(KEY))

up: setup ## deploy; REFRESH=1 as for a preview, YES=1 does not ask
	@$(RUN) up --stack $(STACK) $(if $(REFRESH),--refresh) $(if $(YES),--yes)

destroy: setup ## retire the stack; refuses while anything of it is protected; YES=1 does not ask
	@$(RUN) destroy --stack $(STACK) $(if $(YES),--yes)

stack-init: setup ## make the stack's state, once
	@$(RUN) stack-init --stack $(STACK)

# `--name value` for a variable that is set; the value reaches the program as it was given, `$` and `'` included.
option = $(if $(value $(2)),--$(1) '$(subst ','\'',$(value $(2)))')

restore: setup ## bring mail back: WHAT=list|whole|mailbox|message [AT=] [MAILBOX=] [MESSAGE_ID=] [INTO=] [REPLACE=1] [GO=1]; a dry run without GO=1
	@$(RUN) job $(or $(JOB),mail-restore) --stack $(STACK) $(if $(PRINT),--print) -- --what $(or $(WHAT),list) \
	  $(call option,at,AT) $(call option,mailbox,MAILBOX) $(call option,message-id,MESSAGE_ID) $(call option,into,INTO) \
	  $(if $(REPLACE),--replace) $(if $(GO),--go)

job: setup ## JOB=<CronJob> [ARGS=…]: run one of the jobs now
	@$(RUN) job $(or $(JOB),'') --stack $(STACK) $(if $(PRINT),--print) -- $(ARGS)

doctor: setup ## is it well, and if not, why and what now; ONLY=dns,edge,… JSON=1 ALL=1 INSIDE=1 KEY=<file of the firewall's SSH key>
	@$(RUN) doctor --stack $(STACK) $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json) $(if $(ALL),--all) $(if $(INSIDE),--inside) $(if $(KEY),--key $(KEY))

test: setup ## run every test; as root, installs the Debian packages they need
	@tools/packages.sh
	@$(VENV)/bin/pytest -n $(WORKERS)

lab-compare: setup ## where the running mail server differs from what the lab expects of the image
	@$(RUN) lab-compare --stack $(STACK)

golden: setup ## write tests/program/golden anew after an intended change of what is registered
	@$(VENV)/bin/python -m tests.program.golden

mutation: setup ## break random lines one at a time and list what no test notices: SEED=, COUNT=; takes hours
	@$(VENV)/bin/python -m tools.mutation $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

lint: setup ## style, types, layers, shell, PHP, YAML and the links of the documentation
	@tools/packages.sh
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@$(VENV)/bin/basedpyright
	@$(VENV)/bin/lint-imports --no-cache --no-logo
	@$(VENV)/bin/yamllint --strict .
	@shellcheck $$(git ls-files '*.sh'; git grep -l '^#!/bin/sh' -- tests/contract/pfsense) .ci/run
	@for file in $$(git ls-files '*.php' '*.inc' tests/contract/pfsense/etc/rc.bootup); do php -l $$file >/dev/null || exit 1; done
	@$(MAKE) --no-print-directory docs-site

bench: setup ## benchmarks, as ratios; writes docs/bench.md
	@$(RUN) bench
	@$(VENV)/bin/python -m tests.contract.bench
	@$(VENV)/bin/python -m tests.engine.bench_dns

lab: setup ## run the rendered mail edge on this machine; stops after LAB_MINUTES or with Ctrl-C
	@tools/packages.sh
	@$(RUN) lab --stack $(STACK) --minutes $(LAB_MINUTES)

lab-doctor: setup ## the doctor on the rendered mail edge, on this machine; PICTURE=docs/doctor.svg writes what it prints
	@tools/packages.sh
	@$(RUN) lab-doctor --stack $(STACK) $(call option,picture,PICTURE)

setup: $(VENV)/.locked ## install what the lock file lists into .venv

$(VENV)/.locked: requirements.lock $(UV)
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	@UV_COMPILE_BYTECODE=1 $(UV) pip sync --quiet --require-hashes --python $(VENV)/bin/python requirements.lock
	@touch $@

.tools/bin/uv:
	@$(PYTHON) -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

dns-snapshot: setup ## look up the DNS records of others that the offline verification needs
	@$(RUN) dns-snapshot

docs: setup ## write the generated parts of the documentation
	@$(RUN) docs

docs-site: setup ## build the documentation as a site in build/site; a broken link or anchor is an error
	@rm -rf build/site && $(VENV)/bin/zensical build --clean --strict -f mkdocs.yml
	@git ls-files -z components schemas scripts tools | xargs -0 cp --parents -t build/site
	@echo "build/site/docs/index.html; search needs a server: python3 -m http.server -d build/site"

lock: $(UV) ## resolve pyproject.toml again
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --group dev pyproject.toml -o requirements.lock
