"""Training goes on from a file that was exported."""

from pathlib import Path

import numpy as np
from train_demo import export, restore
from train_demo.conversation import prompt
from train_demo.skills import conversation
from train_demo.words import Random

SHIPPED = Path(__file__).resolve().parents[3] / "core/puna/demo/llamita.gguf"


def test_an_exported_file_is_read_back_whole(tmp_path: Path) -> None:
    shape, parameters, vocabulary = restore.read(SHIPPED)
    again = tmp_path / "again.gguf"
    export.write(again, shape, parameters, vocabulary)
    assert again.read_bytes() == SHIPPED.read_bytes()


def test_the_vocabulary_that_is_read_back_cuts_texts(tmp_path: Path) -> None:
    _, _, vocabulary = restore.read(SHIPPED)
    for seed in range(50):
        text = prompt(conversation(Random(f"restored {seed}")))
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_the_matrices_fit_the_shape() -> None:
    shape, parameters, vocabulary = restore.read(SHIPPED)
    assert len(vocabulary) == shape.vocabulary
    assert parameters["embed"].shape == (shape.vocabulary, shape.width)
    assert parameters["head"].shape == (shape.width, shape.vocabulary)
    assert parameters["gate"].shape == (shape.layers, shape.width, shape.inner)
    assert all(np.isfinite(value).all() for value in parameters.values())
