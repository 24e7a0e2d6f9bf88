"""One installed backend, usable or not."""

from dataclasses import dataclass
from pathlib import Path

from puna.plugins.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A backend that is installed: its manifest, where it comes from, and why it cannot be used if it cannot."""

    name: str
    distribution: str = ""
    """The distribution that brings it; empty for a folder or when unknown."""
    version: str = ""
    error: str = ""
    """Why it cannot be used; empty when it can."""
    manifest: Manifest | None = None
    """None if the manifest is missing or has a fault."""
    command: tuple[str, ...] = ()
    """The program, an absolute path, and the arguments that start its host process."""
    python_path: str = ""
    """A folder in front of the module search path of its host; empty: none."""
    environment: str = ""
    """The folder of the environment that its host runs in, whose interpreter is in `venv`; empty: none of its own."""
    own_python: bool = False
    """Whether its host runs with an interpreter of its own, not Puna's."""
    watched: tuple[Path, ...] = ()
    """Files and folders whose change may change this description."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The model formats that it serves; empty if it cannot be used."""
        return self.manifest.formats if self.manifest is not None and not self.error else ()

    @property
    def usable(self) -> Manifest:
        """The manifest. Raises ValueError if the backend cannot be used."""
        if self.manifest is None or self.error:
            raise ValueError(self.error)
        return self.manifest
