import json

import pytest

from puna.models.layout import parameters

INHERITED = {"num_ctx": 2048, "stop": ["<eot>", "Q:"], "seed": 3}
OWN = {"seed": 0.5, "min_p": 0.05}
CHATML = {"stop": ["<|im_start|>", "<|im_end|>"]}


@pytest.mark.parametrize(
    ("layers", "written"),
    [
        ([INHERITED], rb'{"num_ctx":2048,"seed":3,"stop":["\u003ceot\u003e","Q:"]}'),
        ([INHERITED, OWN], rb'{"min_p":0.05,"num_ctx":2048,"seed":0.5,"stop":["\u003ceot\u003e","Q:"]}'),
    ],
)
def test_merged_parameters_are_written_as_go_writes_them(layers, written):
    assert parameters.dumps(parameters.merged(layers)) == written + b"\n"


def test_the_layer_of_chatml_has_the_digest_that_it_has_in_ollama(sha256):
    assert sha256(parameters.dumps(CHATML)) == "f02dd72bb2423204352eabc5637b44d79d17f109fdb510a7c51455892aa2d216"


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
