"""Which models ggml repacks."""

import gguf
import numpy as np
import pytest

from puna_ggml_kernels.repacking import should_repack

Q = gguf.GGMLQuantizationType


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a GGUF file with a tensor of each of some types."""

    def file(kinds, name="blk.0.ffn_up.weight"):
        path = tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for index, kind in enumerate(kinds):
            block, size = gguf.GGML_QUANT_SIZES[kind]
            data = np.zeros((1, 256 // block * size), np.uint8)
            writer.add_tensor(f"{index}.{name}", data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return str(path)

    return file


@pytest.mark.kernels
@pytest.mark.parametrize(
    "kinds", [[Q.Q4_0], [Q.Q4_K, Q.Q6_K], [Q.Q8_0, Q.Q4_0], [Q.IQ4_NL, Q.Q5_1], [Q.MXFP4], [Q.Q2_K]]
)
def test_types_that_the_kernels_multiply_stay_as_they_are(file, kinds):
    assert not should_repack(file(kinds))


def test_types_that_ggml_does_not_repack_are_left_to_it(file):
    assert should_repack(file([Q.Q8_0]))


@pytest.mark.kernels
def test_experts_stay_as_they_are(file):
    assert not should_repack(file([Q.Q4_0], name="blk.0.ffn_up_exps.weight"))


def test_a_file_that_ggml_cannot_read_is_left_to_its_loader(tmp_path):
    path = tmp_path / "none.gguf"
    path.write_bytes(b"GGUF")
    assert should_repack(str(path))
