"""The budgets of the house: size, annotations, docstrings, what an import may load."""

import importlib.util
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A broad `except` belongs at the walls where foreign code or a whole request ends, and nowhere else.
WALLS = (
    "core/puna/events.py",  # listeners
    "core/puna/plugins/environment.py",
    "core/puna/host/",
    "core/puna/rpc/",
    "core/puna/sandbox/worker.py",
    "rest_bridge/puna_rest/app.py",
    "plugins/puna_ctranslate2/vocabulary.py",  # tokenizers raises Exception itself
)


@pytest.fixture(scope="module")
def measuring():
    spec = importlib.util.spec_from_file_location("measure", ROOT / "tools/measure.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shape(measuring):
    return measuring.measure(ROOT)


def test_files_are_short(shape):
    assert statistics.median(shape.files.values()) <= 150
    assert {name: lines for name, lines in shape.files.items() if lines > 400} == {}


def test_functions_are_short(shape):
    lengths = sorted(shape.functions.values())
    assert lengths[int(len(lengths) * 0.95)] <= 40
    assert {name: lines for name, lines in shape.functions.items() if lines > 80} == {}


def test_everything_is_annotated(shape):
    assert shape.unannotated == []


def test_public_names_are_documented(shape):
    assert len(shape.undocumented) <= 0.05 * shape.public


def test_no_global_statements(shape):
    assert shape.globals == []


def test_ignores_are_few_and_say_which_rule(shape):
    assert shape.bare_ignores == []
    assert len(shape.ignores) <= 3 * shape.lines / 1000


def test_broad_excepts_stand_at_the_walls(shape):
    assert [place for place in shape.broad_excepts if not place.startswith(WALLS)] == []


def test_the_code_is_tested(shape, measuring):
    """Lines of Python alone: thousands of recorded cases stand beside them as JSON."""
    lines = sum(path.read_text().count("\n") for path in measuring.python_files(ROOT, "tests"))
    assert lines >= 0.87 * shape.lines


def test_the_tests_mirror_the_sources(measuring):
    """`tools/measure.py` lists the modules that have no test file at the mirrored place."""
    missing, modules = measuring.untested(ROOT)
    assert 1 - len(missing) / modules >= 0.78, missing


def test_modules_without_rules_exist(measuring):
    """A module that was renamed or removed leaves the list of modules that need no test file."""
    assert [name for name in measuring.WITHOUT_RULES if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("puna.cli.main", ("llama_cpp", "ctransformers", "numpy", "jinja2", "aiohttp", "grpc")),
        ("puna_llama_cpp", ("llama_cpp", "numpy", "llguidance")),
        ("puna_ctransformers", ("ctransformers",)),
        ("puna.backend", ("grpc", "google", "aiohttp")),
    ],
)
def test_an_import_loads_nothing_heavy(module, unwanted):
    code = f"import sys, {module}; print([n for n in {unwanted!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
