import sys

import pytest

from puna.host.loading import import_backend


@pytest.fixture
def module(tmp_path, monkeypatch):
    def write(text):
        (tmp_path / "loaded_here.py").write_text(text)

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    sys.modules.pop("loaded_here", None)


def test_the_class_is_imported_and_made(registry):
    assert type(import_backend("puna_scripted:ScriptedBackend")).__name__ == "ScriptedBackend"


def test_a_class_may_lie_within_another(module):
    module("""
from puna.backend import Backend
class Outer:
    class Inner(Backend):
        async def load(self, spec, report, /): ...
""")
    assert type(import_backend("loaded_here:Outer.Inner")).__name__ == "Inner"


@pytest.mark.parametrize("python_class", ["builtins:int", "json:dumps", "puna.backend:BackendError"])
def test_what_is_no_backend_is_refused_by_its_name(python_class):
    with pytest.raises(TypeError, match=rf"^{python_class} is not a subclass of puna\.backend\.Backend$"):
        import_backend(python_class)


def test_errors_of_the_module_are_its_own(module):
    module("raise ImportError('no engine')")
    with pytest.raises(ImportError, match="no engine"):
        import_backend("loaded_here:Backend")
