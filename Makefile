# Bare `make` lists the targets.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The commit's time, so that building twice gives the same bytes.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X main.version=$(VERSION)'
TOOL     := go tool -modfile=tools/go.mod

DASHBOARD_SOURCES := $(shell find dashboard -type f \
	-not -path '*/node_modules/*' -not -path 'dashboard/dist/*' -not -path 'dashboard/e2e/*' \
	-not -path '*/test-results/*' -not -path '*/playwright-report/*' -not -name '*.go' 2>/dev/null)

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use it

.PHONY: run
run: ## Install what is missing, build, and start everything here with a sample agent (Ctrl-C stops it).
	@tools/setup run
	@$(MAKE) build
	@$(GO_BUILD) -o bin/devrun ./test/cmd/devrun
	@exec bin/devrun

.PHONY: test
test: ## Install what is missing and run all tests: unit, race, PostgreSQL, Docker, Chromium.
	@tools/setup test
	@$(MAKE) build dashboard/node_modules/.installed
	@tools/test

##@ Build it

.PHONY: build
build: dashboard ## Build bin/agentd, bin/agentd-exec, bin/aggregator (with the dashboard in it) and bin/sampleagent.
	@echo "build: Go programs ($(VERSION))"
	@$(GO_BUILD) -o bin/ ./agentd/cmd/agentd ./agentd/cmd/agentd-exec ./aggregator/cmd/aggregator ./test/cmd/sampleagent ./test/cmd/linegen

.PHONY: dashboard
dashboard: bin/.dashboard ## Build the web app into dashboard/dist, when its sources changed.

# npm ci writes node_modules anew, so the stamp inside it cannot outlive it. It
# refuses a lock file that was written where the registry lacks the optional
# packages of other systems; npm install then takes the same locked versions.
dashboard/node_modules/.installed: dashboard/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node 20.19 or newer, then run make again" >&2; exit 3; }
	@echo "dashboard: installing npm packages (about half a minute the first time)"
	@cd dashboard && { npm ci --no-audit --no-fund --loglevel=silent || npm install --no-audit --no-fund --loglevel=error; }
	@touch $@

bin/.dashboard: dashboard/node_modules/.installed $(DASHBOARD_SOURCES)
	@echo "dashboard: building the web app"
	@cd dashboard && npm run --silent build
	@mkdir -p bin && touch $@

.PHONY: packages
packages: build ## Build the Debian packages into dist/ and smoke-test them.
	@packaging/package $(VERSION)
	@packaging/smoke dist/*.deb

.PHONY: image
image: build ## Build the images of both daemons by the Dockerfile and smoke-test them (ARCH=arm64: for another machine).
	@packaging/image $(VERSION) $(ARCH)

##@ Check it

.PHONY: lint
lint: ## Go linters with the import rules, the wire contract, shell scripts.
	@tools/lint

.PHONY: generate
generate: ## Generate the Go code of the wire contract.
	@$(TOOL) buf generate

.PHONY: verify
verify: generate ## Fail when the generated code is not what is committed.
	@git diff --exit-code -- shared/wire

.PHONY: e2e
e2e: build dashboard/node_modules/.installed ## Only the end-to-end tests: both daemons, PostgreSQL, Docker, Chromium.
	@tools/setup test
	@tools/test e2e

.PHONY: test-citus
test-citus: ## Test the store on tables distributed by Citus, where it is installed.
	@ls /usr/share/postgresql/*/extension/citus.control >/dev/null 2>&1 \
		|| { echo "test-citus: not run (0 passed, 0 failed, 1 skipped): Citus is not installed here"; exit 0; }; \
		go test -count=1 -tags citus -run TestOnADistributedDatabase -v ./aggregator/store

.PHONY: faults
faults: build ## Only the fault tests: kill -9 of each part in turn, rotation, restarts of the engine.
	@tools/setup test
	@go test -v -count=1 -timeout 60m -run '^TestFault' ./test/...

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (default 10s) each.
	@tools/fuzz

.PHONY: sweep
sweep: ## Kill writers of the buffer at every call and cut the power under others: KILLS=10000 CUTS=5000 (hours; as root).
	@$(GO_BUILD) -o bin/spoolsweep ./test/cmd/spoolsweep
	@exec bin/spoolsweep -kills $(or $(KILLS),1000) -cuts $(or $(CUTS),500)

.PHONY: bench-path
bench-path: build ## Measure the path: latency of a line, CPU of a million, time to start.
	@tools/setup run
	@$(GO_BUILD) -o bin/benchpath ./test/cmd/benchpath
	@exec bin/benchpath

.PHONY: bench-agentd
bench-agentd: build ## Measure agentd alone: CPU, memory and disk per line, latency, faults, bursts (about 20 minutes; BENCH="-only live" for a part).
	@tools/setup run
	@$(GO_BUILD) -o bin/benchagentd ./test/cmd/benchagentd
	@exec bin/benchagentd $(BENCH)

.PHONY: bench-store
bench-store: build ## Measure the log store: CPU and disk per line, every query of the table, 5,000 organisations (BENCH="-lines 200000" for less).
	@tools/setup run
	@$(GO_BUILD) -o bin/benchstore ./test/cmd/benchstore
	@exec bin/benchstore $(BENCH)

.PHONY: bench-tail
bench-tail: build ## Measure live tail: 1,000 clients on one organisation (BENCH="-clients 200" for less).
	@tools/setup run
	@$(GO_BUILD) -o bin/benchtail ./test/cmd/benchtail
	@exec bin/benchtail $(BENCH)

.PHONY: bench-store-large
bench-store-large: build ## The hard set: 50 M lines, a million short-lived agents, PostgreSQL in 2 GiB (hours; as root; goes on where it was interrupted).
	@tools/setup run
	@$(GO_BUILD) -o bin/benchstore ./test/cmd/benchstore
	@exec bin/benchstore -large -lines $(or $(LINES),50000000)

.PHONY: bench-sources
bench-sources: ## Bursts of a million lines and a hundred short containers on a real engine, both file drivers: what is lost.
	@tools/setup run
	@go test -count=1 -timeout 30m -run '^TestNothingIsLost' -v ./agentd/docker -args -full

.PHONY: clean
clean: ## Remove what was built; the data of `make run` in .run stays (remove it by hand).
	@rm -rf bin dist dashboard/node_modules test/clients/dist
	@find dashboard/dist -mindepth 1 -not -name '.*' -delete 2>/dev/null || true
