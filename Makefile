# Every command of the project, by name. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export CARGO_TARGET_DIR ?= $(CURDIR)/target
DEBUG := $(CARGO_TARGET_DIR)/debug
FAST := $(CARGO_TARGET_DIR)/fast
WEB := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print 2>/dev/null)

.PHONY: help demo test lint advisories images bench dev dogfood setup fetch web docs clean-demo

help: ## List the commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## Install or start what is missing: Docker Engine, Chromium, Git, npm packages.
	@tests/ensure.sh docker git

fetch: ## Fetch every crate that the build, the tests and the checks read, of every platform.
	@cargo fetch --locked --quiet
	@cargo fetch --locked --quiet --manifest-path crates/shim/Cargo.toml

web: web/dist/index.html ## Build the web UI.

web/dist/index.html: $(WEB)
	@tests/ensure.sh node
	npm --prefix web ci --no-audit --no-fund --silent
	npm --prefix web run build --silent
	@touch $@

images: setup ## Make the images of the demo and the tests from this machine's own files.
	@tests/images/make.sh

demo: images web ## Show the main job, from push to canary to DORA. CHECK=1 checks it and ends; PORT= is the first port.
	cargo build --workspace --bin pipectl --profile fast
	@PATH="$(FAST):$$PATH" pipectl demo $(if $(CHECK),--check) $(if $(PORT),--port $(PORT))

# What a test needs and isn't there makes it fail. SKIP="docker registry root python payloads browser"
# leaves out what needs one of those, each by its name, and counts them at the end; never on CI.
SKIPPED := $(CARGO_TARGET_DIR)/skipped-tests
needed = $(filter-out $(SKIP),$(1))

test: $(if $(call needed,docker),images) fetch web ## Set up and run every test, with real Docker and a real browser. SKIP= leaves some out.
	@[ -z "$(SKIP)" ] || [ -z "$${CI:-}" ] || { echo "SKIP=$(SKIP): on CI nothing is left out" >&2; exit 2; }
	@mkdir -p $(CARGO_TARGET_DIR); rm -f $(SKIPPED)
	@tests/ensure.sh $(call needed,browser python registry)
	$(if $(call needed,payloads),server/tests/payloads/install.sh)
	cargo build --workspace --all-targets
	PIPEYARD_SKIP="$(filter-out browser,$(SKIP))" PIPEYARD_SKIPPED=$(SKIPPED) PIPECTL=$(DEBUG)/pipectl cargo test --workspace --no-fail-fast
	npm --prefix web run check
	npm --prefix web test
	$(if $(call needed,browser),npm --prefix tests/browser ci --no-audit --no-fund --silent,echo "tests/browser: it needs browser" >>$(SKIPPED))
	$(if $(call needed,browser),npm --prefix tests/browser test)
	$(if $(call needed,browser),PIPECTL=$(DEBUG)/pipectl tests/browser/e2e.sh)
	@[ ! -s $(SKIPPED) ] || { echo "left out, as SKIP says: $$(wc -l <$(SKIPPED)) tests"; sed 's/^/  SKIPPED /' $(SKIPPED); }

lint: fetch web ## Check format, lints, crate boundaries and types.
	cargo fmt --all --check
	cargo fmt --manifest-path crates/shim/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --manifest-path crates/shim/Cargo.toml --target-dir $(CARGO_TARGET_DIR)/shim -- -D warnings
	@tests/ensure.sh deny
	PATH="$$PATH:$(CARGO_TARGET_DIR)/tools/bin" cargo deny --offline check bans licenses sources
	@tests/advisories.sh
	npm --prefix web run check

advisories: fetch ## Fetch the database of known vulnerabilities and check every crate against it.
	@tests/ensure.sh deny
	@tests/advisories.sh fetch

# demo_cold takes ten minutes and is measured only when it is named; then nothing else is built.
MEASURED = $(if $(ONLY),$(filter-out demo_cold,$(ONLY)),all)

bench: images web ## Measure, each figure beside a floor of the same run. ONLY="queue log" chooses; demo_cold only so.
	$(if $(MEASURED),cargo build --workspace --bins --profile fast)
	@$(if $(MEASURED),PIPECTL=$(FAST)/pipectl $(FAST)/pipeyard-bench $(filter-out all,$(MEASURED)))
	@$(if $(filter demo_cold,$(ONLY)),bench/demo_cold.sh)

dev: web ## Run everything from this tree on 127.0.0.1:8470, with its data in .dev/.
	cargo build --workspace --bins
	@$(DEBUG)/pipectl up --data .dev

dogfood: images web ## Push this repository at HEAD into a Pipeyard of its own and wait for green.
	cargo build --workspace --bins
	@PIPECTL=$(DEBUG)/pipectl tests/dogfood.sh

docs: ## Write docs/reference anew from the code.
	cargo xtask docs
	cargo build --workspace --bin pipectl
	$(DEBUG)/pipectl reference > docs/reference/cli.md

clean-demo: ## Remove what a demo left: its data, containers and networks.
	@$(FAST)/pipectl demo --down
