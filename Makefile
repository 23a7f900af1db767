# Thin targets: each line is a command that you could type yourself.
# Needed: the Rust toolchain, a C compiler, git, make, and bash.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
# Where cargo puts release builds.
RELEASE = $(or $(CARGO_TARGET_DIR),target)/release
# Given to the program that a target starts: make bench-tasks ARGS='--in-flight 64'
ARGS ?=
# The crates that no clock, thread or file may enter.
CORE := -p quorate-model -p quorate-scheduler -p quorate-dispatch

.PHONY: help setup build test core sim power-cuts verify fix cluster demo demo-llm bench-tasks bench-plan bench-fleet bench-agents bench-scale deny record

help: ## What there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-12s %s\n", $$1, $$2 }'

setup: ## Fetch the dependencies, so that the rest works offline
	$(CARGO) fetch --locked

# The whole workspace, also where only one binary is wanted: cargo unites features over what is
# selected, and another selection would build most dependencies once more.
build: ## Build everything (release); the one binary is target/release/quorate
	$(CARGO) build --locked --release --workspace --bins

test: verify ## verify, then every test there is
	scripts/test

core: ## Only the pure core's tests: seconds, no sockets, no disk
	$(CARGO) test --locked $(CORE)

# A test, so that it can be told to have bugs; with all assertions, and optimized.
sim: ## Simulated clusters that break: SEEDS=1000, or SEED=7 again; ARGS=--mutants plants each known bug
	$(CARGO) test --locked --profile sim -p quorate-sim --test sim -- $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000)) $(ARGS)

power-cuts: ## Cut the power of real file systems on a busy machine: CUTS=300 PARALLEL=4 ON=xfs
	scripts/power-cuts

verify: ## Read-only checks: formatting, lints, tidiness, documentation
	$(CARGO) fmt --all --check
	scripts/tidy
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --workspace --no-deps --document-private-items --quiet

fix: ## Format, apply the lints' own fixes, rewrite the golden scripts
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all
	UPDATE_GOLDENFILES=1 $(CARGO) test $(CORE)

cluster: build ## A development cluster in the foreground; Ctrl-C stops it
	$(RELEASE)/quorate dev $(ARGS)

demo: build ## Real work on a real cluster whose leader is killed half-way; nothing is lost
	$(RELEASE)/demo $(ARGS)

demo-llm: build ## Ask a real model through a cluster, the leader killed in mid-answer (python3; 250 MB, once)
	scripts/demo-llm

record: build ## Record the README's session anew, from a real cluster (python3)
	QUORATE_BIN=$(RELEASE)/quorate scripts/record

bench-tasks: build ## Tasks per second, latency and fsyncs at 1, 16, 64 and 256 in flight
	$(RELEASE)/bench-tasks $(ARGS)

bench-plan: ## What a round of the scheduler costs: 1,000 agents, 100,000 queued tasks
	$(CARGO) bench --locked -p quorate-scheduler --bench plan -- $(ARGS)

bench-fleet: build ## Seven agents of three speeds: round robin with a queue for each beside the strategies
	$(RELEASE)/bench-tasks --fleet $(ARGS)

bench-agents: build ## 1,000 agents on one cluster: what they cost, and how soon they are back after the leader died
	$(RELEASE)/bench-tasks --agents 1000 $(ARGS)

bench-scale: build ## A million queued tasks: memory, latency, snapshots, restarts; ARGS='--sustained 10' for a steady rate
	$(RELEASE)/bench-tasks $(or $(ARGS),--queued 1000000)

deny: ## Licences, sources and banned crates (needs cargo-deny)
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "make deny needs cargo-deny: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --locked check licenses bans sources
