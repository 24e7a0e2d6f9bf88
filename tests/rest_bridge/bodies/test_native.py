import pytest
from tests.rest_bridge.decoding import decoded

from puna.go.json_scanner import BodyError
from puna_rest.bodies import native

KINDS = {
    name: kind
    for name, kind in vars(native).items()
    if name
    in ("GENERATE", "CHAT", "EMBED", "EMBEDDINGS", "SHOW", "COPY", "DELETE", "PULL", "PUSH", "CREATE", "WEB_SEARCH")
}


@pytest.mark.parametrize("name", KINDS)
def test_an_empty_body_and_null_have_every_field_at_its_zero(name):
    for text in ("{}", "null"):
        assert decoded(KINDS[name], text)[1] == KINDS[name].zero


@pytest.mark.parametrize("name", KINDS)
def test_a_body_that_is_no_object_is_named_by_its_go_type(name):
    with pytest.raises(BodyError, match=rf"^json: cannot unmarshal array into Go value of type {KINDS[name].go}$"):
        decoded(KINDS[name], "[]")


@pytest.mark.parametrize(
    ("kind", "field", "text", "error"),
    [
        (native.CHAT, "tools", "{}", "object into Go struct field ChatRequest.tools of type api.Tools"),
        (native.CHAT, "stream", "3", "number into Go struct field ChatRequest.stream of type bool"),
        (native.GENERATE, "context", '["a"]', "string into Go struct field GenerateRequest.context of type int"),
        (native.EMBED, "dimensions", "1.5", "number 1.5 into Go struct field EmbedRequest.dimensions of type int"),
        (native.CREATE, "files", "[]", "array into Go struct field CreateRequest.files of type map[string]string"),
        (native.PULL, "insecure", '"a"', "string into Go struct field PullRequest.insecure of type bool"),
        (native.PUSH, "insecure", '"a"', "string into Go struct field PushRequest.insecure of type bool"),
    ],
)
def test_errors_name_the_struct_and_its_field(kind, field, text, error):
    with pytest.raises(BodyError) as caught:
        decoded(kind, f'{{"{field}": {text}}}')
    assert str(caught.value) == f"json: cannot unmarshal {error}"


@pytest.mark.parametrize("given", ["true", "false", "null"])
def test_stream_that_is_absent_is_told_from_false(given):
    value = decoded(native.CHAT, f'{{"stream": {given}}}')[1]["stream"]
    assert value is {"true": True, "false": False, "null": None}[given]
