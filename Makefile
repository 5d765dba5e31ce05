# The first command on a fresh machine may be any of these: each makes .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-services test-cluster cluster-nodes cluster-api-server kind lint generated unit local setup develop generate lock clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 22

setup:
	@$(PYTHON) tools/setup.py

develop:  ## .venv with the project linked, for working on it
	@$(PYTHON) tools/setup.py --editable

demo: setup  ## a training run that loses a node, has a slow one and a hang, and finishes with the same weights
	@$(BIN)/python -m examples.demo

test: setup lint generated unit local  ## everything that needs nothing but Python, on the installed wheel

test-services: setup  ## what needs real servers: Debian's Redis and Prometheus (installed when root), an S3 server (built with Go)
	@$(PYTHON) tools/debian.py redis-server prometheus
	$(BIN)/python -P -m pytest tests/services -q

CLUSTER_TESTS ?= tests/cluster

test-cluster: setup  ## what needs a real Kubernetes: makes one (root, Go), or uses the one of KUBECONFIG
	@$(MAKE) --no-print-directory -j 2 cluster-nodes cluster-api-server

cluster-nodes:
	$(BIN)/python -P -m pytest $(CLUSTER_TESTS) -q --durations=25

# An API server of its own, without nodes: goes on beside the other, whose trainings mostly wait.
cluster-api-server:
	$(BIN)/python -P -m pytest tests/api_server -q --durations=5

VERSION := 0.1.0
SERVICES := operator eagle-eye checkpoint memory

kind:  ## a cluster in Docker with the images loaded; needs docker and kind
	mkdir -p /tmp/sternpost-kind && chmod 1777 /tmp/sternpost-kind
	kind create cluster --config kind-config.yaml
	set -e; for service in $(SERVICES); do \
		docker build --target $$service --tag sternpost/$$service:$(VERSION) .; \
		kind load docker-image --name sternpost sternpost/$$service:$(VERSION); \
	done
	set -e; for image in trainer=python:3.12-slim-bookworm redis=redis:7.2-bookworm; do \
		docker pull $${image#*=}; \
		docker tag $${image#*=} sternpost/test-$${image%%=*}:1; \
		kind load docker-image --name sternpost sternpost/test-$${image%%=*}:1; \
	done
	kind get kubeconfig --name sternpost > kind.kubeconfig
	@echo 'now: KUBECONFIG=kind.kubeconfig STERNPOST_TEST_HOST_ROOT=/host make test-cluster'

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

generated:
	$(BIN)/sternpost crds --check
	$(BIN)/python -m tools.chart_crds --check
	$(BIN)/python -m tools.dashboards --check

# Tests import the installed wheel: no source folder is on the path.
unit:
	$(BIN)/python -P -m pytest tests/unit -n 2 --dist loadfile -q

local:
	$(BIN)/python -P -m pytest tests/local -q

generate: setup  ## make again what is generated
	$(BIN)/sternpost crds
	$(BIN)/python -m tools.chart_crds
	$(BIN)/python -m tools.dashboards

lock:  ## pin the newest versions of all requirements
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--upgrade --extra local --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv dist demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
