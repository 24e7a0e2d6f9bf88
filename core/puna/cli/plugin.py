"""The command `plugin`: new, install, upgrade, remove, check and list."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from puna.cli.tables import table
from puna.installer import scaffold
from puna.installer.contract import check_contract
from puna.installer.errors import PluginInstallError
from puna.installer.install import Installer, find
from puna.installer.specs import canonical, without_credentials
from puna.installer.verify import verify
from puna.plugins import Plugin, Registry
from puna.plugins.discovery import OURS, in_environment
from puna.plugins.installed import InstalledPlugin, links, read_all
from puna.settings import Settings


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run an action and return the exit status. Raises PluginInstallError."""
    folder = settings.plugins_folder or Path()
    installer = Installer(folder, lambda home: verify(in_environment(home, home.name), settings.load_timeout))
    match arguments.action:
        case "new":
            own = [each.name for each in Registry.discover(settings).describe() if each.distribution == OURS]
            target = scaffold.write(arguments.name, arguments.folder, own)
            print(
                f"{target} is written; its README.md says how to test it. To install it: puna plugin install {target}"
            )
        case "install":
            plugin = installer.install(
                arguments.spec, relative_to=Path.cwd(), editable=arguments.editable, python=arguments.python
            )
            print(f"{_title(plugin)} is installed")
        case "upgrade":
            return _each(arguments.names or _names(folder), lambda name: _upgrade(installer, name))
        case "remove":
            return _each(arguments.names, lambda name: print(f"{installer.remove(name)} is removed"))
        case "check":
            return _each(arguments.names or _names(folder), lambda name: _check(settings, folder, name))
        case _:
            list_plugins(settings, as_json=arguments.json)
    return 0


def list_plugins(settings: Settings, *, as_json: bool) -> None:
    """Print each backend with its version, where it comes from, its formats, and its fault if it has one."""
    folder = settings.plugins_folder
    installed = [each for each in read_all(folder) if isinstance(each, InstalledPlugin)] if folder else []
    specs = {each.distribution: without_credentials(each.spec) for each in installed}
    found = [
        {
            "name": each.name,
            "version": each.version,
            "from": specs.get(canonical(each.distribution)) or each.distribution or _place(each),
            "formats": list(each.formats),
            "fault": each.error,
        }
        for each in Registry.discover(settings).describe()
    ]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    rows = [
        (*(str(each[name]) for name in ("name", "version", "from")), ", ".join(each["formats"]), str(each["fault"]))
        for each in found
    ]
    print(table(("NAME", "VERSION", "FROM", "FORMATS", "FAULT"), rows))


def _place(plugin: Plugin) -> str:
    """Return the folder of a plugin that no distribution brings."""
    return str(plugin.manifest.path.parent) if plugin.manifest is not None else ""


def _upgrade(installer: Installer, name: str) -> None:
    plugin, changed = installer.upgrade(name)
    print(f"{_title(plugin)} {'is installed' if changed else 'is up to date'}")


def _check(settings: Settings, folder: Path, name: str) -> None:
    plugin = find(folder, name)
    backends = in_environment(plugin.folder, plugin.distribution)
    verify(backends, settings.load_timeout)
    print(f"{_title(plugin)}: the host starts and describes itself")
    for each in backends:
        print(f"{each.name}: {check_contract(each)}")


def _names(folder: Path) -> list[str]:
    return [each.name for each in links(folder)]


def _title(plugin: InstalledPlugin) -> str:
    word = "backend" if len(plugin.backends) == 1 else "backends"
    return f"{plugin.distribution} {plugin.version} ({word} {', '.join(plugin.backends)})"


def _each(names: Iterable[str], action: Callable[[str], None]) -> int:
    """Run an action for each name, also after one has failed. Return the exit status."""
    failed = False
    for name in names:
        try:
            action(name)
        except PluginInstallError as error:
            print(f"Error: {name}: {error}", file=sys.stderr)
            failed = True
    return int(failed)
