import sys

import pytest

from puna.plugins.environment import Environment
from puna.plugins.table import ManifestError


def announced(environment):
    return {each.name: each for each in environment.announced()}


def test_of_two_versions_the_first_on_the_search_path_counts(site, tmp_path, monkeypatch):
    older = type(site)(tmp_path / "older")
    older.module("mine", version="0.9", distribution="Puna.Mine")
    site.module("mine", version="1.1", distribution="puna-mine")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.folder)])
    versions = [each.version for each in Environment.current().announced() if each.name.lower()[-4:] == "mine"]
    assert versions == ["1.1"]


def test_distributions_without_backends_are_passed_over(site):
    site.write("other-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    site.write("other-1.0.dist-info/entry_points.txt", "[console_scripts]\nputa.backends = a:b\n")
    assert "other" not in announced(Environment.current())


def test_modules_are_looked_up_where_the_interpreter_would(site, tmp_path):
    site.write("only_here.py", "raise SystemExit")
    here, elsewhere = Environment.current(), Environment("/python", (str(tmp_path / "none"),))
    assert (here.has("only_here"), here.has("json"), here.has("no_such")) == (True, True, False)
    assert not elsewhere.has("only_here")
    assert Environment("/python", (str(site.folder),)).has("only_here")
    assert elsewhere.spec("only_here", site.folder) is not None
    assert "only_here" not in sys.modules


def test_a_loaded_module_without_a_spec_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_by_hand", type(sys)("made_by_hand"))
    assert Environment.current().has("made_by_hand")


def test_a_finder_that_raises_is_a_fault(monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            raise RuntimeError("mine")

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ManifestError, match=r"looking for the module 'never_seen' failed: RuntimeError\('mine'\)"):
        Environment.current().spec("never_seen")
