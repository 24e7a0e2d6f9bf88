"""Models with types that ggml cannot compute with."""

import itertools
import subprocess
import sys

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from tests.plugins.llama_cpp.binding import one_operation
from tests.plugins.llama_cpp.conftest import MODELS

from puna.backend import InvalidRequestError
from puna_llama_cpp.binding.operations import RULES

TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "q4_K": 12, "i32": 26, "bf16": 30}


def retyped(target, name, **types):
    """Copy a model of tests/models with other types of some tensors, given by names with underscores for dots."""
    whole = gguf.GGUFReader(MODELS / f"{name}.gguf")
    writer = gguf.GGUFWriter(target, whole.get_field("general.architecture").contents())
    for field in whole.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind, of = field.types[0], field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=of)
    for tensor in whole.tensors:
        kind = types.get(tensor.name.replace(".", "_"), tensor.tensor_type)
        writer.add_tensor(tensor.name, gguf.quantize(np.array(tensor.data), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(target)


@pytest.mark.parametrize(
    ("model", "tensor", "error"),
    [
        ("chatter", "blk.1.ffn_norm.weight", "ggml cannot compute MUL of f32 and f16"),
        ("wanderer", "blk.0.ssm_conv1d.weight", "ggml cannot compute SSM_CONV of f32 and f16"),
        ("embedder", "blk.0.attn_output_norm.bias", "ggml cannot compute ADD of f32 and f16"),
    ],
)
async def test_a_type_that_would_end_the_process_is_refused(load, tmp_path, model, tensor, error):
    path = retyped(tmp_path / "model.gguf", model, **{tensor.replace(".", "_"): Type.F16})
    with pytest.raises(InvalidRequestError, match=error) as refusal:
        await load(path=path)
    assert tensor in str(refusal.value)


@pytest.mark.parametrize("tensor", ["v.blk.0.ln1.weight", "mm.0.bias"])
async def test_a_projector_that_would_end_the_process_is_refused(load, tmp_path, tensor):
    path = retyped(tmp_path / "eye.gguf", "chatter-eye", **{tensor.replace(".", "_"): Type.F16})
    with pytest.raises(InvalidRequestError, match=f"the projector's tensor {tensor}, which is of type f16"):
        await load("chatter", projector_paths=(path,))


async def test_types_that_ggml_computes_with_are_not_refused(load, write, tmp_path):
    types = {"token_embd_weight": Type.Q8_0, "blk_0_attn_q_weight": Type.BF16, "blk_1_ffn_down_weight": Type.F16}
    model = await load(path=retyped(tmp_path / "model.gguf", "chatter", **types))
    assert (await write(model, "hello"))[1].output_tokens > 0


async def test_a_draft_model_that_would_end_the_process_is_left_out(load, write, tmp_path):
    path = retyped(tmp_path / "model.gguf", "chatter", output_norm_weight=Type.F16)
    model = await load("chatter", draft_path=path, draft_tokens=4)
    assert (await write(model, "hello"))[1].output_tokens > 0


def test_the_rules_are_those_of_ggml():
    """ggml ends the process for exactly those types that a rule excludes."""
    asked = [(name, (kind,)) for name in (*one_operation.ONE_OPERAND, "CPY") for kind in TYPES]
    for name in one_operation.TWO_OPERANDS:
        others = ("i32",) if name == "GET_ROWS" else ("f32",) if name == "MUL_MAT" else ("f32", "f16", "q4_K")
        asked += [(name, kinds) for kinds in itertools.product(TYPES, others)]
    lines = "".join(f"{name} {' '.join(str(TYPES[kind]) for kind in kinds)}\n" for name, kinds in asked)
    command = [sys.executable, "-m", one_operation.__name__]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=60)
    results = {"CPY": "f32", "GET_ROWS": "f32", "MUL_MAT": "f32", "SSM_CONV": "f32", "SUM_ROWS": "f32"}
    expected = {ask: RULES[ask[0]](results.get(ask[0], ask[1][0]), ask[1]) for ask in asked}
    found = dict(zip(asked, (line == "1" for line in done.stdout.split()), strict=True))
    assert {ask: value for ask, value in found.items() if value != expected[ask]} == {}
