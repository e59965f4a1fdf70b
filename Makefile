# `make demo` plays the product, `make test` proves it. Everything else is detail: `make help`.

SHELL := /bin/sh
ROOT := $(CURDIR)
export PATH := $(ROOT)/.local/tools/bin:$(ROOT)/.local/tools/go/bin:$(PATH)

SERVICES := webhook-receiver inbound-processor outbound-sender opt-in-tracker window-timer template-catalog conversation-api
CHAOS_PROGRAMS := $(patsubst %,-p %,connector-chaos cloud-api-simulator connectorctl $(SERVICES))
DEMO_PROGRAMS := $(patsubst %,-p %,connector-demo cloud-api-simulator $(if $(filter kafka,$(BACKEND)),connectorctl $(SERVICES),connector))

FUZZ_TARGETS := classifier deliveries
FUZZ_SEEDS_classifier := fuzz/seeds/classifier
FUZZ_SEEDS_deliveries := crates/whatsapp/tests/fixtures/webhooks tests/cases
# Coverage without a sanitizer is what stable Rust has; the code under test has no unsafe. An input may take 10 seconds.
define fuzz_one
	@mkdir -p fuzz/corpus/$(1)
	cargo fuzz run --sanitizer none $(1) fuzz/corpus/$(1) $(FUZZ_SEEDS_$(1)) -- -dict=fuzz/dictionaries/$(1) -max_total_time=$(or $(SECONDS),60) -max_len=16384 -timeout=10 -verbosity=0 -print_final_stats=1

endef

.PHONY: help demo test check fuzz seeds chaos bench docs fmt

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
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target --no-default-features --locked -- -D warnings
	cargo deny --log-level error check licenses bans sources
	cargo machete --skip-target-dir
	cargo xtask deps
	cargo xtask schemas sync --check
	cargo xtask schemas check
	cargo xtask catalogue --check
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

fuzz: ## What a person or a delivery may contain, invented anew and anew; what it finds stays in fuzz/artifacts. SECONDS=60 each, ONLY=classifier|deliveries
	@deploy/local/require.sh fuzz
	$(foreach target,$(or $(ONLY),$(FUZZ_TARGETS)),$(call fuzz_one,$(target)))

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
