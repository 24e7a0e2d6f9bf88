from pathlib import Path

import pytest

from puna.installer import specs
from puna.installer.errors import PluginInstallError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "text",
    ["echo", "puna-echo==1.2", "puna-echo[gpu]>=1,<2", "puna_echo ~= 1.0", "puna-echo; python_version > '3.11'"],
)
def test_a_name_on_the_index_stays_as_it_is(text, tmp_path):
    spec = specs.parse(text, tmp_path)
    assert (spec.text, spec.requirement, spec.changing) == (text, text, False)


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("https://example.com/puna_echo-1.0-py3-none-any.whl", "https://example.com/puna_echo-1.0-py3-none-any.whl"),
        ("https://example.com/echo.git", "git+https://example.com/echo.git"),
        ("https://example.com/echo.git@v1", "git+https://example.com/echo.git@v1"),
        ("https://example.com/echo.git#subdirectory=a", "git+https://example.com/echo.git#subdirectory=a"),
        ("git+https://example.com/echo", "git+https://example.com/echo"),
        ("ssh://git@example.com/echo", "git+ssh://git@example.com/echo"),
        ("git@example.com:team/echo.git", "git+ssh://git@example.com/team/echo.git"),
        ("puna-echo @ https://example.com/echo.git", "puna-echo @ https://example.com/echo.git"),
    ],
)
def test_urls_become_what_installers_take(text, requirement, tmp_path):
    spec = specs.parse(text, tmp_path)
    assert (spec.text, spec.requirement, spec.changing) == (text, requirement, True)


def test_paths_are_absolute_so_that_an_upgrade_finds_them_from_anywhere(tmp_path):
    (tmp_path / "echo").mkdir()
    (tmp_path / "echo.whl").touch()
    for text in ("./echo", "echo/", str(tmp_path / "echo")):
        spec = specs.parse(text, tmp_path)
        assert (spec.text, spec.requirement, spec.changing) == (str(tmp_path / "echo"), str(tmp_path / "echo"), True)
    assert specs.parse("echo.whl", tmp_path).text == str(tmp_path / "echo.whl")
    assert specs.parse(".", tmp_path).text == str(tmp_path)


def test_a_bare_word_is_never_a_folder(tmp_path):
    (tmp_path / "echo").mkdir()
    assert specs.parse("echo", tmp_path).requirement == "echo"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("./missing", "there is neither a file nor a folder"),
        ("missing.whl", "there is neither a file nor a folder"),
        ("--index-url=x", "is neither a name on the package index, nor a path, nor a URL"),
        ("a b", "is neither a name"),
        ("", "is neither a name"),
        ("Puna", "puna itself is not a plugin"),
        ("puna[llama-cpp]", "puna itself is not a plugin"),
    ],
)
def test_what_cannot_be_installed(text, error, tmp_path):
    with pytest.raises(PluginInstallError, match=error):
        specs.parse(text, tmp_path)


def test_a_plugin_that_puna_brings_along_needs_no_index(tmp_path):
    for text in ("puna-ctransformers", "puna_ctransformers", "Puna.CTransformers"):
        spec = specs.parse(text, tmp_path)
        assert spec.text == "puna-ctransformers"
        assert Path(spec.requirement) == ROOT / "plugins/puna_ctransformers"
    # A version is one of the index.
    assert specs.parse("puna-ctransformers==9", tmp_path).requirement == "puna-ctransformers==9"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("git+https://me:secret@example.com/echo.git", "git+https://***@example.com/echo.git"),
        ("https://token@example.com/echo.whl", "https://***@example.com/echo.whl"),
        ("https://example.com/echo.git@v1", "https://example.com/echo.git@v1"),
        ("git+ssh://git@example.com/echo", "git+ssh://git@example.com/echo"),
        ("puna-echo @ https://a:b@example.com/x.whl", "puna-echo @ https://***@example.com/x.whl"),
    ],
)
def test_credentials_are_not_shown(text, shown):
    assert specs.without_credentials(text) == shown


def test_a_package_without_a_project_of_its_own_is_not_brought_along():
    assert specs.bundled("puna-llama-cpp") is None
    assert specs.bundled("ctransformers") is None
