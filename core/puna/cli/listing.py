"""Commands that need no running server."""

from puna.demo.install import install
from puna.models.store import ModelStore
from puna.plugins import Registry
from puna.settings import Settings


def list_plugins() -> int:
    """Print every backend: name, distribution, formats, and what is wrong with it if it cannot be loaded."""
    for each in Registry.discover().describe():
        state = f"cannot be loaded: {each.error}" if each.error else ", ".join(each.formats)
        print(f"{each.name:16} {each.distribution} {each.version:12} {state}")
    return 0


def install_demo(settings: Settings) -> int:
    """Put llamita into the store."""
    install(ModelStore(settings.models, no_prune=settings.no_prune, go_template=settings.go_template))
    print("llamita is in the store")
    return 0
