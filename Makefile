# `make demo` plays the product, `make test` proves it. Everything else is detail: `make help`.

SHELL := /bin/sh
ROOT := $(CURDIR)
export PATH := $(ROOT)/.local/tools/bin:$(ROOT)/.local/tools/go/bin:$(PATH)

SERVICES := webhook-receiver inbound-processor outbound-sender opt-in-tracker window-timer template-catalog conversation-api
CHAOS_PROGRAMS := $(patsubst %,-p %,connector-chaos cloud-api-simulator connectorctl $(SERVICES))
DEMO_PROGRAMS := $(patsubst %,-p %,connector-demo cloud-api-simulator $(if $(filter kafka,$(BACKEND)),connectorctl $(SERVICES),connector))

.PHONY: help demo test check seeds chaos bench docs fmt

help: ## This list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: ## Play the story of the product. ONCE=1: once, then end. BACKEND=kafka: each service its own process, on Kafka and Redis
	@deploy/local/require.sh build $(if $(filter kafka,$(BACKEND)),kafka)
	cargo build --locked --quiet $(DEMO_PROGRAMS)
	@target/debug/connector-demo $(if $(BACKEND),--backend $(BACKEND)) $(if $(ONCE),--once)

test: ## Every test, real Kafka and Redis included
	@deploy/local/require.sh test
	cargo build --workspace --all-targets --locked
	cargo test --workspace --locked

check: ## Format, lints, licences, unused dependencies, direction of dependencies, documentation, schemas
	@deploy/local/require.sh check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --log-level error check licenses bans sources
	cargo machete --skip-target-dir
	cargo xtask deps
	cargo xtask schemas sync --check
	cargo xtask schemas check
	cargo xtask catalogue --check
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

seeds: ## Simulated worlds by the thousand, in minutes: faults at every two calls, windows under everything. SEEDS=10000 plays every two faults
	@deploy/local/require.sh build
	SEEDS=$(or $(SEEDS),2000) cargo test --release --locked -p outbound-sender --test outbound crashes
	SEEDS=$(or $(SEEDS),2000) cargo test --release --locked -p connector-tests --test windows whatever

chaos: ## Kills, freezes and cuts off processes and servers under load, and counts what was lost. ONLY=outbound|inbound|windows|outage; ARGS="--quick --seed 2", ARGS=--cluster; RELEASE=1
	@deploy/local/require.sh kafka
	cargo build --locked --quiet $(if $(RELEASE),--release) $(CHAOS_PROGRAMS)
	@target/$(if $(RELEASE),release,debug)/connector-chaos $(ONLY) $(ARGS)

bench: ## The figures, as a table and in target/bench/results.json. ARGS="--only rss": some of them
	@deploy/local/require.sh kafka
	cargo build --release --workspace --bins --locked
	target/release/connector-bench $(ARGS)

docs: ## Write the generated pages of docs/reference anew
	cargo xtask catalogue
	WRITE_REFERENCE=1 cargo test -q -p connector-tests --locked reference

fmt: ## Format
	cargo fmt --all
