"""The structs of native/ggml_abi.h and llama_abi.h against the headers that llama-cpp-python installs; see abi.c.

Those headers do not declare everything that the kernels touch. tests/real compares the rest with ggml's sources.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from puna_ggml_kernels import loader

HERE = Path(__file__).parent


def installed_headers():
    """The folder with ggml.h: beside the packages, or in llama_cpp in the wheels of `make wheel`."""
    package = Path(importlib.util.find_spec("llama_cpp").origin).parent
    return next(folder for folder in (package / "include", package.parent / "include") if (folder / "ggml.h").exists())


def compile_only(*folders, defines=(), mirror=loader.LIBRARY.parent):
    """Compile the comparison; returns the compiler's messages, none if all is as the mirror says."""
    includes = [f"-I{folder}" for folder in (mirror, *folders)]
    command = ["cc", "-std=gnu11", "-fsyntax-only", *includes, *(f"-D{each}" for each in defines), str(HERE / "abi.c")]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_structs_and_types_are_those_of_the_installed_headers():
    assert compile_only(installed_headers()) == ""


@pytest.mark.parametrize(
    ("was", "becomes", "member"),
    [
        ("int32_t flags;", "int32_t flags, more;", "tensor.src"),
        ("int32_t op_params[16];", "int32_t op_params[15];", "tensor.op_params"),
        ("GGML_TYPE_Q6_K = 14", "GGML_TYPE_Q6_K = 17", "Q6_K"),
    ],
)
def test_a_mirror_of_another_version_is_found(tmp_path, was, becomes, member):
    text = (loader.LIBRARY.parent / "ggml_abi.h").read_text()
    assert was in text
    shutil.copy(loader.LIBRARY.parent / "llama_abi.h", tmp_path)
    (tmp_path / "ggml_abi.h").write_text(text.replace(was, becomes))
    assert f'static assertion failed: "{member}"' in compile_only(installed_headers(), mirror=tmp_path)
