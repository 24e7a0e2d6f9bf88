"""A folder whose tensors are not those of its model is refused, by the name of the tensor."""

import re

import numpy as np
import pytest
from tests.core.models.convert import folders

from puna.models.convert import families, plan
from puna.models.convert.failure import ConversionError
from puna.models.convert.folder import Folder


def planned(folder, path):
    found = Folder(folder.write(path))
    return plan.plan(found, families.family(found))


def test_what_is_computed_anew_is_passed_over(tmp_path):
    folder = folders.llama()
    before = [each.name for each in planned(folder, tmp_path / "a")]
    folder.add("model.layers.0.self_attn.rotary_emb.inv_freq", 8)
    assert [each.name for each in planned(folder, tmp_path / "b")] == before


def test_nothing_is_read_before_it_is_due(tmp_path):
    tensors = planned(folders.mixtral(), tmp_path)
    experts = next(each for each in tensors if each.name == "blk.0.ffn_down_exps.weight")
    assert (experts.shape, experts.kind, experts.size) == ((3, 64, 96), plan.BF16, 3 * 64 * 96 * 2)
    assert experts.make().shape == (3, 64, 96)
    router = next(each for each in tensors if each.name == "blk.0.ffn_gate_inp.weight")
    assert (router.kind, router.make().dtype) == (plan.F32, np.float32)


def change(name, values):
    return lambda folder: folder.tensors.update({name: values})


UP = "model.layers.1.mlp.up_proj.weight"
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("alter", "text"),
    [
        (lambda f: f.tensors.pop(UP), 'there is nothing for the tensor "blk.1.ffn_up.weight"'),
        (lambda f: f.tensors.pop("lm_head.weight"), 'there is nothing for the tensor "output.weight"'),
        (change("model.layers.0.mlp.foo.weight", np.ones((2, 2), "f4")), "unknown tensor .*foo.weight"),
        (change(Q, np.ones((30, 64), "f4")), r'"model.layers.0.self_attn.q_proj.weight" has the shape \[30, 64\]'),
        (change(UP, np.ones(64, "f4")), r'up_proj.weight" has the shape \[64\], and config.json says \[96, 64\]'),
        (change(UP, np.ones((96, 64), "i8")), 'up_proj.weight" is I64, which are no weights'),
        (change("blk.0.attn_q.weight", np.ones((64, 64), "f4")), "are the same tensor"),
        (lambda f: f.config.update(vocab_size=100), r"config.json says \[100, 64\]"),
        (lambda f: f.config.pop("hidden_size"), 'config.json: "hidden_size" is missing'),
        (lambda f: f.config.update(hidden_size="64"), 'config.json: "hidden_size" is not a whole number'),
        (lambda f: f.config.update(num_hidden_layers=3), 'nothing for the tensor "blk.2.attn_norm.weight"'),
    ],
)
def test_a_folder_that_is_not_its_model(alter, text, tmp_path):
    folder = folders.llama()
    alter(folder)
    with pytest.raises(ConversionError, match=text):
        planned(folder, tmp_path)


def test_experts_are_alike(tmp_path):
    folder = folders.mixtral()
    name = "model.layers.0.block_sparse_moe.experts.1.w1.weight"
    folder.tensors[name] = folder.tensors[name][:30]
    with pytest.raises(ConversionError, match=re.escape(f'"{name}" is BF16 of shape [30, 64], unlike its siblings')):
        planned(folder, tmp_path)
    folder = folders.mixtral()
    for each in ("w1", "w2", "w3"):
        del folder.tensors[f"model.layers.1.block_sparse_moe.experts.2.{each}.weight"]
    with pytest.raises(ConversionError, match=r"config.json says \[3, "):
        planned(folder, tmp_path)
