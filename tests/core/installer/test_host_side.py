import ast
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution, version
from pathlib import Path

from puna.installer import host_side

PLUGIN_MODULES = ("puna.host.__main__", "puna.backend", "puna.backend.text", "puna.blocking", "puna.gguf.reader")


def test_the_wheel_has_the_name_and_version_of_this_puna_and_no_module(tmp_path):
    path = host_side.write_wheel(tmp_path)
    with zipfile.ZipFile(path) as wheel:
        assert {name.partition("/")[0] for name in wheel.namelist()} == {f"puna-{version('puna')}.dist-info"}
        wheel.extractall(tmp_path)
    found = PathDistribution(tmp_path / f"puna-{version('puna')}.dist-info")
    assert (found.name, found.version) == ("puna", version("puna"))
    assert found.requires == host_side.requirements()
    assert [each for each in found.files if each.hash is None] == [Path(f"puna-{version('puna')}.dist-info/RECORD")]


def test_it_requires_grpc_and_protobuf_within_punas_own_bounds():
    grpcio, protobuf = sorted(host_side.requirements())
    assert grpcio.startswith("grpcio>=")
    assert protobuf.startswith("protobuf<8,>=")


def test_hosts_import_nothing_else():
    """What a host imports beside the standard library is in the environment of each plugin."""
    code = (
        f"import sys, {', '.join(PLUGIN_MODULES)}\n"
        "files = [getattr(module, '__file__', None) or '' for module in list(sys.modules.values())]\n"
        "print(sorted({file.partition('/site-packages/')[2].partition('/')[0] for file in files}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    found = set(ast.literal_eval(done.stdout))
    # gRPC requires typing_extensions, and imports its own companions where they are installed.
    companions = {"typing_extensions.py", "grpc_health", "grpc_reflection", "grpc_tools"}
    # Path files of other distributions import these in every process.
    at_start = {"_distutils_hack", "_virtualenv.py"}
    assert found - companions - at_start - {""} == {"google", "grpc"}
