"""The files of a model: which there are, and what the small ones say.

A converted model is a folder with model.bin, config.json and vocabulary.json, which CTranslate2 reads, and
tokenizer.json, which the `tokenizers` package reads. Some have more files of the model that was converted, which say
where generation ends (generation_config.json) and how vectors are pooled (1_Pooling/config.json).
"""

import json
from pathlib import Path
from typing import Any, Final

from puna.backend import InvalidRequestError

NEEDED: Final = ("model.bin", "tokenizer.json")
POOLING_MODES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
LARGEST_LENGTH: Final = 1 << 30
"""tokenizer_config.json states a larger length for a model whose length is not known."""


class Folder:
    """The folder of a model."""

    def __init__(self, path: str) -> None:
        """`path` is the folder. Raises InvalidRequestError if a file is missing that every model needs."""
        self.root = Path(path)
        for name in NEEDED:
            if not self.path(name).is_file():
                raise InvalidRequestError(f"the model's folder has no {name}")

    def path(self, name: str) -> Path:
        """Return the path of a file, which need not exist."""
        return self.root / name

    def json(self, name: str) -> Any:  # noqa: ANN401 (any JSON)
        """Return the content of a JSON file, and an empty object if there is none.

        Raises InvalidRequestError if the file is not JSON.
        """
        path = self.path(name)
        if not path.is_file():
            return {}
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise InvalidRequestError(f"{name} is not JSON: {error}") from error

    def spellings(self) -> list[str]:
        """Return the spelling of each token, in the order of their ids, as the engine knows them."""
        if self.path("vocabulary.txt").is_file():
            return self.path("vocabulary.txt").read_text(encoding="utf-8").splitlines()
        if not self.path("vocabulary.json").is_file():
            raise InvalidRequestError("the model's folder has no vocabulary.json")
        return [str(each) for each in self.json("vocabulary.json")]

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
