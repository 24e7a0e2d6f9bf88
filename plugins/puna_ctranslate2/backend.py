"""The backend contract over CTranslate2: which model is loaded, and how."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import ctranslate2

from puna.backend import Backend, InvalidRequestError, LoadedModel, ModelFacts, ModelSpec
from puna_ctranslate2 import weights
from puna_ctranslate2.decoder import Decoder
from puna_ctranslate2.encoder import Encoder, forward
from puna_ctranslate2.folder import Folder
from puna_ctranslate2.vocabulary import Vocabulary


class CTranslate2Backend(Backend):
    """Loads decoders and encoders of CTranslate2's format."""

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Load a model in a thread. The library reports no progress and cannot be interrupted."""
        if spec.adapter_paths:
            raise InvalidRequestError("the ctranslate2 backend takes no adapters")
        report(0.0)
        model = await asyncio.to_thread(load, spec)
        report(1.0)
        return model


def load(spec: ModelSpec) -> LoadedModel:
    """Load a model. Raises InvalidRequestError if its files are not a decoder or encoder of CTranslate2."""
    folder = Folder(spec.path)
    found = weights.read(folder.path("model.bin"))
    if found.architecture not in (weights.DECODER, weights.ENCODER):
        raise InvalidRequestError(f"this model is a {found.architecture}; decoders and encoders can be served")
    vocabulary = Vocabulary(folder)
    if found.vocabulary_size != len(vocabulary.spellings):
        # The engine would read beyond its tables.
        sizes = f"{found.vocabulary_size} tokens, its vocabulary {len(vocabulary.spellings)}"
        raise InvalidRequestError(f"the files do not belong together: model.bin has {sizes}")
    if found.architecture == weights.ENCODER:
        return _load_encoder(spec, folder, found, vocabulary)
    parallel = spec.parallel or 1
    facts = _facts(spec, folder, found, vocabulary, parallel=parallel)
    return Decoder(_engine(ctranslate2.Generator, spec, folder, parallel), vocabulary, facts)


def _load_encoder(spec: ModelSpec, folder: Folder, found: weights.Weights, vocabulary: Vocabulary) -> Encoder:
    engine = _engine(ctranslate2.Encoder, spec, folder, 1)
    # The file does not state the width of the states, so a text of one token is evaluated.
    width = forward(engine, [[0]]).shape[-1]
    facts = _facts(spec, folder, found, vocabulary, embedding_length=width, generates=False)
    pooling = spec.backend_options.get("pooling") or folder.pooling()
    return Encoder(engine, vocabulary, facts, str(pooling))


def _engine(kind: Any, spec: ModelSpec, folder: Folder, parallel: int) -> Any:  # noqa: ANN401 (classes without types)
    device = str(spec.backend_options.get("device") or ("cpu" if spec.gpu_layers == 0 else "auto"))
    threads = spec.threads or _physical_cores()
    try:
        return kind(
            str(folder.root),
            device=device,
            device_index=spec.main_gpu or 0,
            compute_type=str(spec.backend_options.get("compute_type") or "default"),
            inter_threads=parallel,
            intra_threads=max(threads // parallel, 1),
        )
    # The library raises these for files that do not fit each other, and for a type that the processor lacks.
    except (RuntimeError, ValueError) as error:
        raise InvalidRequestError(str(error)) from error


def _physical_cores() -> int:
    """Estimate the physical cores that this process may use. More threads than these wait for each other."""
    return (len(os.sched_getaffinity(0)) + 1) // 2


def _facts(
    spec: ModelSpec,
    folder: Folder,
    found: weights.Weights,
    vocabulary: Vocabulary,
    *,
    parallel: int = 1,
    embedding_length: int = 0,
    generates: bool = True,
) -> ModelFacts:
    # Rotary positions have no end, so only the files beside the weights may say how long the trained context is.
    context_length = min(each for each in (spec.context_length, found.positions, folder.longest()) if each)
    begin, end = vocabulary.prefix, vocabulary.suffix or (vocabulary.end_ids if generates else [])
    return ModelFacts(
        context_length=context_length,
        parallel=parallel,
        # The engine does not say how much memory it takes. Weights and cache are nearly all of it.
        size_bytes=found.file_bytes + found.cache_bytes(context_length) * parallel * generates,
        adds_bos=bool(begin),
        adds_eos=bool(vocabulary.suffix),
        bos_id=begin[0] if begin else -1,
        eos_id=end[0] if end else -1,
        bos_text=vocabulary.spellings[begin[0]] if begin else "",
        eos_text=vocabulary.spellings[end[0]] if end else "",
        embedding_length=embedding_length,
        generates=generates,
    )
