# Larder's commands. `demo` and `test` are all that a fresh machine needs: each sets up what it uses.

.DEFAULT_GOAL := help
.PHONY: help demo demo-node test cluster scale image programs fuzz soak lint

# Where cargo puts programs.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Of the programs in the image, which has no libraries.
TRIPLE := $(shell uname -m)-unknown-linux-gnu
PROGRAMS := $(TARGET)/$(TRIPLE)/release
CLUSTER_TOOLS := containerd-1.6 containerd-1.7 containerd-2.4 cri distribution crane etcd kubernetes helm

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Larder on a real Kubernetes with two nodes: helm install, kubectl apply, pods; prints what it cost (root)
	@echo '==> Tools of the demo (the first time takes 10 minutes, 7 of them for Kubernetes)'
	@e2e/setup.sh $(CLUSTER_TOOLS)
	@$(MAKE) --no-print-directory programs
	@echo '==> Building the demo'
	@cargo build --workspace
	@echo '==> The demo'
	@$(TARGET)/debug/demo

demo-node: ## one node without Kubernetes: pull a 300 MB image with and without Larder (root, about 2 min)
	@echo '==> Tools of the demo'
	@e2e/setup.sh containerd-2.4 cri distribution crane
	@echo '==> Building Larder (the first time takes minutes)'
	@cargo build --workspace
	@echo '==> The demo'
	@$(TARGET)/debug/demo-node

test: ## all tests: unit, property, stories with real containerds, registries and Kubernetes, fuzzing (root)
	@echo '==> Tools of the tests (the first time takes 15 minutes, 7 of them for Kubernetes)'
	@e2e/setup.sh
	@$(MAKE) --no-print-directory programs
	@echo '==> Building and running all tests (the first time takes minutes)'
# `cargo test` alone builds only the programs of packages with integration tests: not larder-operator.
	@cargo build --workspace
	@cargo test --workspace --no-fail-fast
	@node-cache/fuzz/run

cluster: ## of the tests those on a real Kubernetes with two nodes (root)
	@echo '==> Tools of the cluster'
	@e2e/setup.sh $(CLUSTER_TOOLS)
	@$(MAKE) --no-print-directory programs
	@cargo build --workspace
	@cargo test --workspace --test cluster

scale: ## an operator with 1,000 simulated nodes and 100 registries: time, memory, requests (root, 10 min)
	@e2e/setup.sh $(CLUSTER_TOOLS) kwok
	@cargo build --workspace
	@cargo test --workspace --test scale -- --ignored --nocapture

image: programs ## Larder's image, an OCI layout of static programs and a CA bundle: target/image
	@cargo build --workspace
	@rm -rf $(TARGET)/image
	@$(TARGET)/debug/image --output $(TARGET)/image --binary $(PROGRAMS)/larder-node --binary $(PROGRAMS)/larder-operator

# With --target the flags are not those of build scripts and procedural macros, which cannot be static.
programs:
	@echo '==> Building the programs of the image (the first time takes minutes)'
	@RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target $(TRIPLE) -p larder-operator -p larder-node-cache --bins

fuzz: ## every fuzz target for FUZZ_SECONDS (20) seconds
	@e2e/setup.sh cargo-fuzz
	@node-cache/fuzz/run

soak: ## crashes, power cuts, damage and load at full length (root, an hour); CASE=power for one of: kill configurator power faults damage media deleted disk capacity clock hang load
	@echo '==> Tools of the tests'
	@e2e/setup.sh
	@echo '==> Building (the first time takes minutes)'
	@cargo build --quiet --workspace
	@cargo test --quiet --workspace --no-run
	@e2e/soak.sh $(CASE)

lint: ## formatting, clippy, documentation, and the Go and shell sources of e2e
	@e2e/setup.sh cri
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
	cd e2e/tools/cri && go vet .
	@echo 'gofmt -l e2e/tools'; unformatted=$$(gofmt -l e2e/tools) && [ -z "$$unformatted" ] || { echo "$$unformatted"; exit 1; }
	shellcheck e2e/setup.sh e2e/soak.sh node-cache/fuzz/run .ci/run
