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
	@$(CARGO) run --locked --profile demo --package city_brain -- $(DEMO_SECONDS) $(ARGS)

.PHONY: test
test: need-compiler need-tests ## all tests of all crates; installs nginx, apache2, nodejs, gunicorn, tomcat10, haproxy, prometheus, sqlite3, curl, openssl, strace and faketime
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

# Doors strangers have; docs/decisions/fuzzing.md. New inputs go to a folder of their own; what is worth keeping is copied to fuzz/corpus.
DOORS := head path certificate configuration proxied ledger
FUZZ_SECONDS ?= 60
FUZZ_DIR = $(TARGET_DIR)/fuzz

.PHONY: fuzz
fuzz: need-compiler need-cplusplus ## libFuzzer at every door, FUZZ_SECONDS (60) each; ends at the first finding
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/instrument $(CARGO) build --locked --package fuzz --features libfuzzer
	@set -e; for door in $(DOORS); do \
		mkdir -p $(FUZZ_DIR)/$$door; \
		echo "== $$door: new inputs and findings in $(FUZZ_DIR)/$$door"; \
		$(TARGET_DIR)/debug/fuzz_$$door -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -max_len=32768 \
			-verbosity=0 -print_final_stats=1 -artifact_prefix=$(FUZZ_DIR)/$$door- $(FUZZ_DIR)/$$door fuzz/corpus/$$door; \
	done

# Tools that are no dependency: compiled once, into a folder of their own.
TOOLS = $(TARGET_DIR)/tools
DENY_CHECKS ?= advisories bans licenses sources

.PHONY: deny
deny: need-compiler $(TOOLS)/bin/cargo-deny ## licences, sources, banned crates, published weaknesses (the last needs the advisory database from the net; without: DENY_CHECKS="bans licenses sources")
	$(TOOLS)/bin/cargo-deny --locked --workspace check $(DENY_CHECKS)

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install --locked --root $(TOOLS) cargo-deny@0.20.2

.PHONY: sbom
sbom: need-compiler $(TOOLS)/bin/cargo-cyclonedx ## what the program is made of, as CycloneDX: target/tallygate.cdx.json
	$(TOOLS)/bin/cargo-cyclonedx cyclonedx --format json --override-filename tallygate.cdx --quiet
	@mv tallygate.cdx.json $(TARGET_DIR)/ && find fuzz loadtests models -maxdepth 1 -name '*.cdx.json' -delete
	@echo "$(TARGET_DIR)/tallygate.cdx.json"

$(TOOLS)/bin/cargo-cyclonedx:
	$(CARGO) install --locked --root $(TOOLS) cargo-cyclonedx@0.5.9

.PHONY: clean
clean: ## everything that was built
	$(CARGO) clean

.PHONY: need-compiler need-cplusplus need-curl need-tests need-load
need-compiler:
	@scripts/need cargo cc make
need-cplusplus:
	@scripts/need c++
need-curl:
	@scripts/need curl
need-tests:
	@scripts/need curl openssl python3 python3-grpcio python3-hypercorn python3-websockets sqlite3 nginx apache2 node gunicorn java tomcat10 haproxy prometheus promtool strace faketime
need-load:
	@scripts/need nginx haproxy
