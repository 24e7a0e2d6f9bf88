"""A text has the same vector to the bit, whatever texts are evaluated with it."""

import subprocess
import sys

import gguf
import pytest
from tools.make_bench_models import Bert, Llama, bert, llama

from puna_ggml_kernels import loader
from puna_llama_cpp.binding.batch import Batch

KINDS = gguf.GGMLQuantizationType
DECODER = Llama(layers=2, hidden=256, feed_forward=512, heads=4, kv_heads=2, vocabulary=1024, context=1024, pools=True)
ENCODER = Bert(layers=2, hidden=64, feed_forward=256, heads=2, vocabulary=1024, positions=512)
LENGTHS = (26, 1, 70, 2, 5, 130, 1, 64, 63)
"""Of texts: single tokens, texts below and above the 64 tokens from which attention is tiled."""


@pytest.fixture(scope="module")
def library():
    library = loader.install()
    assert library
    return library


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes a model that embeds: `bert` or `llama`, and the type of its matrices."""
    folder = tmp_path_factory.mktemp("models")

    def made(architecture, kind):
        path = folder / f"{architecture}-{kind}.gguf"
        if architecture == "bert":
            bert(path, ENCODER, KINDS[kind])
        elif kind in ("F16", "Q8_0", "Q4_0"):
            llama(path, DECODER, KINDS[kind], 0)
        else:
            source = folder / "source.gguf"
            llama(source, DECODER, KINDS.F32, 0)
            command = [sys.executable, "-m", "puna_llama_cpp.quantize", str(source), str(path), kind]
            subprocess.run(command, check=True, capture_output=True)
        return str(path)

    return made


def vectors(opened, texts):
    batch = Batch(opened.context.batch_size)
    for slot, tokens in enumerate(texts):
        batch.add(slot, 0, tokens, output=True, all_outputs=True)
    opened.context.clear()
    opened.context.decode_apart(batch, [len(tokens) for tokens in texts])
    length = opened.facts.embedding_length or 1  # a model that ranks has one score
    return [opened.context.pooled(slot, length).tobytes() for slot in range(len(texts))]


def texts(lengths):
    return [[5 + (7 * text + 11 * i) % 200 for i in range(length)] for text, length in enumerate(lengths)]


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("architecture", "kind", "threads"),
    [
        *(("bert", kind, 1) for kind in ("F16", "F32", "BF16", "Q8_0")),
        *(("llama", kind, 1) for kind in ("F16", "Q8_0", "Q4_0", "Q6_K", "IQ4_XS", "Q2_K")),
        ("bert", "F16", 2),
        ("llama", "Q4_K_M", 2),
    ],
)
def test_a_vector_has_the_bits_that_it_has_alone(made, parts, library, architecture, kind, threads):
    opened = parts(path=made(architecture, kind), threads=threads)
    given = texts(LENGTHS)
    alone = [vectors(opened, [tokens])[0] for tokens in given]
    assert vectors(opened, given) == alone
    assert vectors(opened, given[::-1]) == alone[::-1]
    assert len(set(alone)) == len(given)


@pytest.mark.kernels
def test_it_has_them_without_the_kernels_too(made, parts, library):
    loader.set_exact(exact=True)
    opened = parts(path=made("bert", "F16"))
    given = texts(LENGTHS)
    together = vectors(opened, given)
    library.puna_enable(False)
    try:
        alone = [vectors(opened, [tokens])[0] for tokens in given]
    finally:
        library.puna_enable(True)
    assert together == alone


@pytest.mark.kernels
@pytest.mark.parametrize("name", ["embedder", "ranker"])
def test_attention_that_is_left_to_ggml_is_computed_apart_too(parts, library, name):
    opened = parts(name)  # heads of eight numbers
    given = texts((5, 30, 1, 2, 17))
    given = [[token % 60 for token in tokens] for tokens in given]
    before = library.puna_attention_calls()
    alone = [vectors(opened, [tokens])[0] for tokens in given]
    assert vectors(opened, given) == alone
    assert library.puna_attention_calls() == before


@pytest.mark.kernels
def test_more_sequences_than_the_kernels_count_are_refused(library):
    assert loader.set_sequences([1] * loader.MAX_SEQUENCES)
    assert not loader.set_sequences([1] * (loader.MAX_SEQUENCES + 1))
    assert loader.set_sequences(())
