"""What the kernels touch of ggml's inside, against its sources: no header that is installed declares it."""

from tests.plugins.ggml_kernels.test_abi import compile_only


def test_structs_and_functions_are_those_of_the_sources(sources):
    ggml = sources / "ggml"
    folders = (ggml / "include", ggml / "src", ggml / "src/ggml-cpu", sources / "include")
    assert compile_only(*folders, defines=["WITH_SOURCES"]) == ""
