# The commands of the project. `make help` lists them. Everything runs in .venv, which is made on first use with the first interpreter
# that works, and brought up to date when a pyproject.toml changes. Start over with `make clean`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help invoke start-api build package deploy setup-database deploy-check test test-layer test-in-image bench dashboard soak \
	interruptions alarms hostile cuts reliability docs dist lint types validate lint-stack check pins audit clean
MAKEFLAGS += --no-print-directory

# make invoke: VIA=auto|sam|rie  FUNCTION=<logical id>  EVENT=<file>  CONFLICTS=<n>  WARM=<n>  RUNTIME=<python3.x>
VIA ?= auto
FUNCTION ?= TransferFunction
EVENT ?= events/transfer.json
CONFLICTS ?= 0
WARM ?= 0
# make deploy: STACK=<name>  RUNTIME=<python3.x>  PARAMETERS="<Name>=<value> …"  make setup-database: STACK=<name>
STACK ?= dsql-lambda
RUNTIME ?= python3.13
PARAMETERS ?=
# make soak: SOAK_SECONDS=<of the bank>
SOAK_SECONDS ?= 600
# make test, start-api, setup-database: ARGS=<what to hand to pytest, to dsql_local start-api, or to deploy/setup_database.py>
ARGS ?=
# make interruptions: PATHS=<of which; all, if none>  make alarms, hostile, cuts: COUNT=<n>
PATHS ?=
COUNT ?=

VENV := .venv
PYTHON := $(CURDIR)/$(VENV)/bin/python
# What is installed so far: what `make invoke` needs on either way, what the tests and checks need, what the benchmarks,
# the site and the distributions need.
READY_RIE := $(VENV)/.ready-rie
READY_SAM := $(VENV)/.ready-sam
READY := $(VENV)/.ready
READY_BENCH := $(VENV)/.ready-bench
READY_DOCS := $(VENV)/.ready-docs
READY_DIST := $(VENV)/.ready-dist
unexport PYTHONPATH PYTHONHOME
export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# The interpreter for layer/Makefile, which `sam build` runs.
export PYTHON

# Sets $$found to an interpreter. A name on the PATH proves nothing (pyenv's shims fail when they are run): each is tried for its
# version, venv and ssl.
CANDIDATES := python3.14 python3.13 python3.12 python3 $(HOME)/.local/share/uv/python/*/bin/python \
	$(HOME)/.pyenv/versions/*/bin/python
TRY := import sys, venv, ensurepip, ssl; sys.exit(sys.version_info < (3, 12))
define FIND_PYTHON
found=; old=; \
for python in $(CANDIDATES); do \
	if "$$python" -c '$(TRY)' >/dev/null 2>&1; then found=$$python; break; fi; \
	old=$${old:-$$("$$python" -V 2>/dev/null || :)}; \
done; \
if [ -z "$$found" ]; then \
	echo "dsql-lambda: no working Python 3.12 or newer (with venv and ssl) was found$${old:+, only $$old}; install one and run make again" >&2; exit 1; \
fi
endef

# pip, which shows each package as it comes; bytecode is left to the first import, which most of it never sees.
define PIP_INSTALL
"$(PYTHON)" -m pip install --no-compile --progress-bar off --prefer-binary
endef
define SHOW_PACKAGES
while read -r verb rest; do case "$$verb" in Collecting|Downloading|Building|Installing) echo "    $$verb $${rest%% *}" >&2;; esac; done
endef

# Into a folder of its own: its boto3 and that of aws-sam-cli exclude each other.
define GET_DURABLE_SDK
echo "==> fetching the SDK of durable functions and its local runner" >&2; \
"$(PYTHON)" -m pip install --quiet --no-deps --target $(VENV)/durable --upgrade aws-durable-execution-sdk-python==3.0.0 \
	aws-durable-execution-sdk-python-testing==1.4.0 || echo "    it could not be had: durable functions can't be run here" >&2
endef

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

invoke: ## run a function with the layer on a local DSQL (VIA= FUNCTION= EVENT= CONFLICTS= WARM= RUNTIME=)
	@[ -x "$(PYTHON)" ] && found="$(PYTHON)" || { $(FIND_PYTHON); }; \
	set -- --function '$(FUNCTION)' --event '$(EVENT)' --conflicts '$(CONFLICTS)' --warm '$(WARM)' \
		$(if $(filter command,$(origin RUNTIME)),--runtime '$(RUNTIME)'); \
	via=$$("$$found" local/dsql_local/cli/arguments.py --via '$(VIA)' "$$@"); \
	$(MAKE) --silent $(VENV)/.ready-$$via; \
	exec "$(PYTHON)" -m dsql_local invoke --via "$$via" "$$@"

start-api: $(READY_SAM) ## serve the HTTP API on a local DSQL until Ctrl-C, at http://127.0.0.1:3000 (needs Docker; ARGS=)
	@exec "$(PYTHON)" -m dsql_local start-api $(ARGS)

build: $(READY_SAM) ## build the layer and the functions, and print the layer's size
	@"$(PYTHON)" -m samcli build
	@for layer in DsqlLayer DsqlLayerWithoutPowertools; do \
		size=$$(cd .aws-sam/build/$$layer && "$(PYTHON)" -c "import shutil, tempfile, os; d = tempfile.mkdtemp(); \
			z = shutil.make_archive(d + '/layer', 'zip', '.'); print(os.path.getsize(z)); shutil.rmtree(d)"); \
		echo "$$layer: $$size bytes zipped"; \
	done

package: $(READY_RIE) ## both forms of the layer as zips in dist/, for RUNTIME: to publish, and attach by ARN (RUNTIME=)
	@for form in DsqlLayer DsqlLayerWithoutPowertools; do \
		rm -rf .aws-sam/package; \
		$(MAKE) --silent -C layer build-$$form ARTIFACTS_DIR='$(CURDIR)/.aws-sam/package' RUNTIMES='$(RUNTIME:python%=%)'; \
		"$(PYTHON)" layer/package.py $$form '$(RUNTIME)' .aws-sam/package dist; \
	done

deploy: $(READY_SAM) ## build for RUNTIME, and deploy the stack STACK with sam (RUNTIME= STACK= PARAMETERS=)
	@RUNTIMES='$(RUNTIME:python%=%)' "$(PYTHON)" -m samcli build --no-cached --parameter-overrides Runtime='$(RUNTIME)' $(PARAMETERS)
	@exec "$(PYTHON)" -m samcli deploy --stack-name '$(STACK)' --parameter-overrides Runtime='$(RUNTIME)' $(PARAMETERS)

setup-database: $(READY) ## create the function's database role, map it to its IAM role, apply the schema (STACK= ARGS=)
	@exec "$(PYTHON)" deploy/setup_database.py --stack '$(STACK)' $(ARGS)

deploy-check: $(READY) $(VENV)/.ministack ## deploy the stack on an AWS emulator, and invoke its function on a local DSQL
	@REQUIRE_MINISTACK=1 "$(PYTHON)" -m pytest tests/application/test_deployment.py $(ARGS)

PARALLEL = "$(PYTHON)" -m pytest -m 'not serial' -n 2 --dist loadfile
test: $(READY) ## run the whole suite, or what ARGS choose; REQUIRE_SAM_LOCAL=1 and REQUIRE_PG8000_SUITE=1 make what they name fail instead of skip (ARGS=)
	@$(if $(strip $(ARGS)),exec "$(PYTHON)" -m pytest $(ARGS),$(PARALLEL) && exec "$(PYTHON)" -m pytest -m serial)

test-in-image: $(READY) ## run the core's tests in Lambda's image of RUNTIME, such as python3.14, which Docker has (RUNTIME= ARGS=)
	@exec .ci/test-in-image '$(RUNTIME:python%=%)' $(ARGS)

LAYER := $(CURDIR)/.aws-sam/test-layer
# They read the sources, start programs with a path of their own, or take minutes.
NOT_ON_LAYER := tests/test_benchmarks.py tests/test_dashboard.py tests/test_docs.py tests/test_examples.py tests/test_typing.py \
	tests/test_comparison.py tests/test_release.py tests/test_site.py tests/test_troubleshooting.py \
	tests/test_alarms.py tests/test_bank.py tests/test_contention.py tests/test_cuts.py tests/test_durable.py \
	tests/test_hostile_server.py tests/test_interruptions.py

test-layer: $(READY) ## run the core's tests on the layer as it is built, with its lean pg8000 (ARGS=)
	@rm -rf $(LAYER)
	@$(MAKE) --silent -C layer build-DsqlLayer ARTIFACTS_DIR=$(LAYER) BYTECODE=optional
	@exec env PYTHONPATH=$(LAYER)/python "$(PYTHON)" -m pytest \
		$(filter-out $(NOT_ON_LAYER),$(wildcard tests/test_*.py)) tests/pg8000_suite $(ARGS)

bench: $(READY_BENCH) ## measure everything against what users would pick instead, into docs/benchmarks.md (at most 15 minutes)
	@exec "$(PYTHON)" -m benchmarks

soak: $(READY) ## a bank with keys while faults rain, ten minutes (SOAK_SECONDS=), contention, and 10,000 durable steps with kills
	@"$(PYTHON)" -m tests.bank --seconds '$(SOAK_SECONDS)'
	@"$(PYTHON)" -m tests.contention
	@"$(PYTHON)" -m tests.durable_steps --count 10000

interruptions: $(READY) ## raise an exception at every bytecode of every path, two hours (PATHS=)
	@exec "$(PYTHON)" -m tests.interruptions $(PATHS)

alarms: $(READY) ## interrupt calls by real alarms at random moments (COUNT=20000)
	@exec "$(PYTHON)" -m tests.alarms $(if $(COUNT),--count $(COUNT))

hostile: $(READY) ## converse with a server that breaks the protocol (COUNT=5000)
	@exec "$(PYTHON)" -m tests.hostile $(if $(COUNT),--count $(COUNT))

cuts: $(READY) ## cut links at random bytes of every phase (COUNT=2400)
	@exec "$(PYTHON)" -m tests.cuts $(if $(COUNT),--count $(COUNT))

reliability: $(READY) ## all of them, and their figures into docs/reliability.md (hours; goes on where it was ended)
	@exec "$(PYTHON)" -m tests.reliability --keep .reliability

docs: $(READY_DOCS) ## build the documentation's site into .site; warnings are errors
	@exec env NO_MKDOCS_2_WARNING=1 "$(PYTHON)" -m mkdocs build --strict

dist: $(READY_DIST) ## build the wheels and source distributions into dist/, and test them where no source is
	@exec .ci/dist

lint: $(READY) ## ruff, its formatter; AWS's dsql-lint on the migrations
	@"$(PYTHON)" -m ruff check .
	@"$(PYTHON)" -m ruff format --check .
	@$(VENV)/bin/dsql-lint migrations/*.sql

types: $(READY) ## mypy --strict
	@"$(PYTHON)" -m mypy

validate: $(READY) ## sam validate --lint
	@"$(PYTHON)" -m samcli validate --lint

dashboard: $(READY) ## draw docs/dashboard.svg from a local run of the functions
	@exec "$(PYTHON)" docs/dashboard.py

lint-stack: $(VENV)/.lint-stack ## checkov, and cfn-lint with its rules for serverless applications; docs/production.md explains what is left out
	@$(VENV)/checkov/bin/checkov --file template.yaml --config-file .checkov.yaml --skip-download
	@$(VENV)/cfn-lint-serverless/bin/cfn-lint --append-rules cfn_lint_serverless.rules --ignore-checks W1033 WS1000 WS1004 ES6000 \
		--template template.yaml examples/layer_by_arn/template.yaml

check: lint types validate test ## all of the above

PINNED := layer/requirements layer/requirements-without-powertools

pins: $(READY) ## resolve the layer's requirements anew
	@"$(PYTHON)" -m pip install --quiet pip-tools
	@for form in $(PINNED); do cd $(CURDIR)/$${form%/*} && \
		CUSTOM_COMPILE_COMMAND="make pins" "$(PYTHON)" -m piptools compile --quiet --upgrade --generate-hashes --strip-extras \
			--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file $${form##*/}.txt $${form##*/}.in; \
	done

audit: $(READY) ## look the pinned packages and those of the local DSQL up in PyPI's advisories, or OSV's
	@"$(PYTHON)" -m pip install --quiet pip-audit
	@exec "$(PYTHON)" .ci/audit $(PINNED:=.txt) src/durable_order/requirements.txt

clean: ## remove what these commands made
	rm -rf $(VENV) .reliability .aws-sam .site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY_RIE): local/pyproject.toml $(VENV)/.made
	@echo "==> installing the local DSQL and the Runtime Interface Emulator into $(VENV); the first time takes half a minute" >&2
	@$(PIP_INSTALL) -e './local[rie]' | $(SHOW_PACKAGES)
	@$(PIP_INSTALL) --no-deps 'aws-sam-cli>=1.140' | $(SHOW_PACKAGES) # for the emulator that it carries
	@$(GET_DURABLE_SDK)
	@touch $@

$(READY_SAM): local/pyproject.toml $(VENV)/.made
	@echo "==> installing the local DSQL and SAM into $(VENV); the first time takes a minute" >&2
	@$(PIP_INSTALL) -e './local[sam]' | $(SHOW_PACKAGES)
	@$(GET_DURABLE_SDK)
	@touch $@ $(READY_RIE)

$(READY): pyproject.toml local/pyproject.toml layer/requirements.txt layer/requirements-without-powertools.txt \
		tests/aws_suites/requirements.txt $(VENV)/.made
	@echo "==> installing the project and its tools into $(VENV); the first time takes two minutes" >&2
	@$(PIP_INSTALL) -e '.[dev]' -e './local[sam]' | $(SHOW_PACKAGES)
	@echo "==> fetching the layer's wheels, so that tests build it without a network" >&2
	@download="$(PYTHON) -m pip download --quiet --only-binary=:all: --dest $(VENV)/wheels"; \
	for form in requirements requirements-without-powertools; do \
		$$download --no-deps --require-hashes --platform any --implementation py --abi none --python-version 3.11 \
			--requirement layer/$$form.txt; \
	done; \
	$$download boto3 botocore; \
	$$download --no-deps --require-hashes --requirement src/durable_order/requirements.txt
	@echo "==> fetching pg8000's source distribution, for its tests" >&2
	@sed -n '/^pg8000==/,/[^\\]$$/p' layer/requirements.txt | "$(PYTHON)" -m pip download --quiet --no-deps --no-binary pg8000 \
		--dest $(VENV)/sources --requirement /dev/stdin || echo "    it could not be had: they are skipped" >&2
	@echo "==> installing AWS's adapters for DSQL into an environment of their own, and fetching their tests" >&2
	@"$(PYTHON)" -m venv --clear $(VENV)/aws && PIP_ROOT_USER_ACTION=ignore $(VENV)/aws/bin/python -m pip install --quiet --prefer-binary \
		--requirement tests/aws_suites/requirements.txt \
		&& grep '^aurora-dsql-' tests/aws_suites/requirements.txt | "$(PYTHON)" -m pip download --quiet --no-deps --no-binary :all: \
		--dest $(VENV)/sources --requirement /dev/stdin || echo "    they could not be had: their tests are skipped" >&2
	@$(GET_DURABLE_SDK)
	@if command -v npm >/dev/null; then \
		echo "==> fetching node-postgres, for the test of the local DSQL with it" >&2; \
		npm install --silent --no-fund --no-audit --fetch-retries 1 --fetch-timeout 20000 --prefix $(VENV)/node pg >/dev/null \
			|| echo "    it could not be had: that test is skipped" >&2; \
	fi
	@touch $@ $(READY_SAM) $(READY_RIE)

# In an environment of its own: it pins another botocore than the tests use.
$(VENV)/.ministack: tests/application/ministack.txt $(VENV)/.made
	@echo "==> installing the AWS emulator MiniStack into $(VENV)/ministack" >&2
	@"$(PYTHON)" -m venv --clear $(VENV)/ministack
	@PIP_ROOT_USER_ACTION=ignore $(VENV)/ministack/bin/python -m pip install --quiet --prefer-binary --requirement $<
	@touch $@

# In environments of their own: they pin other releases of boto3 and cfn-lint.
$(VENV)/.lint-stack: $(VENV)/.made
	@for tool in checkov cfn-lint-serverless; do \
		echo "==> installing $$tool into $(VENV)/$$tool" >&2; \
		"$(PYTHON)" -m venv --clear $(VENV)/$$tool; \
		$(VENV)/$$tool/bin/python -m pip install --quiet --prefer-binary "$$tool"; \
	done
	@touch $@

$(READY_BENCH): $(READY)
	@echo "==> installing the peers that the benchmarks measure" >&2
	@$(PIP_INSTALL) -e '.[bench]' | $(SHOW_PACKAGES)
	@touch $@

$(READY_DOCS): pyproject.toml $(VENV)/.made
	@echo "==> installing MkDocs into $(VENV)" >&2
	@$(PIP_INSTALL) -e '.[docs]' | $(SHOW_PACKAGES)
	@touch $@

$(READY_DIST): pyproject.toml $(VENV)/.made
	@echo "==> installing what builds distributions into $(VENV)" >&2
	@$(PIP_INSTALL) -e '.[dist]' | $(SHOW_PACKAGES)
	@touch $@

$(VENV)/.made:
	@$(FIND_PYTHON); \
	echo "==> making $(VENV) with $$("$$found" --version) ($$found)" >&2; \
	rm -rf $(VENV); "$$found" -m venv $(VENV)
	@touch $@
