import logging
import os

import pytest
from tests.core.plugins.site import toml

from puna.errors import BackendNotFoundError
from puna.plugins import Manifest, Plugin, Registry


def plugin(name, error="", **fields):
    return Plugin(name=name, error=error, manifest=Manifest(name=name, **fields))


def registry(*plugins):
    return Registry(lambda: plugins)


LLAMA = plugin("llama", formats=("gguf",), preference=100, quantizer="llama.quantize")
OLD = plugin("old", formats=("gguf", "ggml"), preference=-1, quantizer="old.quantize")
FAULTY = plugin("faulty", "no_engine is not installed; to install: make", formats=("onnx",))
NOTHING = Plugin(name="nothing", error="it has no manifest")


def test_a_backend_is_found_by_its_name():
    assert registry(LLAMA, OLD).get("old") is OLD


def test_an_unknown_name_says_what_is_installed():
    with pytest.raises(BackendNotFoundError, match=r"^backend 'x' is not installed \(installed: llama, old\)$"):
        registry(OLD, LLAMA).get("x")
    with pytest.raises(BackendNotFoundError, match=r"^backend 'x' is not installed \(installed: none\)$"):
        registry().get("x")


def test_a_backend_with_a_fault_is_refused_with_the_fault():
    with pytest.raises(BackendNotFoundError, match=r"^backend 'nothing' is broken: it has no manifest$"):
        registry(NOTHING).get("nothing")


def test_the_models_wish_comes_first_then_the_servers_then_the_preference():
    backends = registry(LLAMA, OLD, NOTHING)
    assert backends.for_model("gguf", "old", "llama") == "old"
    assert backends.for_model("gguf", "", "old") == "old"
    assert backends.for_model("gguf") == "llama"


def test_a_default_that_cannot_serve_the_format_is_passed_over():
    assert registry(LLAMA, OLD).for_model("ggml", default="llama") == "old"


def test_among_equals_the_first_name_serves():
    assert registry(plugin("b", formats=("x",)), plugin("a", formats=("x",))).for_model("x") == "a"


def test_a_format_that_no_backend_serves_says_how_to_get_one_that_does():
    backends = registry(LLAMA, FAULTY, NOTHING)
    text = "no installed backend serves models of format 'onnx'; backend 'faulty' is broken: "
    with pytest.raises(BackendNotFoundError, match=f"^{text}no_engine is not installed; to install: make$"):
        backends.for_model("onnx")
    with pytest.raises(BackendNotFoundError, match=r"format 'other'$"):
        backends.for_model("other")


def test_a_backend_that_is_named_must_serve_the_format():
    with pytest.raises(BackendNotFoundError, match="backend 'old' does not serve models of format 'onnx'"):
        registry(LLAMA, OLD).for_model("onnx", "old")
    assert registry(LLAMA, OLD).for_model("", "old") == "old"


@pytest.mark.parametrize("wish", [{"wanted": "magic"}, {"default": "magic"}])
def test_a_wish_for_what_is_not_there(wish):
    with pytest.raises(BackendNotFoundError, match="'magic' is not installed"):
        registry(LLAMA).for_model("gguf", **wish)


def test_the_quantizer_is_the_most_preferred_backends():
    assert registry(OLD, LLAMA, FAULTY).quantizer() == "llama.quantize"
    assert registry(FAULTY, NOTHING).quantizer() == ""
    # The core runs it with its own interpreter.
    elsewhere = Plugin(name="b", manifest=LLAMA.manifest, own_python=True)
    assert registry(elsewhere, OLD).quantizer() == "old.quantize"


def test_of_two_of_one_name_both_are_listed_and_the_first_counts():
    spare = Plugin(name="llama", error="the name belongs to a backend of Puna")
    backends = registry(NOTHING, LLAMA, spare)
    assert backends.describe() == [LLAMA, spare, NOTHING]
    assert backends.names() == ("llama", "nothing")
    assert backends.get("llama") is LLAMA


# ---- what is installed ----------------------------------------------------------------------------------------------


def test_the_list_is_read_again_only_after_a_change(site, shelf, settings):
    backends = Registry.discover(settings())
    assert "late" not in backends.names()
    assert not backends.refresh()
    site.module("late")
    assert backends.refresh()
    assert not backends.refresh()
    assert backends.get("late").formats == ("late",)


def test_a_backend_that_was_installed_a_moment_ago_is_found(site, settings):
    backends = Registry.discover(settings())
    assert "late" not in backends.names()
    site.module("late")
    assert backends.get("late").formats == ("late",)


@pytest.fixture
def changes(site, shelf):
    """What an operator may do, by its name, and what follows for the backend `a` and the format `a`."""
    site.module("a")

    def edit(text):
        path = site.folder / "puna_a.backend.toml"
        path.write_text(text)
        os.utime(path, ns=(1, 1))

    return {
        "edit": lambda: edit(toml("a", formats=["b"])),
        "break": lambda: edit("no toml"),
        "remove the manifest": (site.folder / "puna_a.backend.toml").unlink,
        "add a folder": lambda: shelf.write("b/backend.toml", toml("b") + 'host.command = ["true"]'),
    }


@pytest.mark.parametrize(
    ("change", "formats"),
    [
        ("edit", {"a": ("b",)}),
        ("break", {"a": ()}),
        ("remove the manifest", {"a": ()}),
        ("add a folder", {"a": ("a",), "b": ("b",)}),
    ],
)
def test_every_change_is_noticed(changes, settings, change, formats):
    backends = Registry.discover(settings())
    backends.names()
    assert not backends.refresh()
    changes[change]()
    assert backends.refresh()
    found = {each.name: each.formats for each in backends.describe()}
    assert {name: found[name] for name in formats} == formats


def test_a_program_that_is_changed_in_the_folder_is_noticed(shelf, settings):
    shelf.write("b/backend.toml", toml("b") + 'host.command = ["./run"]')
    backends = Registry.discover(settings())
    assert "there is no program './run' that can be run" in backends.describe()[0].error
    shelf.write("b/run", "#!/bin/sh\n").chmod(0o755)
    assert backends.refresh()
    assert backends.get("b").command == (str(shelf.folder / "b/run"),)


def test_only_the_backends_that_the_setting_names_are_used(site, settings, caplog):
    site.module("a")
    site.module("b")
    limited = Registry.discover(settings(plugins=("a", "llama_cpp", "gone")))
    with caplog.at_level(logging.WARNING):
        assert limited.names() == ("a", "llama_cpp")
    assert "PUNA_PLUGINS names the backend 'gone', which is not installed" in caplog.text
    with pytest.raises(BackendNotFoundError, match=r"^backend 'b' is not used: PUNA_PLUGINS does not name it$"):
        limited.get("b")
    with pytest.raises(BackendNotFoundError, match=r"^backend 'gone' is not installed \(installed: a, llama_cpp\)$"):
        limited.get("gone")
