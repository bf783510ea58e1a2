# Larder's commands. `demo` and `test` are all that a fresh machine needs: each sets up what it uses.

.DEFAULT_GOAL := help
.PHONY: help demo test cluster fuzz soak lint

# Where cargo puts programs.
TARGET := $(or $(CARGO_TARGET_DIR),target)

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## pull a 300 MB image with and without Larder, and print what it cost (root, about 2 min)
	@echo '==> Tools of the demo'
	@e2e/setup.sh containerd-2.4 cri distribution crane
	@echo '==> Building Larder (the first time takes minutes)'
	@cargo build --workspace
	@echo '==> The demo'
	@$(TARGET)/debug/demo

test: ## all tests: unit, property, stories with real containerds and registries, fuzzing (root)
	@echo '==> Tools of the tests'
	@e2e/setup.sh
	@echo '==> Building and running all tests (the first time takes minutes)'
	@cargo test --workspace --no-fail-fast
	@node-cache/fuzz/run

cluster: ## stories on a real Kubernetes with two nodes (root; the first time builds it, 7 min). Not part of `make test` yet
	@echo '==> Tools of the cluster'
	@e2e/setup.sh containerd-1.6 containerd-1.7 containerd-2.4 cri distribution crane etcd kubernetes helm
	@cargo build --workspace
	@cargo test --workspace --test cluster -- --ignored

fuzz: ## every fuzz target for FUZZ_SECONDS (20) seconds
	@e2e/setup.sh cargo-fuzz
	@node-cache/fuzz/run

soak: ## crashes, power cuts, damage and load at full length (root, an hour); CASE=power for one of: kill configurator power faults damage media deleted disk capacity clock hang load
	@echo '==> Tools of the tests'
	@e2e/setup.sh
	@echo '==> Building (the first time takes minutes)'
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
