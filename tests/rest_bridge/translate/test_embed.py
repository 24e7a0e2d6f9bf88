import json
import math
import struct

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import embed_pb2, usage_pb2
from puna_rest.bodies import native
from puna_rest.errors import RestError
from puna_rest.translate import embed


def packed(*values):
    return embed_pb2.Vector(packed=struct.pack(f"<{len(values)}f", *values))


@pytest.mark.parametrize(("given", "texts"), [("a", ["a"]), (["a", ""], ["a", ""]), ("", []), (None, []), ([], [])])
def test_inputs(given, texts):
    request = embed.request(*decoded(native.EMBED, {"model": "m", "input": given}), 0)
    assert list(request.inputs) == texts
    assert request.encoding == embed_pb2.VECTOR_ENCODING_FLOAT32_LE


@pytest.mark.parametrize("given", [3, True, {"a": 1}, [1], ["a", None]])
def test_inputs_that_are_no_texts(given):
    with pytest.raises(RestError, match=r"^invalid input type$") as caught:
        embed.request(*decoded(native.EMBED, {"input": given}), 0)
    assert caught.value.status == 400


@pytest.mark.parametrize(("given", "dimensions"), [(0, 0), (-5, 0), (64, 64), (10**12, 2**31 - 1)])
def test_dimensions(given, dimensions):
    assert embed.request(*decoded(native.EMBED, {"dimensions": given}), 0).dimensions == dimensions


def test_the_old_route_sends_one_prompt_as_it_is():
    request = embed.legacy_request(*decoded(native.EMBEDDINGS, {"model": "m", "prompt": "a"}), 0)
    assert (list(request.inputs), request.unnormalized) == (["a"], True)
    assert list(embed.legacy_request(*decoded(native.EMBEDDINGS, {"prompt": ""}), 0).inputs) == []


def test_an_answer_has_floats_of_32_bits_and_the_counts_that_are_not_zero():
    response = embed_pb2.EmbedResponse(
        vectors=[packed(0.1, -2.0), embed_pb2.Vector(values=[1.5])], usage=usage_pb2.Usage(prompt_tokens=4)
    )
    response.timings.total.FromNanoseconds(7)
    assert embed.answer("m", response) == (
        '{"model":"m","embeddings":[[0.1,-2],[1.5]],"total_duration":7,"prompt_eval_count":4}'
    )
    assert embed.answer("m", embed_pb2.EmbedResponse(usage=usage_pb2.Usage(prompt_tokens=4))) == (
        '{"model":"m","embeddings":[]}'
    )


def test_the_old_route_normalizes_and_writes_float64():
    (text,) = [embed.legacy_answer(embed_pb2.EmbedResponse(vectors=[packed(3.0, 4.0)]))]
    vector = json.loads(text)["embedding"]
    assert vector == [struct.unpack("f", struct.pack("f", each))[0] for each in vector]
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
    assert vector[0] / vector[1] == pytest.approx(0.75)


def test_the_old_route_leaves_zeros_and_nothing_alone():
    assert embed.legacy_answer(embed_pb2.EmbedResponse(vectors=[packed(0.0, 0.0)])) == '{"embedding":[0,0]}'
    assert embed.legacy_answer(embed_pb2.EmbedResponse()) == '{"embedding":[]}'
