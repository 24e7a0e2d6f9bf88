"""The configuration of upstreams."""

import pytest

from puna.backend import InvalidRequestError, ModelSpec


def spec(upstream, upstreams):
    return ModelSpec(path="", upstream=upstream, backend_options={"upstreams": upstreams})


SOUND = {"base_url": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    ("upstream", "upstreams", "words"),
    [
        ("vllm/m", {}, r"'vllm' is not configured .*configured: none"),
        ("vllm/m", {"b": SOUND, "a": SOUND}, "configured: a, b"),
        ("m", {"a": SOUND}, "NAME/MODEL"),
        ("a/", {"a": SOUND}, "NAME/MODEL"),
        ("", {"a": SOUND}, "NAME/MODEL"),
        ("a/m", {"a": {}}, "upstreams.a.base_url must be an address"),
        ("a/m", {"a": {"base_url": "127.0.0.1:8000"}}, "base_url must be an address"),
        ("a/m", {"a": SOUND | {"dialect": "klingon"}}, "dialect must be one of compatible"),
        ("a/m", {"a": SOUND | {"tiemout": 1}}, "unknown entry.*tiemout"),
        ("a/m", {"a b": SOUND}, "a name has letters"),
    ],
)
async def test_a_wrong_configuration_is_named(backend, upstream, upstreams, words):
    with pytest.raises(InvalidRequestError, match=words):
        await backend.load(spec(upstream, upstreams), lambda fraction: None)
