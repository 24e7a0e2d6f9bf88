import pytest

from puna.models.convert import rope
from puna.models.convert.failure import ConversionError, UnsupportedError
from puna.models.convert.settings import ModelSettings


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({}, {"rope.freq_base": 10000.0}),
        ({"rope_theta": 5e5, "rope_scaling": None}, {"rope.freq_base": 5e5}),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, {"rope.freq_base": 7.0}),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}},
            {"rope.freq_base": 10000.0, "rope.scaling.type": "linear", "rope.scaling.factor": 2.0},
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 64},
            {
                "rope.freq_base": 10000.0,
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 64,
            },
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}},
            {"rope.freq_base": 1e6, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, {"rope.freq_base": 10000.0}),
    ],
)
def test_keys(values, keys):
    assert rope.metadata(ModelSettings(values), 10000.0) == keys


def test_what_cannot_be_said():
    with pytest.raises(UnsupportedError, match=r'^unsupported rope scaling "longrope"$'):
        rope.metadata(ModelSettings({"rope_scaling": {"rope_type": "longrope"}}), 10000.0)
    with pytest.raises(ConversionError, match=r'^config.json: "factor" is missing$'):
        rope.metadata(ModelSettings({"rope_scaling": {"type": "linear"}}), 10000.0)
