# Hilum. The two commands of a fresh machine (Python 3.11+, git, make): `make demo` and `make test`.
PYTHON ?= python3
export PYTHON

.PHONY: demo test setup setup-dev check unit protos lock bench bench-serving clean help

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: setup ## Set up, then send a phantom chest CT through the whole node and show what comes back
	.venv/bin/hilum demo

test: setup-dev ## Set up (system packages too, where allowed), check and test everything
	scripts/test

setup: ## Only the set-up of what the node and the service need
	scripts/setup run

setup-dev: ## The set-up with the tools of tests and checks
	scripts/setup dev

check: setup-dev ## ruff, mypy --strict, import rules, size rules, drift of generated stubs
	scripts/check

unit: setup-dev ## The fast part of the tests
	.venv/bin/pytest tests/unit tests/architecture

protos: setup-dev ## Generate the gRPC stubs
	scripts/protos

lock: setup-dev ## Resolve the dependencies again
	scripts/lock

bench: setup-dev ## Measure the whole chain beside a straightforward node
	.venv/bin/python -m bench.end_to_end

bench-serving: setup-dev ## Measure the inference service beside memcpy, plain TCP, bare gRPC and Triton
	-scripts/referee-setup
	for bench in transport upload latency batching memory growth start; do .venv/bin/python -m bench.serving_$$bench || exit 1; done

clean: ## Remove what set-up and demo made
	rm -rf .venv demo build dist
