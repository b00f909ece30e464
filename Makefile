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
export OMP_NUM_THREADS ?= $(if $(filter test test-all,$(MAKECMDGOALS)),1,)
ifeq ($(OMP_NUM_THREADS),)
unexport OMP_NUM_THREADS
endif

NPM    := service/page/npm $(BIN)/python
BUILT  := service/page/dist/index.html

.PHONY: demo page test test-all test-page lint bench clean help
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

test-page: $(BUILT)
	$(NPM) run --silent test
	tests/page/chromium $(BIN)/python

# Two test processes for two cores, a file in one of them; `slow` tests are left to test-all.
test: lint test-page
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" --cov --cov-report=term $(ARGS)

test-all: lint test-page
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(ARGS)

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
	$(PIP) -c requirements/constraints.txt -e '.[dev,synth,$(FAISS)]'
	$(PIP) --no-deps --require-hashes -r requirements/data.txt
	touch $@

clean:
	rm -rf .venv .venv-cuda service/page/node_modules service/page/dist build dist *.egg-info .coverage* .hypothesis .mypy_cache .ruff_cache .pytest_cache
