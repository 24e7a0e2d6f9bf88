import json

import pytest

from puna.plugins.installed import ENVIRONMENTS, RECORD, InstalledPlugin, Unreadable, links, read_all


@pytest.fixture
def plugin(tmp_path):
    folder = tmp_path / ENVIRONMENTS / "1"
    folder.mkdir(parents=True)
    (tmp_path / "puna-echo").symlink_to(f"{ENVIRONMENTS}/1")
    plugin = InstalledPlugin(
        folder=folder,
        distribution="puna-echo",
        version="1.0",
        spec="git+https://example.com/echo",
        editable=True,
        python="3.12",
        packages=("puna==0.1.0",),
        backends=("echo", "echo-2"),
        paths=("/a",),
    )
    plugin.write()
    return plugin


def test_a_record_holds_everything(plugin, tmp_path):
    assert list(read_all(tmp_path)) == [plugin]
    assert (plugin.folder / RECORD).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"distribution": 1}', "\xff"])
def test_a_damaged_record_is_a_fault_of_its_plugin_alone(plugin, tmp_path, text):
    (plugin.folder / RECORD).write_text(text, encoding="latin-1")
    (found,) = read_all(tmp_path)
    assert isinstance(found, Unreadable)
    assert found.name == "puna-echo"
    assert "puna plugin remove puna-echo" in found.fault


def test_a_missing_environment_is_a_fault(plugin, tmp_path):
    (plugin.folder / RECORD).unlink()
    (found,) = read_all(tmp_path)
    assert "No such file or directory" in found.fault


@pytest.mark.parametrize("field", ["distribution", "spec", "packages", "backends", "paths"])
def test_each_field_is_checked(plugin, field):
    path = plugin.folder / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: 1}))
    with pytest.raises(ValueError, match=field):
        InstalledPlugin.read(plugin.folder)


def test_what_the_operator_puts_there_is_not_an_installed_plugin(plugin, tmp_path):
    (tmp_path / "go-host").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "go-host")
    (tmp_path / "file").touch()
    assert [each.name for each in links(tmp_path)] == ["puna-echo"]
    assert links(tmp_path / "missing") == []


def test_the_record_of_a_newer_version_is_refused_with_what_to_do(plugin, tmp_path):
    path = plugin.folder / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    (found,) = read_all(tmp_path)
    assert isinstance(found, Unreadable)
    assert "plugin.json has format version 2, and this version of Puna knows 1 at most" in found.fault
    assert "puna plugin install" in found.fault


def test_a_record_with_unknown_fields_is_read(plugin, tmp_path):
    path = plugin.folder / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"signature": "x"}))
    assert list(read_all(tmp_path)) == [plugin]
