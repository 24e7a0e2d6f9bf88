"""What can be installed, and what is refused with the reason and leaves nothing behind."""

import re
import subprocess
import sys

import pytest
from tests.environments.conftest import MANIFEST, write_plugin
from tests.uv import UV


def build(source, target):
    """Build the wheel of a distribution."""
    command = [UV, "build", "--quiet", "--wheel", "--out-dir", target, source]
    subprocess.run(command, check=True, timeout=120)


def test_a_folder_and_its_backends_are_listed_with_version_origin_and_formats(place, tmp_path):
    manifest = MANIFEST.replace('["gguf"]', '["echo", "toy"]')
    source = write_plugin(tmp_path / "echo", "echo", manifest=manifest)
    assert place.plugin("install", "./echo") == "puna-echo 1.0 (backend echo) is installed\n"
    assert place.listed()["echo"] == {
        "name": "echo",
        "version": "1.0",
        "from": str(source),
        "formats": ["echo", "toy"],
        "fault": "",
    }
    headers, *rows = place.plugin("list").splitlines()
    assert headers.split() == ["NAME", "VERSION", "FROM", "FORMATS", "FAULT"]
    assert [row.split() for row in rows if row.startswith("echo ")] == [["echo", "1.0", str(source), "echo,", "toy"]]
    assert place.plugin("check").splitlines() == [
        "puna-echo 1.0 (backend echo): the host starts and describes itself",
        "echo: the manifest names no model to test with (check.model)",
    ]


def test_a_wheel(place, tmp_path):
    build(write_plugin(tmp_path / "echo", "echo"), tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    place.plugin("install", wheel)
    assert place.listed()["echo"]["from"] == str(wheel)


def test_a_name_on_the_index_is_upgraded_when_there_is_a_newer_version(place, tmp_path):
    """Distributions of a folder stand in for those of the index, for nothing of ours is on it."""
    index = {"UV_FIND_LINKS": str(tmp_path / "index")}
    build(write_plugin(tmp_path / "echo", "echo", version="1.0"), tmp_path / "index")
    place.plugin("install", "puna-echo", **index)
    (before,) = place.folder.glob("puna-*")
    same = before.readlink()
    assert place.plugin("upgrade", "echo", **index) == "puna-echo 1.0 (backend echo) is up to date\n"
    assert before.readlink() == same
    build(write_plugin(tmp_path / "echo", "echo", version="1.1"), tmp_path / "index")
    assert place.plugin("upgrade", **index) == "puna-echo 1.1 (backend echo) is installed\n"
    assert place.listed()["echo"]["from"] == "puna-echo"
    place.plugin("install", "puna-echo==1.0", **index)
    assert place.listed()["echo"]["version"] == "1.0"


def test_a_git_repository(place, tmp_path):
    source = write_plugin(tmp_path / "echo", "echo")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (("init", "--quiet"), ("add", "."), (*identity, "commit", "--quiet", "--message", "first")):
        subprocess.run(["git", *command], cwd=source, check=True)
    place.plugin("install", f"git+{source.as_uri()}")
    assert place.listed()["echo"]["fault"] == ""


def test_an_editable_folder_is_the_plugin_itself(place, tmp_path):
    source = write_plugin(tmp_path / "echo", "echo")
    place.plugin("install", "-e", source)
    assert place.listed()["echo"]["fault"] == ""
    (source / "puna_echo/backend.toml").write_text("contract = 99\n")
    assert "contract" in place.listed()["echo"]["fault"]


def test_another_python(place, tmp_path):
    place.plugin("install", "--python", sys.executable, write_plugin(tmp_path / "echo", "echo"))
    assert place.listed()["echo"]["fault"] == ""


REFUSED = {
    "six": "six is not a plugin: it has no entry point in the group puna.backends",
    "ctransformers": "perhaps puna-ctransformers is meant",
    "./nowhere": "there is neither a file nor a folder",
    "puna-echo-that-nobody-has-published": "the plugin could not be installed (uv: exit status 1)",
}


@pytest.mark.parametrize(("spec", "error"), REFUSED.items(), ids=list(REFUSED))
def test_what_is_no_plugin(place, spec, error):
    assert error in place.plugin("install", spec, status=1)
    assert not place.folder.exists() or place.leftovers() == set()


BROKEN = {
    "a wrong field": ({"manifest": MANIFEST + "preferense = 1\n"}, "preferense"),
    "another contract": ({"manifest": MANIFEST.replace("1", "99", 1)}, "version 99"),
    "a module that raises": ({"module": "raise ImportError('libecho.so is missing')"}, "libecho.so is missing"),
    "a module that exits": ({"module": "import os; os._exit(3)"}, "exit status 3"),
    "a module that hangs": ({"module": "import time; time.sleep(600)"}, "takes longer than"),
    "no Backend": ({"module": "class Answering: pass"}, "is not a subclass of puna.backend.Backend"),
    "an older Puna": ({"requirements": ("puna>=99",)}, "could not be installed"),
}


@pytest.mark.parametrize(("change", "error"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_plugin_is_refused_and_the_old_version_stays(place, tmp_path, change, error):
    source = write_plugin(tmp_path / "echo", "echo")
    place.plugin("install", source)
    change = dict(change)
    write_plugin(source, "echo", *change.pop("requirements", ()), version="2.0", **change)
    variables = {"OLLAMA_LOAD_TIMEOUT": "5s"} if "sleep" in str(change) else {}
    assert error in place.plugin("install", source, status=1, **variables)
    assert place.leftovers() == set()
    assert (place.listed()["echo"]["version"], place.listed()["echo"]["fault"]) == ("1.0", "")


def test_names_are_unique(place, tmp_path):
    said = place.plugin("install", write_plugin(tmp_path / "a", "llama_cpp"), status=1)
    assert "backend 'llama_cpp': the name is taken by puna" in said
    place.plugin("install", write_plugin(tmp_path / "b", "echo"))
    source = write_plugin(tmp_path / "c", "echo")
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace('"puna-echo"', '"other-echo"'))
    assert "puna-echo has a backend 'echo' already" in place.plugin("install", source, status=1)
    assert place.listed()["echo"]["fault"] == ""


def test_only_the_plugins_that_puna_plugins_names_are_used(place, tmp_path):
    for name in ("one", "two"):
        place.plugin("install", write_plugin(tmp_path / name, name))
    assert {"one", "two"} <= place.listed().keys()
    place.variables["PUNA_PLUGINS"] = "llama_cpp,two"
    assert place.listed().keys() == {"llama_cpp", "two"}


def test_what_is_not_installed_is_named(place, tmp_path):
    place.plugin("install", write_plugin(tmp_path / "echo", "echo"))
    for action in ("remove", "upgrade", "check"):
        text = "Error: nobody: no plugin 'nobody' is installed here (installed: puna-echo)\n"
        assert place.plugin(action, "nobody", status=1) == text
    assert place.plugin("remove", "echo", "nobody", status=1).startswith("Error: nobody: ")
    assert "echo" not in place.listed()


def test_a_generated_plugin_is_installed_and_checked_with_its_model(place, tmp_path):
    said = place.plugin("new", "my-engine", "--folder", tmp_path)
    assert re.search(r"puna plugin install \S+/puna-my-engine$", said.strip())
    package = tmp_path / "puna-my-engine/src/puna_my_engine"
    manifest, code = package / "backend.toml", package / "backend.py"
    manifest.write_text(manifest.read_text().replace("# [check]", "[check]").replace("# model", "model"))
    (package / "small.model").touch()
    # The tests of a host watch it at work, which takes longer than an echo on a busy machine.
    text = code.read_text()
    slower = text.replace(
        "            count += 1\n", "            count += 1\n            await asyncio.sleep(0.005)\n"
    )
    assert slower != text
    code.write_text(slower)
    place.plugin("install", tmp_path / "puna-my-engine")
    assert "my-engine" in place.listed()
    assert re.search(r"^my-engine: \d+ contract tests pass$", place.plugin("check", "my-engine"), re.MULTILINE)


def test_a_model_that_fails_the_contract_fails_the_check(place, tmp_path):
    manifest = MANIFEST + '[check]\nmodel = "{name}"\n'
    source = write_plugin(tmp_path / "echo", "echo", manifest=manifest)
    place.plugin("install", source)
    assert "check.model: there is neither a file nor a folder" in place.plugin("check", status=1)
    (source / "puna_echo/echo").touch()
    place.plugin("upgrade")
    assert re.search(
        r"^Error: puna-echo: \d+ of \d+ contract tests fail$", place.plugin("check", status=1), re.MULTILINE
    )


def test_an_environment_without_its_python_is_a_fault(place, tmp_path):
    place.plugin("install", write_plugin(tmp_path / "echo", "echo"))
    (link,) = place.folder.glob("puna-*")
    (link / "venv/bin/python").unlink()
    assert "puna plugin upgrade" in place.listed()["echo"]["fault"]
    place.plugin("upgrade", "echo")
    assert place.listed()["echo"]["fault"] == ""
