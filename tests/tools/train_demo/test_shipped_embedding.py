"""llamita-embed as it stands in the wheel, through llama.cpp itself."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import llama_cpp
import pytest
from train_demo.meanings import pair
from train_demo.neighbours import cosine, rare_words, recall, shared_words, tasks
from train_demo.wordpieces import WordPieces
from train_demo.words import Random

SHIPPED = Path(__file__).resolve().parents[3] / "core/puna/demo/llamita-embed.gguf"
Embed = Callable[[Sequence[str]], list[list[float]]]


@pytest.fixture(scope="module")
def model() -> llama_cpp.Llama:
    return llama_cpp.Llama(str(SHIPPED), embedding=True, n_ctx=512, n_threads=1, verbose=False)


@pytest.fixture(scope="module")
def embed(model: llama_cpp.Llama) -> Embed:
    return lambda texts: [model.embed(text, normalize=True) for text in texts]


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces(gguf.GGUFReader(SHIPPED).get_field("tokenizer.ggml.tokens").contents())


def test_training_and_llama_cpp_cut_texts_alike(model: llama_cpp.Llama, pieces: WordPieces) -> None:
    rng = Random("pieces")
    texts = [text for each in (pair(rng) for _ in range(300)) for text in (each.one, each.other)]
    for text in [*texts, "Zürich, São Paulo: 3.14 & more!", "a_b (c) #4 e-mail@x.org"]:
        assert pieces.encode(text) == model.tokenize(text.encode(), add_bos=True, special=False)


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_the_nearest_text_has_the_same_meaning(task, embed: Embed) -> None:
    queries, texts = embed(task.queries), embed(task.texts)
    found = recall(task, lambda i: [cosine(queries[i], text) for text in texts])
    assert found > max(recall(task, shared_words(task)), recall(task, rare_words(task)))


def test_a_long_text_has_a_vector_too(embed: Embed) -> None:
    (vector,) = embed(["The sky is blue. " * 80])
    assert abs(cosine(vector, vector) - 1) < 1e-6
