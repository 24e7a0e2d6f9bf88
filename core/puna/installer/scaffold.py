"""`puna plugin new`: writes a distribution with a working backend, its tests, checks and CI."""

import json
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from puna.installer.errors import PluginInstallError

SUFFIX: Final = ".txt"
"""Ends the names of the templates, so that no tool takes them for Python, TOML or YAML."""
PACKAGE: Final = "package"
"""The folder of a template that gets the module's name."""
MAX_NAME: Final = 40
"""Characters of a name. The generated lines then fit into 120 characters."""
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_PLACE: Final = re.compile(r"@(\w+)@")


def write(name: str, parent: Path, taken: Iterable[str] = ()) -> Path:
    """Write the distribution `puna-NAME` into a new folder of that name in `parent`. Return the folder.

    Raises PluginInstallError for a name that is not allowed, one of the backends `taken`, and a folder that exists, and
    OSError.
    """
    name = re.sub(r"^puna[-_]", "", name)
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise PluginInstallError(
            f"{name!r} cannot name a backend: a name has at most {MAX_NAME} characters, begins with a letter, and "
            "consists of words of a-z and 0-9 that are separated by - or _"
        )
    words = re.split(r"[-_]", name)
    # The modules of such names would be the same.
    if words in [re.split(r"[-_]", each) for each in taken]:
        raise PluginInstallError(f"{name!r} is the name of one of Puna's own backends")
    values = {
        "name": name,
        "distribution": "-".join(("puna", *words)),
        "module": "_".join(("puna", *words)),
        "Class": "".join(word.capitalize() for word in words),
        "version": version("puna"),
        "puna": puna_requirement(),
    }
    target = parent / values["distribution"]
    try:
        target.mkdir(parents=True)
    except FileExistsError as error:
        raise PluginInstallError(f"{target} exists already") from error
    _copy(files("puna.installer") / "template", target, values)
    return target.resolve()


def puna_requirement() -> str:
    """Return how others can require the Puna that runs: by its public URL if it was installed from one, or by name."""
    try:
        origin = json.loads(distribution("puna").read_text("direct_url.json") or "{}")
    except ValueError:
        origin = {}
    url = str(origin.get("url", ""))
    # A path on this machine would tell others nothing.
    if not url.startswith("https://"):
        return "puna"
    revision = origin.get("vcs_info", {})
    return f"puna @ {revision['vcs']}+{url}@{revision['commit_id']}" if revision else f"puna @ {url}"


def _copy(source: Traversable, target: Path, values: Mapping[str, str]) -> None:
    for each in source.iterdir():
        if each.is_dir():
            folder = target / (values["module"] if each.name == PACKAGE else each.name)
            folder.mkdir()
            _copy(each, folder, values)
        elif each.name.endswith(SUFFIX):
            text = _PLACE.sub(lambda place: values[place[1]], each.read_text(encoding="utf-8"))
            (target / each.name.removesuffix(SUFFIX)).write_text(text, encoding="utf-8")
