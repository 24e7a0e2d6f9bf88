import ast
import importlib.util
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from puna.backend import ENTRY_POINT_GROUP
from puna.errors import BackendNotFoundError
from puna.plugins import Registry


def entry(name, value):
    return EntryPoint(name, value, ENTRY_POINT_GROUP)


@pytest.fixture
def some(registry):
    """A registry of entries as given; `registry` has put the scripted plugin's module within reach."""
    return lambda **entries: Registry(entry(name, value) for name, value in entries.items())


BROKEN = {"missing": "no_such_module:Backend", "wrong": "builtins:int", "abstract": "puna.backend:Backend"}


def test_our_own_backends_are_found_as_a_strangers_are(registry):
    assert {"llama_cpp", "ctransformers", "scripted"} <= set(registry.names())
    ours = {info.name: info for info in registry.describe()}
    assert ours["llama_cpp"].distribution == "puna"
    assert (ours["scripted"].distribution, ours["scripted"].version) == ("puna-scripted", "1.0")


def test_listing_names_imports_nothing(some):
    assert some(**BROKEN).names() == ("abstract", "missing", "wrong")


def test_the_quantizer_is_the_most_preferred_backends(some):
    backends = some(llama_cpp="puna_llama_cpp:LlamaCppBackend", scripted="puna_scripted:ScriptedBackend", **BROKEN)
    assert backends.quantizer() == "puna_llama_cpp.quantize"
    assert some(scripted="puna_scripted:ScriptedBackend").quantizer() == ""


def test_a_backend_is_made_once(some):
    backends = some(scripted="puna_scripted:ScriptedBackend")
    assert backends.get("scripted") is backends.get("scripted")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_said_once_and_stays_out(some, caplog, name):
    backends = some(**BROKEN)
    for _ in range(2):
        with pytest.raises(BackendNotFoundError, match=f"backend '{name}' is broken: "):
            backends.get(name)
    assert caplog.text.count(f"backend plugin '{name}' is left out") == 1


def test_a_broken_plugin_is_listed_with_its_error(some):
    backends = some(scripted="puna_scripted:ScriptedBackend", **BROKEN)
    infos = {info.name: info for info in backends.describe()}
    assert infos["scripted"].formats == ("scripted",)
    assert infos["scripted"].error == ""
    assert infos["missing"].error == "No module named 'no_such_module'"
    assert infos["wrong"].error == "builtins:int is not a Backend subclass"
    assert infos["missing"].formats == ()


@pytest.fixture
def lacking(some, monkeypatch):
    """A backend whose library is not installed, beside one that is broken in another way."""
    monkeypatch.setattr("puna_scripted.ScriptedBackend.requires", ("json", "no_such_module", "nor_this"))
    monkeypatch.setattr("puna_scripted.ScriptedBackend.install_command", "pip install puna-scripted")
    return some(lacking="puna_scripted:ScriptedBackend", **BROKEN)


MISSING = "no_such_module and nor_this are not installed; to install: pip install puna-scripted"


def test_a_backend_whose_library_is_missing_is_broken_and_says_how_to_get_it(lacking, caplog):
    assert {info.name: info.error for info in lacking.describe()}["lacking"] == MISSING
    with pytest.raises(BackendNotFoundError, match=f"^backend 'lacking' is broken: {MISSING}$"):
        lacking.get("lacking")
    assert "'lacking'" not in caplog.text  # the server's start reports it, without a traceback


def test_a_model_is_told_how_to_get_the_backend_of_its_format(lacking):
    text = "no installed backend serves models of format 'scripted'; backend 'lacking' is broken: " + MISSING
    with pytest.raises(BackendNotFoundError, match=f"^{text}$"):
        lacking.for_model("scripted")
    with pytest.raises(BackendNotFoundError, match=r"format 'onnx'$"):
        lacking.for_model("onnx")


def test_what_our_own_backends_import_is_what_they_require():
    """No module outside Puna and the standard library is forgotten in `requires`, also none that Puna depends on."""
    ours = {"puna", "puna_llama_cpp", "puna_ctransformers", "puna_ggml_kernels"}
    for name in ("llama_cpp", "ctransformers"):
        package = Path(importlib.util.find_spec(f"puna_{name}").origin).parent
        imported = {
            module.partition(".")[0]
            for path in package.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            for module in _modules(node)
        }
        required = set(Registry.discover().get(name).requires)
        assert imported - ours - sys.stdlib_module_names == required


def _modules(node):
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) else []


def test_an_unknown_name_says_what_is_installed(some):
    with pytest.raises(BackendNotFoundError, match=r"^backend 'x' is not installed \(installed: scripted\)$"):
        some(scripted="puna_scripted:ScriptedBackend").get("x")


def test_of_two_of_one_name_the_first_counts(caplog):
    backends = Registry([entry("a", "one:X"), entry("a", "two:X")])
    assert backends.names() == ("a",)
    assert "two:X is left out" in caplog.text


def test_the_models_wish_comes_first_then_the_servers_then_the_preference(some):
    backends = some(here="puna_scripted:HereBackend", hosted="puna_scripted:ScriptedBackend", **BROKEN)
    assert backends.for_model("scripted", "here", "hosted") == "here"
    assert backends.for_model("scripted", "", "here") == "here"
    assert backends.for_model("scripted") == "hosted"


def test_a_default_that_cannot_serve_the_format_is_passed_over(some):
    backends = some(here="puna_scripted:HereBackend", hosted="puna_scripted:ScriptedBackend")
    assert backends.for_model("here", default="hosted") == "here"


def test_among_equals_the_first_name_serves(some):
    assert some(b="puna_scripted:HereBackend", a="puna_scripted:HereBackend").for_model("here") == "a"


def test_a_format_that_nobody_serves(some):
    with pytest.raises(BackendNotFoundError, match="no installed backend serves models of format 'onnx'"):
        some(**BROKEN).for_model("onnx")


def test_a_wish_for_what_is_not_there(some):
    with pytest.raises(BackendNotFoundError, match="'magic' is not installed"):
        some().for_model("gguf", wanted="magic")
    with pytest.raises(BackendNotFoundError, match="'magic' is not installed"):
        some().for_model("gguf", default="magic")
