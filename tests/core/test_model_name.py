import pytest

from puna.errors import InvalidRequestError, ModelRequiredError
from puna.model_name import ModelName, Source, parse_reference, stub_name

LIBRARY = ("registry.ollama.ai", "library")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("xx", (*LIBRARY, "xx", "latest")),
        ("xx:t", (*LIBRARY, "xx", "t")),
        ("u/m", (LIBRARY[0], "u", "m", "latest")),
        ("h/u/m:t", ("h", "u", "m", "t")),
        ("host:5000/u/m", ("host:5000", "u", "m", "latest")),
        ("hf.co/user/Repo-GGUF:Q4_K_M", ("hf.co", "user", "Repo-GGUF", "Q4_K_M")),
        ("_x/_y/_z:_t", ("_x", "_y", "_z", "_t")),
        ("h" * 350 + "/" + "n" * 80 + "/" + "m" * 80 + ":" + "t" * 80, ("h" * 350, "n" * 80, "m" * 80, "t" * 80)),
    ],
)
def test_valid_names_have_their_parts(text, parts):
    name = ModelName.parse(text)
    assert name.parts == parts
    assert name.is_valid
    assert name.scheme == "https"


def test_a_scheme_is_kept_apart():
    name = ModelName.parse("http://host:5000/u/m:t")
    assert (name.scheme, name.parts, name.full) == ("http", ("host:5000", "u", "m", "t"), "host:5000/u/m:t")


@pytest.mark.parametrize(
    "text",
    [
        "", "x:", ":t", "/x", "a//b", "x/", "-x", "x:-t", ".x", "host/name:space/m:t", "127.0.0.1:5000/m", "a/b/c/d",
        "m@sha256:" + "0" * 64, "a b", " x", "x ", "é", "m\n", "n.s/m", "h/" + "n" * 81 + "/m", "m" * 81,
        "x:" + "t" * 81, "h" * 351 + "/n/m", "../x/y", "a/../b", "٣",
    ],
)  # fmt: skip
def test_invalid_names_are_told(text):
    assert not ModelName.parse(text).is_valid


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("m", "m:latest"),
        ("Registry.Ollama.AI/Library/m", "m:latest"),
        ("u/m", "u/m:latest"),
        ("h/library/m:t", "h/library/m:t"),
        ("http://h/u/m:t", "h/u/m:t"),
    ],
)
def test_the_shortest_form_leaves_defaults_out(text, shortest):
    assert ModelName.parse(text).shortest == shortest


@pytest.mark.parametrize(
    ("text", "source", "base"),
    [
        ("foo", Source.UNSPECIFIED, "foo"),
        (" foo ", Source.UNSPECIFIED, "foo"),
        ("foo:cloud", Source.CLOUD, "foo"),
        ("foo:CLOUD", Source.CLOUD, "foo"),
        ("foo:20b:cloud", Source.CLOUD, "foo:20b"),
        ("gpt-oss:20b-cloud", Source.CLOUD, "gpt-oss:20b"),
        ("foo:20b-Cloud", Source.CLOUD, "foo:20b"),
        ("my-cloud-model", Source.UNSPECIFIED, "my-cloud-model"),
        ("foo-cloud", Source.UNSPECIFIED, "foo-cloud"),
        ("h:1/n-cloud", Source.UNSPECIFIED, "h:1/n-cloud"),
        ("foo:local", Source.LOCAL, "foo"),
        ("foo:t:local", Source.LOCAL, "foo:t"),
    ],
)
def test_suffixes_say_where_a_model_runs(text, source, base):
    reference = parse_reference(text)
    assert (reference.source, reference.base) == (source, base)
    assert reference.name == ModelName.parse(base)


def test_two_suffixes_are_refused_in_the_clients_words():
    with pytest.raises(InvalidRequestError) as caught:
        parse_reference(" foo:cloud:local ")
    assert str(caught.value) == 'use either :local or :cloud, not both: "foo:cloud:local"'


@pytest.mark.parametrize("text", ["", "  ", "\t\n"])
def test_nothing_is_no_reference(text):
    with pytest.raises(ModelRequiredError):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "stub"),
    [
        ("gpt-oss:20b:cloud", "gpt-oss:20b-cloud"),
        ("qwen3:cloud", "qwen3:cloud"),
        ("m:20b-cloud", "m:20b-cloud"),
        ("m", "m"),
    ],
)
def test_cloud_names_have_stubs(text, stub):
    assert stub_name(parse_reference(text)) == ModelName.parse(stub)
