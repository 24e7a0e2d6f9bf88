"""Importing the Backend class that a manifest names."""

import importlib
from functools import reduce

from puna.backend import Backend


def import_backend(python_class: str) -> Backend:
    """Import a class given as "module:Class" and make an instance. Raises what the module raises, and TypeError."""
    module, _, name = python_class.partition(":")
    found = reduce(getattr, name.split("."), importlib.import_module(module))
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise TypeError(f"{python_class} is not a subclass of puna.backend.Backend")
    return found()
