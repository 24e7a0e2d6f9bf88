import json

import pytest

from puna.models.layout import parameters

PARENT = {"top_k": 10, "stop": ["USER:", "ASSISTANT:"], "temperature": 1}
CHILD = {"temperature": 0.6, "top_p": 0.7}
CHATML = {"stop": ["<|im_start|>", "<|im_end|>"]}


@pytest.mark.parametrize(
    ("layers", "digest"),
    [
        ([PARENT], "1d0ad71299d48c2fb7ae2b98e683643e771f8a5b72be34942af90d97a91c1e37"),
        ([PARENT, CHILD], "e29a7b3c47287a2489c895d21fe413c20f859a85d20e749492f52a838e36e1ba"),
        ([CHATML], "f02dd72bb2423204352eabc5637b44d79d17f109fdb510a7c51455892aa2d216"),
    ],
)
def test_layers_have_the_references_bytes(layers, digest, sha256):
    assert sha256(parameters.dumps(parameters.merged(layers))) == digest


def test_numbers_are_floats_as_in_go():
    data = (
        b'{"b":1.0,"a":1e-7,"c":1e21,"d":12345678901234567890,"e":null,"g":[1,"x",null],"h":{"z":1,"a":[2]},"i":true,'
        b'"k":-0}'
    )
    written = (
        '{"a":1e-7,"b":1,"c":1e+21,"d":12345678901234567000,"e":null,"g":[1,"x",null],"h":{"a":[2],"z":1},"i":true,'
        '"k":-0}\n'
    )
    assert parameters.dumps(parameters.loads(data)).decode() == written
    ints = json.loads(data.replace(b"-0", b"0"))
    assert parameters.dumps(ints).decode() == written.replace("-0", "0")


def test_lists_are_replaced_as_a_whole():
    assert parameters.merged([{"stop": ["a", "b"]}, {"stop": ["c"]}]) == {"stop": ["c"]}


def test_what_is_no_object_is_refused():
    with pytest.raises(ValueError, match="JSON object"):
        parameters.loads(b"[1]")
