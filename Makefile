# The commands of this project. `make help` lists them; CI runs `make test` and then `make verify` (.ci/run).
# The checks share one profile, so that each dependency is compiled once for clippy's metadata and once for tests.

CARGO ?= cargo
SHELL_SCRIPTS = tuning/apply tuning/check tuning/revert tuning/settings.sh .ci/run bench/guard.sh bench/peers/install deploy/install $(wildcard tests/conformance/*.sh tests/*.sh)
SCENARIOS ?= broadcast merged delivery lonely memory handshakes slow idle

# Tests that look at what clients and services see, and at no socket: they hold behind a proxy too. `make verify` runs more of
# them. --workspace, so that nothing is compiled anew for another choice of features.
PROXIED ?= push chat authorization

.PHONY: help test verify flaky test-proxied proxies fmt clippy unit openapi page doc shell build bench micro scale guard

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

test: fmt clippy proxies unit shell ## what every change has to pass, in ten minutes from cold

verify: ## what takes longer: Autobahn, the page in Chromium, the API thoroughly, everything behind both proxies, the docs, the guard
	tests/conformance/verify.sh

flaky: ## RUNS=10: all tests so many times in a row, with every core kept busy by other work
	tests/flaky.sh $(RUNS)

fmt: ## is the formatting rustfmt's?
	$(CARGO) fmt --all --check

clippy: ## lints, each a failure
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

proxies: ## nginx and HAProxy for the tests, where they can be installed
	-@deploy/install

unit: ## all tests
	$(CARGO) test --workspace --locked

test-proxied: ## PROXIED="push rooms" for some: tests of clients' behaviour again, behind nginx and behind HAProxy
	@for front in nginx haproxy; do \
		if ! PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v $$front >/dev/null; then \
			echo "SKIPPED behind $$front: it is not installed (deploy/install)"; continue; \
		fi; \
		echo "behind $$front: $(PROXIED)"; \
		TIDEGATE_TEST_FRONT=$$front $(CARGO) test --workspace --locked $(addprefix --test ,$(PROXIED)) || exit 1; \
	done

openapi: ## is /openapi.json a good document, and does the API do what it says? (EXAMPLES=1000 to be thorough)
	tests/conformance/redocly.sh
	tests/conformance/schemathesis.sh

page: ## the page in a headless Chromium: chat, manners, looks at three widths, axe
	tests/conformance/page.sh

# Private items are documented too (the readers are developers), so links to them are right.
doc: ## does the documentation build without a warning?
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --workspace --no-deps --locked --document-private-items

shell: ## shellcheck, where it is installed
	@if command -v shellcheck >/dev/null; then \
		echo "shellcheck $(SHELL_SCRIPTS)" && shellcheck -x $(SHELL_SCRIPTS); \
	else \
		echo "shell scripts NOT checked: shellcheck is not installed (apt-get install shellcheck, brew install shellcheck)"; \
	fi

build: ## the release binary, target/release/tidegate
	$(CARGO) build --release --locked

bench: build ## the physical limit of this machine, then every scenario (SCENARIOS="broadcast lonely" for some)
	target/release/tidegate bench limit
	for scenario in $(SCENARIOS); do target/release/tidegate bench run $$scenario || exit 1; done

# Quick settings: figures to compare within one run, not to publish.
micro: ## criterion benches of the wire, of fan-out and of the API's JSON
	$(CARGO) bench --locked --package tidegate-protocol --bench wire -- --quick
	$(CARGO) bench --locked --package tidegate-gateway --bench fanout -- --quick
	$(CARGO) bench --locked --package tidegate-logic --bench json -- --quick

scale: ## 1,024 to 1,048,576 connections in memory: bytes, and CPU of a delivery, a join, a push to one user
	$(CARGO) bench --locked --package tidegate-gateway --bench scale

guard: ## instructions per delivery against bench/baselines, where valgrind is installed
	bench/guard.sh
