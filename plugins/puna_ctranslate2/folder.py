"""The files of a model: which there are, and what the small ones say.

A converted model is a folder with model.bin, config.json and vocabulary.json, which CTranslate2 reads, and
tokenizer.json, which the `tokenizers` package reads. Some have more files of the model that was converted, which say
where generation ends (generation_config.json) and how vectors are pooled (1_Pooling/config.json).
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from puna.backend import InvalidRequestError, ModelSpec

ENGINE_FILES: Final = ("model.bin", "config.json", "vocabulary.json", "vocabulary.txt", "shared_vocabulary.json")
"""The files that CTranslate2 itself reads."""
POOLING_MODES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
LARGEST_LENGTH: Final = 1 << 30
"""tokenizer_config.json states a larger length for a model whose length is not known."""


class Folder:
    """The files of a model, by their names."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """`files` has the path of each file by its name, relative to the model's folder."""
        self._files = files

    @classmethod
    def of(cls, spec: ModelSpec) -> "Folder":
        """Return the files of a model. Raises InvalidRequestError if one of those that every model needs is missing."""
        files = dict(spec.files)
        path = Path(spec.path)
        if not path.exists():
            raise InvalidRequestError(f"the file {path.name!r} does not exist")
        if not files:
            # Outside a server, such as in tests, a model is given by its folder alone.
            root = path if path.is_dir() else path.parent
            files = {each.relative_to(root).as_posix(): str(each) for each in root.rglob("*") if each.is_file()}
        folder = cls(files)
        for name in ("model.bin", "tokenizer.json"):
            if name not in files:
                raise InvalidRequestError(f"the model's folder has no {name}")
        return folder

    def path(self, name: str) -> Path:
        """Return the path of a file that the folder has."""
        return Path(self._files[name])

    def json(self, name: str) -> Any:  # noqa: ANN401 (any JSON)
        """Return the content of a JSON file, and an empty object if there is none.

        Raises InvalidRequestError if the file is not JSON.
        """
        if name not in self._files:
            return {}
        try:
            return json.loads(self.path(name).read_bytes())
        except ValueError as error:
            raise InvalidRequestError(f"{name} is not JSON: {error}") from error

    def spellings(self) -> list[str]:
        """Return the spelling of each token, in the order of their ids, as the engine knows them."""
        for name in ("vocabulary.json", "shared_vocabulary.json"):
            if name in self._files:
                return [str(each) for each in self.json(name)]
        if "vocabulary.txt" in self._files:
            return self.path("vocabulary.txt").read_text(encoding="utf-8").splitlines()
        raise InvalidRequestError("the model's folder has no vocabulary.json")

    def longest(self) -> int:
        """Return the context length that tokenizer_config.json states, in tokens; 0: unknown."""
        stated = self.json("tokenizer_config.json").get("model_max_length")
        return int(stated) if isinstance(stated, int | float) and 0 < stated < LARGEST_LENGTH else 0

    def pooling(self) -> str:
        """Return how the vectors of a text's tokens become one: "mean" unless 1_Pooling/config.json says otherwise."""
        stated = self.json("1_Pooling/config.json")
        return next((mode for key, mode in POOLING_MODES.items() if stated.get(key)), "mean")

    def end_ids(self) -> list[int]:
        """Return the ids that generation_config.json gives for the ends of answers."""
        stated = self.json("generation_config.json").get("eos_token_id", [])
        return [each for each in (stated if isinstance(stated, list) else [stated]) if isinstance(each, int)]

    @contextmanager
    def linked(self) -> Iterator[str]:
        """Yield a folder in which the engine finds its files under their names, until the context ends.

        The store keeps files under their digests. The engine reads them while it loads and not later.
        """
        with tempfile.TemporaryDirectory(prefix="puna-ctranslate2-") as folder:
            for name in ENGINE_FILES:
                if name in self._files:
                    Path(folder, name).symlink_to(self.path(name).absolute())
            yield folder
