import pytest
from tests.core.plugins.site import Site

from puna.settings import Settings


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the module search path, for plugins that the test installs."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return Site(folder)


@pytest.fixture
def shelf(tmp_path):
    """A folder of manifests."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def settings(shelf):
    """Makes settings with the folder of manifests."""
    return lambda **fields: Settings(plugins_folder=shelf.folder, **fields)
