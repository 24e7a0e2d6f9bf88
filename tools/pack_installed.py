"""Packs an installed distribution into a wheel again, so that another environment need not compile it a second time.

    python tools/pack_installed.py DISTRIBUTION FOLDER

The wheel has the files that the distribution's RECORD lists, without the files that the installer added. Its name
follows from the WHEEL file. Prints the wheel's path.
"""

import argparse
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

ADDED: Final = {"INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}
"""Files of the .dist-info folder that an installer writes."""


def pack(name: str, folder: Path) -> Path:
    """Write the wheel into a folder and return its path."""
    found = distribution(name)
    assert found.files is not None
    described = (found.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ").split("-") for line in described if line.startswith("Tag: ")]
    # WHEEL has a line for each tag. A file name joins the parts that differ with dots (compressed tag sets).
    tag = "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))
    # A hyphen would end the name: a wheel's file name separates its parts by hyphens.
    wheel = folder / f"{found.name.replace('-', '_')}-{found.version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in found.files:
            if file.suffix != ".pyc" and not (file.parent.suffix == ".dist-info" and file.name in (*ADDED, "RECORD")):
                archive.write(file.locate(), str(file))
            if file.name == "RECORD":
                # An installer compares RECORD with the archive, so lines about files that are left out must go.
                lines = (found.read_text("RECORD") or "").splitlines(keepends=True)
                kept = [line for line in lines if Path(line.partition(",")[0]).name not in ADDED]
                archive.writestr(str(file), "".join(line for line in kept if ".pyc," not in line))
    return wheel


def main() -> None:
    """Pack the distribution that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("distribution")
    parser.add_argument("folder", type=Path)
    told = parser.parse_args()
    print(pack(told.distribution, told.folder))


if __name__ == "__main__":
    main()
