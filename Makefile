# Everything a person or a machine does here is one of these targets.
# They find, or install, what they need: see scripts/setup.

.DEFAULT_GOAL := help
.PHONY: help demo example test test-api test-node image check bench bench-telemetry mutants setup build clean

# A fresh shell often lacks cargo's directory.
export PATH := $(PATH):$(HOME)/.cargo/bin

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The debug build: what is shown are counts, and `make test` has built most of it.
demo: ## A dozen agents through execpool, live, and straight at PostgreSQL
	@env=$$(scripts/setup --demo) && eval "$$env" && cargo build --quiet --locked && \
		exec cargo run --quiet --locked -- demo

example: ## A LangGraph agent on execpool, without an API key; FOREVER=1 to look at it with execpool top
	@env=$$(scripts/setup --example) && eval "$$env" && cargo build --quiet --locked && \
		EXECPOOL_BIN=$${CARGO_TARGET_DIR:-target}/debug/execpool PYTHONPATH=clients/python/src \
		exec "$$EXECPOOL_CLIENT_PYTHON" examples/langgraph_agent/run.py $(if $(FOREVER),--forever)

test: ## Every test, over real sockets against a real PostgreSQL
	@scripts/test

test-api: ## What speaks to a real Kubernetes API, without a node
	@scripts/test --test api --test charts_api --test remedies_api

test-node: ## Pods on a real node: kubelet, containerd, Helm; what supervisors go by; takes root
	@scripts/test --test cluster --test image --test node --test supervised

image: ## The container image, as an archive, without a container engine
	@scripts/image

check: ## The quick loop: format, clippy with warnings as errors, unit tests
	@cargo fmt --all --check
	@cargo clippy --quiet --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
	@cargo test --quiet --lib --bins

bench: ## CPU, throughput and memory beside PgBouncer; ROUNDS=1 SECONDS=2 to try it, STRICT=1
	@scripts/bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(SETTLE),--settle $(SETTLE)) $(if $(CPU),--cpu $(CPU)) $(if $(STRICT),--strict)

bench-telemetry: ## CPU of the data plane with telemetry and without; ROUNDS=, SECONDS=, CPU=, STRICT=1
	@scripts/bench telemetry $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(CPU),--cpu $(CPU)) $(if $(STRICT),--strict)

mutants: setup ## Faults put in on purpose: each must make its test fail
	@env=$$(scripts/setup --find) && eval "$$env" && scripts/mutants && cargo build --quiet --locked && \
		EXECPOOL_BIN=$$(realpath "$${CARGO_TARGET_DIR:-target}/debug/execpool") \
		"$$EXECPOOL_CLIENT_PYTHON" clients/python/mutants.py

setup: ## Find or install all that the tests need: PostgreSQL, drivers, a collector, Prometheus
	@scripts/setup >/dev/null

build: ## Build execpool (debug)
	@cargo build --locked

clean: ## Remove what was built here and the cache of the set-up
	@cargo clean --quiet
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/execpool"
