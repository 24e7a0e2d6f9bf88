"""Rotary positions: the base frequency and the scaling."""

import math
from typing import Final

import numpy as np

from puna.models.convert.failure import UnsupportedError
from puna.models.convert.family import Pairs
from puna.models.convert.safetensors import Array
from puna.models.convert.settings import ModelSettings

# Types that do not change rotary positions within the trained context, for text alone. They need no key.
_AS_TRAINED: Final = ("", "default", "dynamic", "mrope")


def scaling(settings: ModelSettings) -> ModelSettings:
    """Return the scaling settings, from any of their three places."""
    parameters = settings.part("rope_parameters")
    # Gemma 3 has one set of parameters for each kind of block. The main keys of GGUF are those of full attention.
    if "full_attention" in parameters:
        parameters = parameters.part("full_attention")
    return parameters if parameters.values else settings.part("rope_scaling")


def kind(settings: ModelSettings) -> str:
    """Return the type of scaling; empty for none."""
    options = scaling(settings)
    return options.text("rope_type", options.text("type"))


def metadata(settings: ModelSettings, default_theta: float) -> Pairs:
    """Return the keys. Raises UnsupportedError for an unknown type of scaling."""
    options = scaling(settings)
    theta = settings.number("rope_theta", options.number("rope_theta", default_theta))
    found: Pairs = {"rope.freq_base": theta}
    match kind(settings):
        case "linear":
            found |= {"rope.scaling.type": "linear", "rope.scaling.factor": options.number("factor")}
        case "yarn":
            length = options.integer("original_max_position_embeddings", settings.integer("max_position_embeddings"))
            found |= {"rope.scaling.type": "yarn", "rope.scaling.factor": options.number("factor")}
            found["rope.scaling.original_context_length"] = length
        case "llama3":
            pass  # the factors are written as a tensor
        case name if name not in _AS_TRAINED:
            raise UnsupportedError(f'unsupported rope scaling "{name}"')
    return found


def llama3_factors(settings: ModelSettings, head: int, default_theta: float) -> Array:
    """Return the divisor of each rotary frequency in the scaling of Llama 3.1.

    Low frequencies are divided by the factor, high ones by one. In between, the scaled frequency is interpolated.
    """
    options = scaling(settings)
    theta = settings.number("rope_theta", options.number("rope_theta", default_theta))
    factor, low, high = (
        options.number(key, default)
        for key, default in (("factor", 8.0), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0))
    )
    length = options.number("original_max_position_embeddings", 8192)
    # Wavelengths in tokens, one for each pair of rows in a head.
    waves = 2 * math.pi * theta ** (np.arange(0, head, 2, dtype=np.float64) / head)
    smooth = np.clip((length / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
