"""The distribution `puna` in a plugin's environment: metadata alone.

A plugin requires `puna`. The package index need not have it, or may have another version, and the whole of Puna would
bring the server's dependencies. So each environment gets a wheel written here: it has the name and version of this
Puna, requires what the host side imports, and contains no module. The modules are those of the running server: see
`puna.process.package_path`.
"""

import base64
import hashlib
import re
import zipfile
from importlib.metadata import metadata, requires, version
from pathlib import Path
from typing import Final

HOST_SIDE: Final = ("grpcio", "protobuf")
"""The distributions that `puna.host` and `puna.backend` import. A test compares."""


def write_wheel(folder: Path) -> Path:
    """Write the wheel into a folder, and return its path."""
    number = version("puna")
    info = f"puna-{number}.dist-info"
    files = {
        f"{info}/METADATA": _metadata(number),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: puna\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_digest(text)},{len(text.encode())}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = folder / f"puna-{number}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def requirements() -> list[str]:
    """Return Puna's own requirements on the distributions of HOST_SIDE, with their version bounds."""
    return [each for each in requires("puna") or () if re.split(r"[^A-Za-z0-9._-]", each)[0] in HOST_SIDE]


def _metadata(number: str) -> str:
    lines = [
        "Metadata-Version: 2.1",
        "Name: puna",
        f"Version: {number}",
        "Summary: The side of Puna that runs in the processes of backends",
        f"Requires-Python: {metadata('puna')['Requires-Python']}",
        *(f"Requires-Dist: {each}" for each in requirements()),
    ]
    return "\n".join(lines) + "\n"


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
