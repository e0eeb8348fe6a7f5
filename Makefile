# Two commands for newcomers on Debian with cargo:
#   make demo    a small city for trying out Tallygate
#   make test    all tests
# Each target first installs the Debian packages that are missing (scripts/need).

CARGO ?= cargo
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
# Time limit of the demo: make demo SECONDS=30. Other options: make demo ARGS="--port 9443".
# (`origin` is needed because some shells export a variable SECONDS.)
ARGS ?=
DEMO_SECONDS := $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS))

.PHONY: help
help: ## list of targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.PHONY: demo
demo: need-compiler need-demo ## run the demo city beside a real Prometheus: make demo [SECONDS=30] [ARGS="--dir FOLDER"]; installs curl and prometheus
	@$(CARGO) run --locked --profile demo --package city_brain -- $(DEMO_SECONDS) $(ARGS)

.PHONY: test
test: need-compiler need-tests ## run all tests of all crates; installs nginx, apache2, nodejs, gunicorn, tomcat10, haproxy, prometheus, sqlite3, curl, openssl, strace and faketime
	$(CARGO) test --locked --workspace

# The tests of exact hours against Prometheus 3, built from its Go module. `make test` has them against Debian's 2.42.
PROMETHEUS3 = $(abspath $(TARGET_DIR))/prometheus3

.PHONY: prometheus3-test
prometheus3-test: need-compiler need-tests ## test exact hours in Prometheus, reports and reconciliation against Prometheus 3; builds it from its Go module once (four minutes of processor time)
	@scripts/need go
	tests/prometheus3/build.sh $(PROMETHEUS3)
	TALLYGATE_TEST_TOOLS=$(PROMETHEUS3) $(CARGO) test --locked --test tests -- operator::backfill operator::reconciliation \
		operator::remembered_heads operator::scrape_jobs operator::scraped_usage operator::sealed_hours operator::alert_rules

# Left out: the long tests (simulated histories, losses of power, kills), and those that need strace or python3.
.PHONY: quick
quick: need-compiler ## the library's tests without the long ones: under two minutes warm, no root, no other programs
	$(CARGO) test --locked --lib -- --skip simulation --skip power_loss --skip process_kill --skip crash_points \
		--skip ledger::tests::audit --skip ledger::tests::appended_seals --skip ledger::tests::waived_units

.PHONY: lint
lint: need-compiler ## check formatting and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

.PHONY: doc
doc: need-compiler ## build the library's documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --workspace

.PHONY: bench
bench: need-compiler ## run the micro-benchmarks
	$(CARGO) bench --locked

.PHONY: load
load: need-compiler need-load ## measure CPU per command beside HAProxy and nginx; release build, takes several minutes
	$(CARGO) build --locked --release --workspace
	$(CARGO) run --locked --release --package loadtests -- compare $(ARGS)

.PHONY: torture
torture: need-compiler ## crash test (100 kills under load, each followed by an audit), then all attacks; at most 15 minutes, as root; results in loadtests/results
	$(CARGO) build --locked --profile demo --workspace --bins
	$(TARGET_DIR)/demo/loadtests torture --tallygate $(TARGET_DIR)/demo/tallygate \
		--out loadtests/results/$(shell date -u +%F)-torture.md $(ARGS)
	$(TARGET_DIR)/demo/loadtests siege --tallygate $(TARGET_DIR)/demo/tallygate \
		--out loadtests/results/$(shell date -u +%F)-siege.md

# A real kubelet with real pods, apart from `make test`: it needs root and a long first build. CLUSTER=NAME starts another one.
.PHONY: cluster-up cluster-down cluster-test
cluster-up: ## start a Kubernetes cluster of one node, as root: tests/cluster/README.md (the first build takes about 7 minutes)
	@tests/cluster/cluster up

cluster-down: ## end the cluster and remove everything it made
	@tests/cluster/cluster down

cluster-test: need-compiler ## test the cluster itself (workloads, volumes, rolling restart, nothing left behind), and the library's Kubernetes client against its API server; two minutes after the first build
	@tests/cluster/cluster test
	@tests/cluster/real-api.sh

.PHONY: cluster-proofs
cluster-proofs: ## measure the controller and roll-outs on a test cluster, as root, after `make image`: loadtests/kubernetes/README.md; an hour; ARGS="restart kill" for some
	@loadtests/kubernetes/proofs up && loadtests/kubernetes/proofs run $(ARGS); status=$$?; loadtests/kubernetes/proofs down; exit $$status

.PHONY: conformance
conformance: ## run the Gateway API's conformance suite on a cluster of its own, as root, after `make image`: tests/conformance/README.md; three minutes after the first build
	@tests/conformance/conformance run $(ARGS)

.PHONY: traces-test
traces-test: need-compiler ## send traces to a real OpenTelemetry Collector; builds it from its Go modules once (some minutes)
	@tests/tracing/run

# The package for Kubernetes: deploy/README.md.
.PHONY: image chart-test chart-cluster-test
image: ## build the container image FROM scratch, static and reproducible, with its bill of materials, into target/image
	@deploy/image/build.sh

chart-test: ## test the Helm chart, kustomize base and install.yaml without a cluster; builds helm, kustomize and kubeconform from Go modules once (3 minutes)
	@deploy/test.sh

chart-cluster-test: ## install the chart on a test cluster of its own, as root, with a program that stands in for the gateway
	@deploy/test-cluster.sh

# Tools outside the dependencies: built once, into a separate folder.
TOOLS = $(TARGET_DIR)/tools

# The dashboards of deploy/grafana. The package with Grafana's schema is pinned by its hash, and lies in a folder of its own.
DASHBOARD_PYTHON = $(TOOLS)/grafana/bin/python

.PHONY: dashboards dashboards-check
dashboards: $(DASHBOARD_PYTHON) ## write the dashboards of deploy/grafana and their copies in the chart
	@$(DASHBOARD_PYTHON) deploy/grafana/dashboards.py

dashboards-check: $(DASHBOARD_PYTHON) ## check that the dashboards are up to date and valid by Grafana's own schema
	@$(DASHBOARD_PYTHON) deploy/grafana/dashboards.py --check && echo "dashboards: up to date, valid by Grafana's schema"

$(DASHBOARD_PYTHON): deploy/grafana/requirements.txt
	@scripts/need python3 python3-venv
	python3 -m venv $(TOOLS)/grafana
	$(TOOLS)/grafana/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement deploy/grafana/requirements.txt
	@touch $(DASHBOARD_PYTHON)

# The fuzz targets: entry points of untrusted input (docs/decisions/fuzzing.md). New inputs are written to a separate folder.
# Inputs worth keeping are copied to fuzz/corpus.
DOORS := head path certificate configuration proxied ledger response
FUZZ_SECONDS ?= 60
FUZZ_DIR = $(TARGET_DIR)/fuzz

.PHONY: fuzz
fuzz: need-compiler need-cplusplus ## run libFuzzer on all fuzz targets, FUZZ_SECONDS (60) each; stops at the first finding
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/instrument $(CARGO) build --locked --package fuzz --features libfuzzer
	@set -e; for door in $(DOORS); do \
		mkdir -p $(FUZZ_DIR)/$$door; \
		echo "== $$door: new inputs and findings in $(FUZZ_DIR)/$$door"; \
		$(TARGET_DIR)/debug/fuzz_$$door -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -max_len=32768 \
			-verbosity=0 -print_final_stats=1 -artifact_prefix=$(FUZZ_DIR)/$$door- $(FUZZ_DIR)/$$door fuzz/corpus/$$door; \
	done

DENY_CHECKS ?= advisories bans licenses sources

.PHONY: deny
deny: need-compiler $(TOOLS)/bin/cargo-deny ## check licences, sources, banned crates and security advisories (the advisory database needs network access; without it: DENY_CHECKS="bans licenses sources")
	$(TOOLS)/bin/cargo-deny --locked --workspace check $(DENY_CHECKS)

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install --locked --root $(TOOLS) cargo-deny@0.20.2

.PHONY: sbom
sbom: need-compiler $(TOOLS)/bin/cargo-cyclonedx ## write the software bill of materials as CycloneDX: target/tallygate.cdx.json
	$(TOOLS)/bin/cargo-cyclonedx cyclonedx --format json --override-filename tallygate.cdx --quiet
	@mv tallygate.cdx.json $(TARGET_DIR)/ && find fuzz loadtests models -maxdepth 1 -name '*.cdx.json' -delete
	@echo "$(TARGET_DIR)/tallygate.cdx.json"

$(TOOLS)/bin/cargo-cyclonedx:
	$(CARGO) install --locked --root $(TOOLS) cargo-cyclonedx@0.5.9

.PHONY: clean
clean: ## remove all build results
	$(CARGO) clean

.PHONY: need-compiler need-cplusplus need-demo need-tests need-load
need-compiler:
	@scripts/need cargo cc make
need-cplusplus:
	@scripts/need c++
need-demo:
	@scripts/need curl prometheus
need-tests:
	@scripts/need curl openssl python3 python3-grpcio python3-hypercorn python3-websockets sqlite3 nginx apache2 node gunicorn java tomcat10 haproxy prometheus promtool strace faketime
need-load:
	@scripts/need nginx haproxy
