"""Vectors of an upstream, in order and checked."""

import pytest

from puna.backend import BackendError, UnsupportedError


async def test_vectors_in_order_with_their_share_of_the_tokens(load, front):
    front.embed = lambda inputs: {
        # Upstreams may answer in any order.
        "data": [
            {"index": 1, "embedding": [0.0, 5.0]},
            {"index": 0, "embedding": [3, 4]},
            {"index": 2, "embedding": [1.0, 0.0]},
        ],
        "usage": {"prompt_tokens": 11},
    }
    made = await (await load("e")).embed(["four", "eight888", ""])
    assert [list(each.values) for each in made] == [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]]
    assert [each.token_count for each in made] == [3, 8, 0]
    assert front.bodies == [{"model": "e", "input": ["four", "eight888", ""], "encoding_format": "float"}]


async def test_raw_vectors(load, front):
    front.embed = lambda inputs: {"data": [{"index": 0, "embedding": [3.0, 4.0]}]}
    assert list((await (await load("e")).embed(["a"], raw=True))[0].values) == [3.0, 4.0]


async def test_many_texts_are_sent_in_parts(load, front):
    made = await (await load("e")).embed(["x" * (number % 7 + 1) for number in range(600)], raw=True)
    assert [each.values[0] for each in made] == [float(number % 7 + 1) for number in range(600)]
    assert [len(body["input"]) for body in front.bodies] == [256, 256, 88]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "no list of vectors"),
        ([], "no list of vectors"),
        ({"data": []}, "0 vectors for 2 texts"),
        ({"data": [{"embedding": [1.0]}] * 3}, "3 vectors for 2 texts"),
        ({"data": [{"index": 0, "embedding": [1.0]}] * 2}, "indexes"),
        ({"data": [{"index": 7, "embedding": [1.0]}] * 2}, "indexes"),
        ({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]}, "differ in length"),
        ({"data": [{"embedding": [1.0]}, {"embedding": []}]}, "no list of numbers"),
        ({"data": [{"embedding": [1.0]}, {"embedding": "AAAA"}]}, "no list of numbers"),
        ({"data": [{"embedding": [1.0]}, {"embedding": [float("inf")]}]}, "finite numbers"),
        ({"data": [{"embedding": [1.0]}, 5]}, "no object"),
    ],
)
async def test_nonsense_is_refused(load, front, answer, words):
    front.embed = lambda inputs: answer
    with pytest.raises(BackendError, match=words):
        await (await load("e")).embed(["a", "b"])


async def test_an_error_status(load):
    with pytest.raises(BackendError, match="status 401"):
        await (await load("fault:401")).embed(["a"])


async def test_an_upstream_without_embeddings(load, front):
    model = await load("e", capabilities=["tools"])
    assert model.facts.embedding_length == 0
    with pytest.raises(UnsupportedError):
        await model.embed(["a"])
    assert front.requests == []
