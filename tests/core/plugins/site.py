"""Plugins that a test writes: modules, packages, manifests and the metadata that announces them."""

import json

LEAST = 'contract = 1\nname = "{name}"\nformats = ["{name}"]\n'
CODE = """
from puna.backend import Backend

class Made(Backend):
    async def load(self, spec, report, /):
        raise NotImplementedError
"""


def toml(name, **fields):
    """Return a manifest with these fields, which must not be tables."""
    fields = {"contract": 1, "name": name, "formats": [name]} | fields
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())


class Site:
    """A folder that stands on the module search path."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, path, content):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def announce(self, name, value, distribution=None, version="1.0"):
        """Write the metadata of a distribution with one entry point."""
        distribution = distribution or f"puna-{name}"
        folder = f"{distribution.replace('-', '_')}-{version}.dist-info"
        self.write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        self.write(f"{folder}/entry_points.txt", f"[puna.backends]\n{name} = {value}\n")

    def module(self, name, manifest=None, code=CODE, **announced):
        """Install a module puna_NAME with a manifest beside it; `manifest` None: the least one, "": none."""
        self.write(f"puna_{name}.py", code)
        if manifest != "":
            self.write(f"puna_{name}.backend.toml", LEAST.format(name=name) if manifest is None else manifest)
        self.announce(name, f"puna_{name}:Made", **announced)

    def package(self, name, manifest=None, file="backend.toml", code=CODE):
        """Install a package puna_NAME with a manifest in it."""
        self.write(f"puna_{name}/__init__.py", code)
        self.write(f"puna_{name}/{file}", LEAST.format(name=name) if manifest is None else manifest)
        self.announce(name, f"puna_{name}:Made")
