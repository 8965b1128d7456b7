# What a developer types. Everything that is made lies under target/; a second run does only what is left to do.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build host guests test host-with-tests test-others demo demo-cluster chaos bench bench-cluster fuzz fmt lint formatting \
	clippy-host clippy-guests prerequisites clean

ROOT := $(CURDIR)
GUEST_TARGET := wasm32-wasip2
SAMPLES := ping-pong quotes heartbeat hostile cash iou trade sanctions escrow oracle
CONTRACTS := cash iou trade hostile sanctions escrow oracle

# The host and the guests are compiled for different machines, each into a folder of its own.
HOST_ENV := CARGO_TARGET_DIR=$(ROOT)/target
GUEST_ENV := CARGO_TARGET_DIR=$(ROOT)/target/guests MAXHOST_BIN=$(ROOT)/target/release/maxhost

# By this name, because a line with the other one is run by `make -n` too.
BESIDE = $(MAKE) --no-print-directory

STEP = @echo; echo "== $(1)"

## build: the host at target/release/maxhost, the sample components at target/cordapps/*.wasm
build: prerequisites
	@$(BESIDE) -j2 host guests

prerequisites:
	@deploy/prerequisites.sh

host: prerequisites
	$(call STEP,host)
	@$(HOST_ENV) cargo build --release --workspace --exclude maxhost-bench

guests: prerequisites
	$(call STEP,sample CorDapps)
	@$(GUEST_ENV) cargo build --release --target $(GUEST_TARGET) --manifest-path cordapps/Cargo.toml
	@mkdir -p target/cordapps
	@for name in $(SAMPLES); do \
		built=target/guests/$(GUEST_TARGET)/release/$${name//-/_}.wasm; \
		cmp -s "$$built" "target/cordapps/$$name.wasm" || cp "$$built" "target/cordapps/$$name.wasm"; \
	done
	@for name in $(CONTRACTS); do \
		$(GUEST_ENV) cargo rustc --release --lib --crate-type cdylib --features component --target $(GUEST_TARGET) \
			--manifest-path cordapps/Cargo.toml -p "$$name-contract"; \
		built=target/guests/$(GUEST_TARGET)/release/$${name//-/_}_contract.wasm; \
		cmp -s "$$built" "target/cordapps/$$name.contract.wasm" || cp "$$built" "target/cordapps/$$name.contract.wasm"; \
	done
	@for file in target/cordapps/*.wasm; do \
		name=$$(basename "$$file" .wasm); \
		[[ " $(SAMPLES) $(addsuffix .contract,$(CONTRACTS)) " == *" $$name "* ]] || rm -f "$$file"; \
	done
	@ls -l target/cordapps | awk 'NR > 1 { print "   " $$9 ", " $$5 " bytes" }'

## test: everything: all suites of host, SDK and samples, Python clients, formatting, lints
test: prerequisites formatting
	@$(BESIDE) -j2 host-with-tests guests
	$(call STEP,tests of the host; all others and the lints beside them)
	@$(HOST_ENV) tests/programs.py '$(BESIDE) test-others' 'nice -n 19 $(BESIDE) clippy-host'
	$(call STEP,examples in comments)
	@$(HOST_ENV) cargo test --release --workspace --doc
	@echo; echo "everything passed"

# What `host` makes is among this, because tests drive it. It is one call of cargo, so that there is something to compile beside the end
# of the host, where one package waits for the other.
host-with-tests: prerequisites
	$(call STEP,host with its tests)
	@$(HOST_ENV) cargo test --release --workspace --tests --no-run

# They leave the host's own tests half of the machine, because most of those wait most of the time. The host's lints take what is
# left. Those of SDK and samples come last here: they compile into the same folder as the tests, and one of the two would wait.
test-others:
	$(call STEP,tests of the guest SDK)
	@$(GUEST_ENV) cargo test --manifest-path guest-sdk/Cargo.toml
	$(call STEP,tests of the sample CorDapps)
	@$(GUEST_ENV) cargo test --manifest-path cordapps/Cargo.toml
	$(call STEP,a client in Python)
	@tests/python/run.sh
	$(call STEP,the Helm chart)
	@tests/helm/run.sh
	@$(BESIDE) clippy-guests

## demo: a network, a host, flows over gRPC, kill -9 in the middle, and the same flows finish
demo: build
	$(call STEP,demonstration)
	@target/release/demo

## demo-cluster: PostgreSQL, ZooKeeper, Artemis, RPC workers, and Max Nodes that die, hang and go; no flow is lost or doubled
demo-cluster: build
	@$(HOST_ENV) cargo build --release --workspace --example demo_cluster
	$(call STEP,demonstration of several hosts)
	@target/release/examples/demo_cluster

## chaos: hosts under load while servers, hosts and the lines between them fail; FAULTS=200 of them, in the order of SEED=
chaos: build
	@$(HOST_ENV) cargo build --release --workspace --example chaos
	$(call STEP,faults)
	@target/release/examples/chaos $(if $(SEED),--seed $(SEED)) --faults $(or $(FAULTS),200) \
		--identities $(or $(IDENTITIES),200) $(CHAOS)

## bench: measures; see docs/benchmarks.md
bench: build
	@$(HOST_ENV) cargo build --release --workspace --bin bench
	@target/release/bench $(BENCH)

## bench-cluster: measures several hosts; see docs/benchmarks.md
bench-cluster: build
	@$(HOST_ENV) cargo build --release --workspace --example bench_cluster
	@target/release/examples/bench_cluster $(BENCH)

## fuzz: spoiled input at every place that reads what others wrote; for SECONDS_A_TARGET=60, all targets at once
fuzz: prerequisites
	$(call STEP,fuzzing)
	@$(HOST_ENV) MAXHOST_FUZZ_SECONDS=$(or $(SECONDS_A_TARGET),60) cargo test --release --workspace --test fuzz -- --nocapture

## fmt: formats all code
fmt:
	@cargo fmt --all
	@cargo fmt --all --manifest-path guest-sdk/Cargo.toml
	@cargo fmt --all --manifest-path cordapps/Cargo.toml

## lint: formatting and clippy, as the tests want them
lint: formatting clippy-host clippy-guests

formatting:
	$(call STEP,formatting)
	@cargo fmt --all -- --check
	@cargo fmt --all --manifest-path guest-sdk/Cargo.toml -- --check
	@cargo fmt --all --manifest-path cordapps/Cargo.toml -- --check

clippy-host:
	$(call STEP,clippy of the host)
	@$(HOST_ENV) cargo clippy --release --workspace --all-targets -- -D warnings

clippy-guests:
	$(call STEP,clippy of SDK and samples)
	@$(GUEST_ENV) cargo clippy --all-targets --manifest-path guest-sdk/Cargo.toml -- -D warnings
	@$(GUEST_ENV) cargo clippy --all-targets --manifest-path cordapps/Cargo.toml -- -D warnings

## clean: removes everything that was made
clean:
	@rm -rf target
