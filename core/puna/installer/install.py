"""Installing, upgrading and removing plugins.

An environment is made, filled and tried before a link makes it the plugin's. Whatever happens until then, including the
end of this process, leaves the former version as it was, or none.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from puna.installer import host_side, inspection, programs
from puna.installer.errors import PluginInstallError
from puna.installer.folder import PluginsFolder, changing
from puna.installer.specs import Spec, bundled, canonical, parse
from puna.plugins.installed import InstalledPlugin, Unreadable, read_all

INSPECTION_SECONDS: Final = 60.0

Verify = Callable[[Path], None]
"""Tries the backends of an environment, given its folder. Raises PluginInstallError if one cannot be used."""


class Installer:
    """Changes the plugins folder."""

    def __init__(self, folder: Path, verify: Verify) -> None:
        self._folder = folder
        self._verify = verify

    def install(self, text: str, *, relative_to: Path, editable: bool = False, python: str = "") -> InstalledPlugin:
        """Install a plugin, in place of an installed version of it.

        `relative_to` is the folder of relative paths. `python` is a version or an interpreter; empty: that of this
        process. Raises PluginInstallError.
        """
        spec = parse(text, relative_to)
        if editable and not Path(spec.requirement).is_dir():
            raise PluginInstallError(f"only a folder can be installed as editable, and {text} is none")
        with changing(self._folder) as plugins:
            return self._install(plugins, spec, editable=editable, python=python)

    def upgrade(self, name: str) -> tuple[InstalledPlugin, bool]:
        """Install a plugin again from where it came. Return it, and whether anything is new. Raises PluginInstallError.

        A plugin from the package index stays as it is if no package of its environment has a newer version.
        """
        with changing(self._folder) as plugins:
            former = find(plugins.path, name)
            spec = parse(former.spec, self._folder)
            upgraded = self._install(plugins, spec, editable=former.editable, python=former.python, former=former)
            return upgraded, upgraded is not former

    def remove(self, name: str) -> str:
        """Remove a plugin by its own name or by that of one of its backends. Return its name."""
        with changing(self._folder) as plugins:
            link = _link(plugins.path, name)
            plugins.withdraw(link)
            return link

    def _install(
        self, plugins: PluginsFolder, spec: Spec, *, editable: bool, python: str, former: InstalledPlugin | None = None
    ) -> InstalledPlugin:
        with plugins.new_environment() as folder, tempfile.TemporaryDirectory() as scratch:
            installing = programs.find(programs.Runner(folder, (plugins.lock,)))
            installing.make(folder / "venv", python)
            host_side_wheel = host_side.write_wheel(Path(scratch))
            if editable:
                wanted = ["--editable", spec.requirement]
            elif Path(spec.requirement).is_dir():
                installing.build(folder / "venv", Path(spec.requirement), Path(scratch, "built"))
                wanted = [str(each) for each in Path(scratch, "built").glob("*.whl")]
            else:
                wanted = [spec.requirement]
            # uv and pip then use this URL for the plugin's requirement of the name `puna`, too.
            installing.install(folder / "venv", [*wanted, f"puna @ {host_side_wheel.as_uri()}"])
            plugin = replace(_inspected(folder, spec), editable=editable, python=python)
            if former is not None:
                if plugin.distribution != former.distribution:
                    raise PluginInstallError(
                        f"{spec.text} holds {plugin.distribution} now, no longer {former.distribution}"
                    )
                same = not spec.changing and plugin.packages == former.packages
                # An environment whose Python was upgraded away is made anew all the same.
                if same and former.interpreter.exists():
                    return former
            _check_names(plugins.path, plugin)
            plugin.write()
            self._verify(folder)
            plugins.publish(plugin.distribution, folder)
            return plugin


def find(folder: Path, name: str) -> InstalledPlugin:
    """Return an installed plugin by its own name or by that of one of its backends. Raises PluginInstallError."""
    link = _link(folder, name)
    for each in read_all(folder):
        if isinstance(each, InstalledPlugin) and each.distribution == link:
            return each
        if isinstance(each, Unreadable) and each.name == link:
            raise PluginInstallError(f"{link} cannot be used: {each.fault}")
    raise PluginInstallError(f"{link} was removed meanwhile")


def _link(folder: Path, name: str) -> str:
    installed: list[str] = []
    for each in read_all(folder):
        own = each.name if isinstance(each, Unreadable) else each.distribution
        backends = () if isinstance(each, Unreadable) else each.backends
        if own == canonical(name) or name in backends:
            return own
        installed.append(own)
    raise PluginInstallError(f"no plugin {name!r} is installed here (installed: {', '.join(installed) or 'none'})")


def _inspected(folder: Path, spec: Spec) -> InstalledPlugin:
    """Find the plugin in a new environment."""
    # -I: neither variables nor the user's own packages change what this Python finds.
    done = subprocess.run(
        [folder / "venv" / "bin" / "python", "-I", inspection.__file__],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=INSPECTION_SECONDS,
        check=False,
    )
    if done.returncode:
        raise PluginInstallError("the new environment's Python does not run")
    found: dict[str, Any] = json.loads(done.stdout)
    plugins = found["plugins"]
    # A plugin may depend on another one. The user has named one of them.
    requested = [each for each in plugins if each["requested"]] or plugins
    if len(requested) != 1:
        raise PluginInstallError(_no_plugin(spec, [each["distribution"] for each in requested]))
    (plugin,) = requested
    return InstalledPlugin(
        folder=folder,
        distribution=canonical(plugin["distribution"]),
        version=plugin["version"],
        spec=spec.text,
        packages=tuple(found["packages"]),
        backends=tuple(plugin["backends"]),
        paths=tuple(found["paths"]),
    )


def _no_plugin(spec: Spec, several: list[str]) -> str:
    if several:
        return f"{spec.text} brings several plugins ({', '.join(sorted(several))}); install them one by one"
    text = f"{spec.text} is not a plugin: it has no entry point in the group puna.backends"
    meant = f"puna-{spec.text}"
    return f"{text}; perhaps {meant} is meant" if bundled(meant) else text


def _check_names(folder: Path, plugin: InstalledPlugin) -> None:
    """Refuse a backend whose name another installed plugin has."""
    for other in read_all(folder):
        if isinstance(other, Unreadable) or other.distribution == plugin.distribution:
            continue
        for backend in other.backends:
            if backend in plugin.backends:
                raise PluginInstallError(
                    f"{other.distribution} has a backend {backend!r} already; puna plugin remove {other.distribution}"
                )
