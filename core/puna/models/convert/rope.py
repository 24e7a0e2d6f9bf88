"""Rotary positions: the base, and what stretches them."""

import math
from typing import Final

import numpy as np

from puna.models.convert.failure import UnsupportedError
from puna.models.convert.family import Pairs
from puna.models.convert.safetensors import Array
from puna.models.convert.settings import ModelSettings

_AS_TRAINED: Final = ("", "default", "dynamic", "mrope")


def scaling(settings: ModelSettings) -> ModelSettings:
    """Return what is said of stretching, in whichever of its three places."""
    parameters = settings.part("rope_parameters")
    if "full_attention" in parameters:
        parameters = parameters.part("full_attention")
    return parameters if parameters.values else settings.part("rope_scaling")


def kind(settings: ModelSettings) -> str:
    """Return how positions are stretched; empty: they are not."""
    told = scaling(settings)
    return told.text("rope_type", told.text("type"))


def metadata(settings: ModelSettings, default_theta: float) -> Pairs:
    """Return the keys. Raises UnsupportedError for a kind that is not known."""
    told = scaling(settings)
    theta = settings.number("rope_theta", told.number("rope_theta", default_theta))
    found: Pairs = {"rope.freq_base": theta}
    match kind(settings):
        case "linear":
            found |= {"rope.scaling.type": "linear", "rope.scaling.factor": told.number("factor")}
        case "yarn":
            length = told.integer("original_max_position_embeddings", settings.integer("max_position_embeddings"))
            found |= {"rope.scaling.type": "yarn", "rope.scaling.factor": told.number("factor")}
            found["rope.scaling.original_context_length"] = length
        case "llama3":
            pass  # a tensor says it
        case name if name not in _AS_TRAINED:
            raise UnsupportedError(f'unsupported rope scaling "{name}"')
    return found


def llama3_factors(settings: ModelSettings, head: int, default_theta: float) -> Array:
    """Return by how much each frequency is divided: long waves by the factor, short ones not at all."""
    told = scaling(settings)
    theta = settings.number("rope_theta", told.number("rope_theta", default_theta))
    factor, low, high = (
        told.number(key, default)
        for key, default in (("factor", 8.0), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0))
    )
    length = told.number("original_max_position_embeddings", 8192)
    waves = 2 * math.pi * theta ** (np.arange(0, head, 2, dtype=np.float64) / head)
    smooth = np.clip((length / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
