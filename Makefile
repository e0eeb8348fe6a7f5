# Two commands are enough for a newcomer on Debian with cargo:
#   make demo    a small city to try it on
#   make test    everything that must hold
# Each installs the Debian packages it lacks (scripts/need) and then does its job.

CARGO ?= cargo
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
# Stop the demo by itself: make demo SECONDS=30. Anything else: make demo ARGS="--port 9443".
# (`origin`, because some shells export a SECONDS of their own.)
ARGS ?=
DEMO_SECONDS := $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS))

.PHONY: help
help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

.PHONY: demo
demo: need-compiler need-curl ## the city: make demo [SECONDS=30] [ARGS="--dir FOLDER"]
	@$(CARGO) run --locked --profile demo --example city_brain -- $(DEMO_SECONDS) $(ARGS)

.PHONY: test
test: need-compiler need-tests ## all tests of all crates; installs nginx, apache2, nodejs, haproxy, prometheus, sqlite3, curl, openssl, strace and faketime
	$(CARGO) test --locked --workspace

.PHONY: lint
lint: need-compiler ## formatting and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

.PHONY: doc
doc: need-compiler ## the library's documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --workspace

.PHONY: bench
bench: need-compiler ## the micro-benchmarks
	$(CARGO) bench --locked

.PHONY: load
load: need-compiler need-load ## CPU per command beside HAProxy and nginx; release build, takes a while
	$(CARGO) build --locked --release --workspace
	$(CARGO) run --locked --release --package loadtests -- compare $(ARGS)

.PHONY: torture
torture: need-compiler ## 100 kills of the gateway under load, audited one by one, then every attack; 15 minutes at most, as root; results in loadtests/results
	$(CARGO) build --locked --profile demo --workspace --bins
	$(TARGET_DIR)/demo/loadtests torture --tallygate $(TARGET_DIR)/demo/tallygate \
		--out loadtests/results/$(shell date -u +%F)-torture.md $(ARGS)
	$(TARGET_DIR)/demo/loadtests siege --tallygate $(TARGET_DIR)/demo/tallygate \
		--out loadtests/results/$(shell date -u +%F)-siege.md

.PHONY: clean
clean: ## everything that was built
	$(CARGO) clean

.PHONY: need-compiler need-curl need-tests need-load
need-compiler:
	@scripts/need cargo cc make
need-curl:
	@scripts/need curl
need-tests:
	@scripts/need curl openssl python3 python3-grpcio python3-websockets sqlite3 nginx apache2 node haproxy prometheus promtool strace faketime
need-load:
	@scripts/need nginx haproxy
