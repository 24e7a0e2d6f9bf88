"""A model folder in the layout of model hubs: settings as JSON, and weights in one or several files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from puna.go import json_text
from puna.models.convert import safetensors
from puna.models.convert.failure import ConversionError
from puna.models.convert.safetensors import Weights

INDEX: Final = "model.safetensors.index.json"
_SHARD: Final = re.compile(r"(?P<prefix>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a model."""

    path: Path

    def json(self, name: str) -> Mapping[str, Any]:
        """Return a JSON object, empty if there is no such file. Raises ConversionError."""
        found = self._parsed(name)
        if not isinstance(found, dict | None):
            raise ConversionError(f"parse {name}: not a JSON object")
        return found or {}

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        """Return a JSON array of objects, empty if there is no such file. Raises ConversionError."""
        found = self._parsed(name)
        if not isinstance(found, list | None) or not all(isinstance(each, dict) for each in found or []):
            raise ConversionError(f"parse {name}: not a JSON array of objects")
        return found or []

    def weights(self) -> dict[str, Weights]:
        """Return all tensors by name. Raises ConversionError, also when a shard is missing."""
        found: dict[str, Weights] = {}
        for name in self._weight_files():
            found |= safetensors.read(self.path / name)
        for tensor, file in self._index().items():
            if tensor not in found:
                raise ConversionError(f'{INDEX}: "{tensor}" is not in {file}')
        return found

    def _parsed(self, name: str) -> object:
        path = self.path / name
        # `name` can come from modules.json, which the client uploads. Joining an absolute name replaces the folder, so
        # the second test is needed as well.
        if ".." in path.parts or not path.is_relative_to(self.path):
            raise ConversionError(f"insecure path: {name}")
        try:
            return json_text.loads(path.read_bytes()) if path.is_file() else None
        except ValueError as error:
            raise ConversionError(f"parse {name}: {error}") from None

    def _index(self) -> Mapping[str, str]:
        places = self.json(INDEX).get("weight_map", {})
        if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
            raise ConversionError(f"parse {INDEX}: weight_map does not map tensors to files")
        return places

    def _weight_files(self) -> list[str]:
        """Return the files to read: those in the index, else those whose names begin with model, else all."""
        present = sorted(path.name for path in self.path.glob("*.safetensors"))
        wanted = sorted(set(self._index().values()))
        # Some hubs put the same weights into the folder twice, as model-*.safetensors and under the maker's own name.
        # Reading both would fail on the duplicate tensors.
        wanted = wanted or [name for name in present if name.startswith("model")] or present
        for name in list(wanted):
            # A shard's name states the number of shards, so that a missing one is noticed without an index too.
            if match := _SHARD.fullmatch(name):
                count = int(match["count"])
                wanted += [f"{match['prefix']}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
        wanted = sorted(set(wanted))
        for name in wanted:
            if name not in present:
                raise ConversionError(f"{name} is missing")
        return wanted
