import pytest

from puna.errors import CreateFailedError
from puna.gguf import reader as gguf
from puna.models.create import quantization
from puna.models.create.rewrite import with_program
from puna_llama_cpp.quantize import file_type


@pytest.mark.parametrize(
    ("text", "name"), [("q4_k", "Q4_K_M"), ("Q5_K", "Q5_K_M"), ("iq4_xs", "IQ4_XS"), ("bf16", "BF16")]
)
def test_types_by_any_name(text, name):
    assert quantization.named(text) == name


def test_what_is_no_type():
    with pytest.raises(CreateFailedError, match=r"^unsupported quantization type Q9 - supported types are F32, F16, "):
        quantization.named("q9")
    with pytest.raises(CreateFailedError, match=r"^quantization type IQ2_XS needs an importance matrix"):
        quantization.named("iq2_xs")


def test_llama_cpp_knows_them_all_and_so_do_we():
    assert {gguf.file_type_name(file_type(name)) for name in quantization._TYPES} == quantization._TYPES


def test_one_that_the_reference_does_not_offer(scripted_models, tmp_path):
    target = tmp_path / "out.gguf"
    list(with_program("puna_llama_cpp.quantize")(scripted_models / "scripted.gguf", target, "IQ3_S"))
    assert gguf.read(target).file_type == "IQ3_S"
