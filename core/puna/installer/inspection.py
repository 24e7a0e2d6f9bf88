"""Prints the plugins of the environment whose interpreter runs this file, as JSON. Imports none of them.

The installer runs it in the new environment, since only that interpreter knows how its path files and editable
installations change where a module is found. It needs the standard library alone.
"""

import importlib.util
import json
import os
import sys
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path


def inspect() -> dict[str, object]:
    """Return all distributions as "name==version", and the plugins among them with their entry points."""
    found = list(distributions())
    entries = [(each, [entry for entry in each.entry_points if entry.group == "puna.backends"]) for each in found]
    modules = {entry.value.partition(":")[0].partition(".")[0] for _, group in entries for entry in group}
    return {
        "packages": sorted({f"{each.name}=={each.version}" for each in found}),
        "plugins": [_plugin(each, group) for each, group in entries if group],
        "paths": _paths(modules),
    }


def _plugin(distribution: Distribution, entries: list[EntryPoint]) -> dict[str, object]:
    return {
        "distribution": distribution.name,
        "version": distribution.version,
        # Installers leave this file for what the user named, in contrast to its dependencies.
        "requested": distribution.read_text("REQUESTED") is not None,
        "backends": [each.name for each in entries],
    }


def _paths(modules: set[str]) -> list[str]:
    """Return the folders that hold distributions' modules, those of the plugins' own first.

    An editable installation may have a finder of its own, so that a module lies in no folder of the search path.
    """
    own = [folder for module in sorted(modules) if (folder := _folder(module))]
    below = [each for each in sys.path if each.startswith(sys.prefix + os.sep)]
    return list(dict.fromkeys([*own, *below]))


def _folder(module: str) -> str:
    """Return the folder that holds a top-level module; empty if it is not found."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return ""
    place = next(iter(spec.submodule_search_locations or ()), None) or spec.origin
    return str(Path(place).parent) if place else ""


if __name__ == "__main__":
    json.dump(inspect(), sys.stdout)
