import ast
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
from tests.core.plugins.site import LEAST, toml

from puna.plugins import Registry, read
from puna.plugins.installed import InstalledPlugin


@pytest.fixture
def found(settings):
    def found(**fields):
        return {each.name: each for each in Registry.discover(settings(**fields)).describe()}

    return found


def test_our_own_backends_are_found_as_a_strangers_are(found, site):
    site.module("mine")
    backends = found()
    assert {"llama_cpp", "ctranslate2", "mine"} <= backends.keys()
    assert backends["llama_cpp"].distribution == "puna"
    assert (backends["mine"].distribution, backends["mine"].version) == ("puna-mine", "1.0")
    assert backends["mine"].command == (sys.executable, "-P", "-m", "puna.host", "puna_mine:Made")
    assert not backends["mine"].own_python


def test_looking_imports_nothing(found, site):
    site.module("mine", code="raise SystemExit('imported')")
    site.package("yours", code="import os; os._exit(3)")
    backends = found()
    assert backends["mine"].formats == ("mine",)
    assert backends["yours"].formats == ("yours",)
    assert not {"puna_mine", "puna_yours"} & sys.modules.keys()


def test_a_package_of_several_backends_has_a_manifest_for_each(found, site):
    site.package("two", toml("two", description="general"))
    site.write("puna_two/two.backend.toml", toml("two", description="own"))
    assert found()["two"].manifest.description == "own"


def test_a_package_without_a_file_of_its_own_may_hold_a_manifest(found, site):
    site.write("puna_bare/backend.toml", LEAST.format(name="bare"))
    site.write("puna_bare/code.py", "")
    site.announce("bare", "puna_bare.code:Made")
    assert found()["bare"].error == ""


@pytest.mark.parametrize(
    ("arrange", "error"),
    [
        (lambda site: site.module("a", ""), "it has no manifest: {site}/puna_a.backend.toml is missing; "),
        (lambda site: site.announce("a", "no_such_module:Backend"), "there is no module 'no_such_module'"),
        (
            lambda site: site.announce("a", "a b"),
            "the entry point must have the form \"module:Class\", not 'a b'",
        ),
        (lambda site: site.announce("a", "puna_a"), "the entry point must have the form"),
        (lambda site: site.module("a", toml("b")), "{site}/puna_a.backend.toml: name: must be 'a', the name of the"),
        (
            lambda site: site.module("a", toml("a", contract=9)),
            "{site}/puna_a.backend.toml: contract: the plugin ",
        ),
        (lambda site: site.module("a", b"\xff\xfe"), "{site}/puna_a.backend.toml: it is not UTF-8"),
        (
            lambda site: site.module("a", toml("a", requires=["json", "no_such", "nor_this"], install="make it")),
            "no_such and nor_this are not installed; to install: make it",
        ),
        (lambda site: site.module("a", toml("a", requires=["no_such"])), "no_such is not installed"),
        (
            lambda site: site.module("a", toml("a") + 'host.command = ["no-such-program"]'),
            "{site}/puna_a.backend.toml: host.command: there is no program 'no-such-program' on PATH",
        ),
        (
            lambda site: site.module("a", toml("a") + 'host.class = "no_such.deep:Class"'),
            "{site}/puna_a.backend.toml: host.class: there is no module 'no_such'",
        ),
    ],
)
def test_what_cannot_be_used_is_listed_with_the_reason(found, site, arrange, error):
    arrange(site)
    site.module("well")
    backends = found()
    assert backends["a"].error.startswith(error.format(site=site.folder))
    assert backends["a"].formats == ()
    assert backends["well"].error == ""


@pytest.mark.parametrize("name", ["A", "ä", "a b", "../a", "a" * 70, "\x1b[31m"])
def test_a_strange_name_is_listed_in_plain_characters(found, site, name):
    site.announce("x", "puna_x:Made")
    site.write("puna_x-1.0.dist-info/entry_points.txt", f"[puna.backends]\n{name} = puna_x:Made\n")
    (strange,) = (each for each in found().values() if each.distribution == "puna-x")
    assert strange.error.startswith("the entry point's name must be 1 to 64 characters")
    assert strange.name.isprintable()
    assert len(strange.name) <= 61


@pytest.mark.parametrize(
    "content", [b"[puna.backends]\nno equals sign\n", b"[puna.backends]\n\xff\xfe = a:b\n", b"[puna.backends\nx = a:b"]
)
def test_metadata_that_cannot_be_read_harms_no_other(found, site, content):
    site.announce("x", "puna_x:Made")
    site.write("puna_x-1.0.dist-info/entry_points.txt", content)
    site.module("well")
    backends = found()
    assert backends["well"].error == ""
    assert all(each.error for each in backends.values() if each.distribution == "puna-x" or each.name == "puna_x-1")


def test_a_distribution_without_a_name_harms_no_other(found, site):
    site.module("x")
    site.write("puna_x-1.0.dist-info/METADATA", "nothing\n")
    site.module("well")
    backends = found()
    assert backends["well"].error == ""
    assert "its metadata cannot be read" in backends["puna_x-1.0"].error


# ---- names ----------------------------------------------------------------------------------------------------------


def test_of_two_strangers_of_one_name_neither_can_be_used(site, settings):
    site.module("a")
    site.package("b")
    site.write("puna_b/backend.toml", toml("a"))
    site.write("puna_b-1.0.dist-info/entry_points.txt", "[puna.backends]\na = puna_b:Made\n")
    twice = [each for each in Registry.discover(settings()).describe() if each.name == "a"]
    assert {each.distribution for each in twice} == {"puna-a", "puna-b"}
    for each in twice:
        assert each.error.startswith("the name is taken more than once, by puna-")


@pytest.mark.parametrize("how", ["distribution", "folder"])
def test_a_stranger_cannot_take_over_a_backend_of_ours(site, shelf, settings, how):
    if how == "distribution":
        site.module("llama_cpp", distribution="aaa")
    else:
        shelf.write("llama_cpp/backend.toml", toml("llama_cpp") + 'host.command = ["true"]')
    backends = Registry.discover(settings())
    assert backends.get("llama_cpp").distribution == "puna"
    (stranger,) = (each for each in backends.describe() if each.name == "llama_cpp" and each.distribution != "puna")
    assert stranger.error == "the name belongs to a backend of Puna"


# ---- the folder of manifests ----------------------------------------------------------------------------------------


def test_a_program_in_any_language(found, shelf):
    manifest = toml("go") + 'host.command = ["./host", "--fast"]\n'
    shelf.write("go/backend.toml", manifest)
    shelf.write("go/host", "#!/bin/sh\n").chmod(0o755)
    backend = found()["go"]
    assert (backend.error, backend.command) == ("", (str(shelf.folder / "go/host"), "--fast"))
    assert backend.own_python


def test_a_program_on_the_path(found, shelf):
    shelf.write("sh/backend.toml", toml("sh") + 'host.command = ["sh", "-c", "exit"]\n')
    program, *arguments = found()["sh"].command
    assert Path(program).name == "sh"
    assert Path(program).is_absolute()
    assert arguments == ["-c", "exit"]


def test_a_class_beside_its_manifest(found, shelf):
    shelf.write("mine/backend.toml", toml("mine") + 'host.class = "mine_here:Made"\n')
    shelf.write("mine/mine_here.py", "raise SystemExit")
    backend = found()["mine"]
    assert backend.error == ""
    assert backend.command == (sys.executable, "-P", "-m", "puna.host", "mine_here:Made")
    assert backend.python_path == str(shelf.folder / "mine")


def test_a_link_leads_to_the_plugins_own_folder(found, shelf, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "backend.toml").write_text(toml("mine") + 'host.command = ["./host"]\n')
    (source / "host").write_text("#!/bin/sh\n")
    (source / "host").chmod(0o755)
    (shelf.folder / "mine").mkdir()
    (shelf.folder / "mine/backend.toml").symlink_to(source / "backend.toml")
    assert found()["mine"].command == (str(source / "host"),)


def make_environment(folder):
    """Make the least of a virtual environment; return its folder of packages."""
    packages = folder / "venv/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (folder / "venv/bin").mkdir()
    (folder / "venv/bin/python").symlink_to(sys.executable)
    return packages


def test_an_environment_with_a_distribution(found, shelf):
    packages = make_environment(shelf.folder / "tool")
    inner = type(shelf)(packages)
    inner.module("mine", toml("mine", requires=["only_there"]))
    inner.write("only_there.py", "")
    inner.announce("llama_cpp", "puna_llama_cpp:LlamaCppBackend", distribution="puna")
    backends = found()
    python = str(shelf.folder / "tool/venv/bin/python")
    assert backends["mine"].error == ""
    assert backends["mine"].command == (python, "-P", "-m", "puna.host", "puna_mine:Made")
    assert (backends["mine"].own_python, backends["mine"].distribution) == (True, "puna-mine")
    assert backends["llama_cpp"].command[0] == sys.executable


@pytest.fixture
def installed(shelf):
    """What `puna plugin install` leaves: an environment, its record, and a link to it. Returns the environment."""
    home = shelf.folder / ".environments/1"
    inner = type(shelf)(make_environment(home))
    # As an editable installation does it: the code lies outside of the environment.
    source = type(shelf)(shelf.folder.parent / "source")
    source.folder.mkdir()
    source.module("mine")
    inner.announce("mine", "puna_mine:Made", distribution="puna-mine")
    InstalledPlugin(
        folder=home,
        distribution="puna-mine",
        version="1.0",
        spec="x",
        backends=("mine",),
        paths=(str(source.folder), str(inner.folder)),
    ).write()
    (shelf.folder / "puna-mine").symlink_to(".environments/1")
    return home


def test_an_installed_plugin_is_started_by_the_path_of_its_environment(found, installed):
    """Not by the link, which leads elsewhere after an upgrade."""
    mine = found()["mine"]
    assert (mine.error, mine.environment) == ("", str(installed))
    assert mine.command[0] == str(installed / "venv/bin/python")


def test_an_installed_plugin_without_its_python_is_a_fault(found, installed):
    (installed / "venv/bin/python").unlink()
    mine = found()["mine"]
    assert (mine.distribution, mine.version, mine.formats) == ("puna-mine", "1.0", ())
    assert "the Python of its environment is missing" in mine.error
    assert "puna plugin upgrade puna-mine" in mine.error


def test_a_link_to_an_environment_that_is_gone_is_a_fault(found, installed):
    shutil.rmtree(installed)
    assert "puna plugin remove puna-mine" in found()["puna-mine"].error


@pytest.mark.parametrize(
    ("arrange", "error"),
    [
        (lambda sub: sub.mkdir(), "it has no manifest: "),
        (lambda sub: (sub.mkdir(), os.mkfifo(sub / "backend.toml")), "{sub}/backend.toml: it is not a file"),
        (lambda sub: (sub.mkdir(), (sub / "backend.toml").mkdir()), "{sub}/backend.toml: it "),
        (lambda sub: (sub.mkdir(), (sub / "backend.toml").symlink_to(sub / "no")), "{sub}/no: it cannot be read"),
        (lambda sub: (sub.mkdir(), (sub / "backend.toml").symlink_to("/dev/zero")), "/dev/zero: it is not a file"),
        (
            lambda sub: (sub.mkdir(), (sub / "backend.toml").symlink_to(sub / "backend.toml")),
            "{sub}/backend.toml: it cannot be read",
        ),
        (
            lambda sub: (sub.mkdir(), (sub / "backend.toml").write_text(toml("a") + "x = [" + "1, " * 40000 + "]")),
            "{sub}/backend.toml: it has more than 65536 bytes",
        ),
    ],
)
def test_a_bad_manifest_in_the_folder_is_listed_with_its_fault(found, shelf, arrange, error):
    arrange(shelf.folder / "a")
    shelf.write("well/backend.toml", toml("well") + 'host.command = ["true"]')
    backends = found()
    assert backends["a"].error.startswith(error.format(sub=shelf.folder / "a"))
    assert backends["well"].error == ""


@pytest.mark.parametrize("content", ["no toml", toml("strange") + 'host.command = ["true"]'])
def test_a_folder_whose_name_is_no_text_can_be_listed(found, shelf, content):
    folder = shelf.folder / os.fsdecode(b"a\xff\n\x1b[31m")
    folder.mkdir()
    (folder / "backend.toml").write_text(content)
    (strange,) = (each for each in found().values() if each.name.startswith(("a?", "strange")))
    for text in (strange.name, strange.error):
        assert text.isprintable()
        text.encode()


def test_hidden_folders_and_files_are_no_backends(found, shelf):
    shelf.write(".cache/x", "")
    shelf.write("_build/x", "")
    shelf.write("README", "")
    assert not {".cache", "_build", "README"} & found().keys()


def test_a_folder_that_is_not_there_is_no_fault(tmp_path):
    from puna.settings import Settings

    assert "llama_cpp" in Registry.discover(Settings(plugins_folder=tmp_path / "none")).names()


# ---- our own --------------------------------------------------------------------------------------------------------


def test_what_our_own_backends_import_is_what_they_require():
    """No module outside Puna and the standard library is forgotten in `requires`, also none that Puna depends on."""
    ours = {"puna", "puna_llama_cpp", "puna_ctransformers", "puna_ctranslate2", "puna_ggml_kernels", "puna_openai"}
    for name in ("llama_cpp", "ctransformers", "ctranslate2", "openai"):
        package = Path(importlib.util.find_spec(f"puna_{name}").origin).parent
        imported = {
            module.partition(".")[0]
            for path in package.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            for module in _modules(node)
        }
        assert imported - ours - sys.stdlib_module_names == set(
            read(package / "backend.toml", python_class="a:B").requires
        )


def _modules(node):
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) else []
