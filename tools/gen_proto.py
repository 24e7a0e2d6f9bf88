"""Regenerate the Python code of proto/ (or, with --check, say whether it is stale).

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
PACKAGES = {
    Path("puna/v1"): Path("proto/python/puna_client/v1"),
    Path("puna/interop/v1"): Path("proto/python/puna_client/interop/v1"),
    Path("puna/backend/v1"): Path("core/puna/backend/v1"),
}
"""Folder of .proto files to the folder of their Python code.

protobuf refuses two different definitions of one file in a process. So there is one copy of the public messages, in the
distribution of the client, on which the server depends.
"""
DESCRIPTORS = Path("core/puna/rpc/descriptors.binpb")
"""The definitions of puna.v1 with their comments, which reflection serves."""


def generate(package: Path, committed: Path, out: Path) -> None:
    """Write the Python code of one wire package under `out`. `committed` is the folder that it is for."""
    protos = sorted(str(path.relative_to(SOURCES)) for path in (SOURCES / package).glob("*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", *outputs, *protos], check=True)
    for path in (out / package).glob("*_pb2_grpc.py*"):  # a file without a service gets an empty module
        if "Stub" not in path.read_text():
            path.unlink()
    # protoc writes imports of packages that are called like those of the .proto files.
    wrong, right = ".".join(package.parts), ".".join(committed.parts[-len(package.parts) :])
    for path in (out / package).glob("*.py*"):
        path.write_text(path.read_text().replace(f"\nfrom {wrong} import ", f"\nfrom {right} import "))
    (out / package / "__init__.py").write_text(
        f'"""Generated from proto/{package.as_posix()} by tools/gen_proto.py. Do not edit."""\n'
    )


def described() -> bytes:
    """Return the definitions of puna.v1 as an encoded FileDescriptorSet, with comments and without positions."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    protos = sorted(str(path.relative_to(SOURCES)) for path in (SOURCES / "puna/v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "set.binpb"
        flags = ["--include_source_info", f"--descriptor_set_out={out}"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", *flags, *protos], check=True)
        found = FileDescriptorSet.FromString(out.read_bytes())
    for file in found.file:
        # Nine of ten locations have no comment. Without them the file is a third as large.
        commented = [each for each in file.source_code_info.location if each.leading_comments or each.trailing_comments]
        del file.source_code_info.location[:]
        file.source_code_info.location.extend(commented)
    return found.SerializeToString(deterministic=True)


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
        for package, folder in PACKAGES.items():
            generate(package, folder, fresh)
            committed = ROOT / folder
            if "--check" in sys.argv:
                found += [
                    f"{package}/{name}" for name in (stale(fresh / package, committed) if committed.is_dir() else ["*"])
                ]
            else:
                # The folder is replaced as a whole, so that the code of a removed .proto file goes too.
                shutil.rmtree(committed, ignore_errors=True)
                shutil.copytree(fresh / package, committed)
    definitions, kept = described(), ROOT / DESCRIPTORS
    if "--check" not in sys.argv:
        kept.write_bytes(definitions)
    elif not kept.exists() or kept.read_bytes() != definitions:
        found.append(str(DESCRIPTORS))
    if "--check" in sys.argv:
        print("stale: " + ", ".join(found) if found else "generated code is up to date")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
