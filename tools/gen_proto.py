"""Regenerate the wire packages under core/puna from proto/ (or, with --check, say whether they are stale).

`make proto` runs it. The dependency group `proto` pins the compiler, because generated code refuses to run on a
protobuf or grpcio older than its compiler.
"""

import filecmp
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "proto"
# proto/puna/v1/x.proto declares `package puna.v1` and lands in the Python package puna.v1:
# one name everywhere, so the generated imports are right as they are and nothing has to be rewritten.
PACKAGES = (Path("puna/v1"), Path("puna/backend/v1"))


def generate(package: Path, out: Path) -> None:
    """Write the Python code of one wire package under `out`."""
    protos = sorted(str(path.relative_to(SOURCES)) for path in (SOURCES / package).glob("*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", *outputs, *protos], check=True)
    for path in (out / package).glob("*_pb2_grpc.py*"):  # a file without a service gets an empty module
        if "Stub" not in path.read_text():
            path.unlink()
    (out / package / "__init__.py").write_text(
        f'"""Generated from proto/{package.as_posix()} by tools/gen_proto.py. Do not edit."""\n'
    )


def stale(fresh: Path, committed: Path) -> list[str]:
    """Name the files that differ between two folders."""
    comparison = filecmp.dircmp(fresh, committed, ignore=["__pycache__"])
    return sorted(comparison.left_only + comparison.right_only + comparison.diff_files)


def main() -> int:
    """Regenerate or check; return the exit status."""
    if importlib.util.find_spec("grpc_tools") is None:
        print(
            "the compiler is not installed: grpcio-tools of the pinned version has no wheel for Python 3.14 and newer"
        )
        return 1
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        for package in PACKAGES:
            generate(package, fresh)
            committed = ROOT / "core" / package
            if "--check" in sys.argv:
                found += [
                    f"{package}/{name}" for name in (stale(fresh / package, committed) if committed.is_dir() else ["*"])
                ]
            else:
                # The folder is replaced as a whole, so that the code of a removed .proto file goes too.
                shutil.rmtree(committed, ignore_errors=True)
                shutil.copytree(fresh / package, committed)
    if "--check" in sys.argv:
        print("stale: " + ", ".join(found) if found else "generated code is up to date")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
