SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo dev stop test unit regress isolation e2e gateway clients fuzz chaos soak bench scaling matrix broker short check lint lint-contracts fmt docs upgrade upgrade-script package deb deb-command deb-test container deny release-check clean

help:       ## this list
	@sed -nE 's/^([a-z0-9-]+): .*## (.*)/  \1\t\2/p' Makefile | expand -t 18
	@echo 'All take PG=14|15|16|17|18, the PostgreSQL that they work with (15, the one of Debian, unless told), and'
	@echo 'NATS=2.10|2.11|2.12|2.14|2.15, the nats-server (2.15, the newest, unless told).'

setup:      ## install what is missing: PostgreSQL, nats-server, cargo-pgrx (Rust itself must be there)
	@scripts/setup.sh

build: setup ## build the extension and install it into the private copy of PostgreSQL; PROFILE=dev for a quick build
	@PROFILE=$(PROFILE) scripts/build.sh

demo: build ## see it work: from a transaction to the stream, to a handler, to the dead letter queue and back
	@scripts/demo.sh

dev: build  ## start a cluster with the extension, a nats-server and `sea-mq serve`, and leave them running (.dev/env)
	@scripts/dev.sh

stop:       ## end what `make dev` started and remove its data
	@scripts/stop.sh

test: build ## everything below: check, regress, isolation, e2e, gateway, chaos
	@scripts/test.sh

unit: setup ## tests that need no server
	@scripts/test.sh unit

regress: build ## the SQL API, with pg_regress and without a broker
	@scripts/test.sh regress

isolation: build ## concurrent sessions, with pg_isolation_regress
	@scripts/test.sh isolation

e2e: build  ## the promises, against real servers; make e2e FILTER=late_commit runs a part
	@scripts/test.sh e2e $(FILTER)

gateway: build ## the command sea-mq: REST, metrics, console and command line, against real servers; FILTER=name runs a part
	@scripts/test.sh gateway $(FILTER)

clients: build ## the programs of docs/clients.md and the helpers of clients/, against real servers; NAMES='prisma jdbc' runs some
	@scripts/clients.sh $(NAMES)

short: build ## regress, isolation and of each mechanism an end-to-end test or two
	@scripts/test.sh short

broker: build ## of the end-to-end tests those that speak of nats-server, as in make broker NATS=2.12
	@scripts/test.sh broker

matrix:     ## regress, isolation and e2e on each PostgreSQL, `broker` on each nats-server; MATRIX_PG='14 18' and MATRIX_NATS='2.10 2.12' name them, or none, FILTER=late_commit runs a part, SHORT=1 some
	@MATRIX_PG='$(MATRIX_PG)' MATRIX_NATS='$(MATRIX_NATS)' SHORT='$(SHORT)' scripts/matrix.sh $(FILTER)

fuzz: build ## the random tests with random seeds, RUNS times (1)
	@scripts/fuzz.sh $(or $(RUNS),1)

chaos: build ## faults in random combination, and whether the promises hold; SEEDS=20, ARGS='--seed N|--fault NAME|--list|--help'
	@. scripts/lib.sh && cargo run --quiet --package sea_mq-chaos -- $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

soak: build ## the same load without faults, for MINUTES=20: memory, sizes and latency by the second, in target/soak
	@. scripts/lib.sh && cargo run --quiet --package sea_mq-chaos -- --soak $(or $(MINUTES),20) $(ARGS)

bench: build ## how fast it is, in a table and target/bench; ONLY=drain|burden|footprint|latency|writer|inbox|contracts|capture|gateway|neighbours|endpoints|costs|databases, N=how much, ARGS=--quick
	@. scripts/lib.sh && cargo build --quiet --release --workspace --bin sea-mq && cargo run --quiet --release --package sea_mq-bench -- $(ONLY) $(if $(N),--amount $(N)) $(ARGS)

scaling:    ## docs/scaling.md's table of sizes from bench/costs.json; COSTS=target/bench/results.json, ARGS='--rate 20000 --payload 1000'
	@. scripts/lib.sh && cargo run --quiet --package sea_mq-bench -- model $(if $(COSTS),--costs '$(COSTS)') $(ARGS)

check: setup ## format, lint, unit tests: before every commit
	@scripts/test.sh check

lint: setup ## clippy, shellcheck, and which part of src may import what
	@scripts/test.sh lint

lint-contracts: ## check a directory of event contracts, without a server: DIR=schemas/events, ARGS='--release v1.0'
	@. scripts/lib.sh && cargo build --quiet --workspace --bin sea-mq && target/debug/sea-mq contracts lint $(if $(DIR),"$(DIR)",schemas/events) $(ARGS)

fmt: setup  ## format the code
	@. scripts/lib.sh && cargo fmt --all

docs: setup ## API documentation of the crate, in target/doc
	@. scripts/lib.sh && cargo doc "$${cargo_features[@]}" --no-deps --document-private-items

upgrade: build ## from the last released version to this one, and by pg_upgrade from major to major: MAJORS='15:18 16:17', or none
	@scripts/upgrade-test.sh
	@for pair in $(filter-out none,$(or $(MAJORS),15:18 16:17)); do PROFILE=$(PROFILE) scripts/upgrade-majors.sh $${pair%:*} $${pair#*:} || exit; done

upgrade-script: ## write sql/upgrade/ from what differs between the last released version and sql/
	@scripts/upgrade.py write

package: setup ## the extension as an installation tree, for the system's PostgreSQL or that of PG_CONFIG=/path/to/pg_config
	@PG_CONFIG='$(PG_CONFIG)' scripts/package.sh tree

deb: setup ## the Debian package postgresql-PG-sea-mq, in target/packages
	@PG_CONFIG='$(PG_CONFIG)' scripts/package.sh deb

deb-command: setup ## the Debian package sea-mq, the command
	@scripts/package.sh command

deb-test: ## install, remove, reinstall and upgrade the packages in clean containers: PG=15 in bookworm, PG=17 in trixie
	@scripts/deb-test.sh

container: setup ## build the image, run compose.yaml, emit, restart everything, read the logs; PROFILE=dev for a quick build
	@PROFILE='$(PROFILE)' scripts/container.sh

deny: setup ## the licences, bans and sources of the crates (deny.toml), and their advisories where these can be reached
	@scripts/release-check.sh deny

release-check: deb deb-command ## is what would be released whole? deny, versions, packages; bills of materials, PGXN's archive, checksums
	@scripts/release-check.sh

clean: stop ## remove everything that was built or installed here
	@. scripts/lib.sh && rm -rf target "$$state" "$$dev"
