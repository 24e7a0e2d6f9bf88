"""The conditions on which the kernels are loaded and switched on, and the message where they are not."""

import logging
import shutil
import subprocess
import sys
import textwrap

import pytest
from tests.plugins.ggml_kernels.processor import not_applicable

from puna_ggml_kernels import loader, sources


def run(code):
    """Run code in a process that has not loaded llama.cpp, and return the finished process."""
    command = [sys.executable, "-c", "from puna_ggml_kernels import loader\n" + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def test_they_are_on_where_the_processor_has_what_they_need():
    assert (loader.install() is not None) == (not not_applicable())
    assert loader.installed() is loader.install()


def test_nothing_is_loaded_by_asking():
    done = run("""
        import sys
        print(loader.installed(), "llama_cpp" in sys.modules)
        loader.set_order(tiled_from=1, invariant_sequences=1)
    """)
    assert done.stdout.split() == ["None", "False"]


def test_they_stay_off_after_llama_cpp_was_loaded():
    done = run("import llama_cpp; print(loader.install())")
    assert done.stdout.split() == ["None"]
    assert "llama.cpp was loaded before them" in done.stderr


@pytest.mark.parametrize(("versions", "words"), [(("0.1.0", "0.1.1"), "has no shared library of ggml 0.1.0 or 0.1.1")])
def test_only_versions_of_ggml_that_were_tried_are_touched(versions, words):
    done = run(f"""
        import sys
        loader.VERSIONS = {versions}
        print(loader.install(), "llama_cpp" in sys.modules)
    """)
    assert done.stdout.split() == ["None", "False"]
    assert words in done.stderr


PATCHED = """
import ctypes, logging
logging.basicConfig(level=logging.INFO)
ctypes.CDLL(str(loader.LIBRARY), mode=ctypes.RTLD_GLOBAL)  # before llama.cpp, as `load` does
from puna_ggml_kernels import ggml, self_check
{patch}
loader._check_installation = lambda: None  # llama.cpp is there by now
print(loader.install())
with ggml.Graph(1 << 22) as graph:  # through the library to ggml's own functions
    print(len(graph.compute(self_check._product(graph, ggml.Q8_0))))
    print(len(graph.compute(self_check._attention(graph, 1))))
"""


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ("ggml.FUNCTIONS['chunk_set'] = 'ggml_gone'", "llama.cpp was built without ggml_gone"),
        ("ggml.INSTRUCTIONS = ('avx512', 'neon')", "llama.cpp was compiled without neon"),
        ("ggml.OBJECT_BYTES = 40", "struct ggml_tensor has another size"),
        (
            "self_check.differences = lambda library: ['a product (other bits)']",
            "they differ from ggml's own functions: a product (other bits)",
        ),
    ],
)
def test_a_llama_cpp_that_they_do_not_fit_runs_without_them_and_one_warning_says_why(patch, words):
    done = run(PATCHED.format(patch=patch))
    assert done.stdout.split() == ["None", "240", "512"]
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("WARNING:puna_ggml_kernels.loader:ggml runs without Puna's kernels: ")
    assert words in warning


@pytest.mark.kernels
def test_the_command_says_whether_they_can_be_used():
    done = subprocess.run(
        [sys.executable, "-m", "puna_ggml_kernels"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("llama.cpp runs with Puna's kernels")


def test_the_command_fails_for_a_llama_cpp_that_they_do_not_fit():
    code = "loader.VERSIONS = ('0.1.0',)\nimport sys\nfrom puna_ggml_kernels import __main__\nsys.exit(__main__.main())"
    command = [sys.executable, "-c", "from puna_ggml_kernels import loader\n" + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "llama.cpp runs without Puna's kernels, and more slowly: llama.cpp has no shared library" in done.stdout


def test_other_systems_and_machines_without_a_compiler_are_no_reason_to_warn(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(loader.UnavailableError, match="Linux") as raised:
        loader.load()
    assert raised.value.level == logging.INFO
    monkeypatch.undo()
    monkeypatch.setattr(loader, "LIBRARY", loader.LIBRARY.with_name("none.so"))
    with pytest.raises(loader.UnavailableError, match=r"none\.so was not built") as raised:
        loader.load()
    assert raised.value.level == logging.INFO


def test_a_library_of_other_sources_is_not_put_before_ggmls(tmp_path):
    source, library = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text("unsigned long puna_tensor_size(void) { return 336; }")
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    done = run(f"""
        from pathlib import Path
        loader.LIBRARY = Path({str(library)!r})
        print(loader.install())
    """)
    assert done.stdout.split() == ["None"]
    assert "was built from other sources; install again" in done.stderr


@pytest.mark.kernels
def test_a_library_that_is_older_than_its_sources_is_not_put_before_ggmls(tmp_path):
    native = shutil.copytree(loader.LIBRARY.parent, tmp_path / "native")
    assert sources.digest(native) == sources.digest(loader.LIBRARY.parent)
    with (native / "ggml_abi.h").open("a") as header:
        header.write("// A member may have been added.\n")
    done = run(f"""
        from pathlib import Path
        loader.LIBRARY = Path({str(native / "kernels.so")!r})
        print(loader.install())
    """)
    assert done.stdout.split() == ["None"]
    assert "was built from other sources; install again" in done.stderr
