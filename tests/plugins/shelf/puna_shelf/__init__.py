"""Backends whose models tell how they were loaded. Put the folder above on PYTHONPATH and they are installed.

`shelf` serves folders of any files, and `away` models without files. The answer to every prompt is a JSON object.
"""

import json
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from puna.backend import (
    Backend,
    Embedding,
    Finish,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
)


def told(spec: ModelSpec) -> dict[str, object]:
    found = [Path(root, name) for root, _, names in os.walk(spec.folder) for name in names] if spec.folder else []
    return {
        "name": spec.name,
        "format": spec.format,
        "upstream": spec.upstream,
        "options": dict(spec.backend_options),
        "files": {name: Path(path).read_text() for name, path in spec.files.items()},
        "folder": spec.folder,
        "in_folder": sorted(path.relative_to(spec.folder).as_posix() for path in found),
        "path": spec.path,
    }


class Told(LoadedModel):
    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._facts = ModelFacts(context_length=spec.context_length, embedding_length=2, adds_bos=True)

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        yield TextDelta(json.dumps({"prompt": request.prompt} | told(self._spec)))
        yield Finish(reason="stop", prompt_tokens=len(request.prompt), output_tokens=1)

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        return [ord(letter) for letter in text]

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        return [chr(token).encode() for token in tokens]

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        return [Embedding((float(len(each)), 0.0), len(each)) for each in inputs]


class ShelfBackend(Backend):
    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        return Told(spec)


class AwayBackend(ShelfBackend):
    pass
