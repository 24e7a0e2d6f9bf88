import pytest

from puna.models.layout import config
from puna.models.layout.config import Config, Draft

SHORT = Config(model_format="gguf", model_family="bert", model_families=("bert",), model_type="23M", file_type="F16")


def test_empty_fields_are_left_out_and_the_platform_is_always_there():
    written = (
        b'{"model_format":"gguf","model_family":"bert","model_families":["bert"],"model_type":"23M",'
        b'"file_type":"F16","architecture":"amd64","os":"linux"}\n'
    )
    assert config.dumps(SHORT) == written


def test_keys_stand_in_the_references_order():
    full = Config(
        model_format="f", model_family="m", model_families=("a", "b"), model_type="t", file_type="q", renderer="r",
        parser="p", requires="v", remote_host="h", remote_model="n", capabilities=("c",), context_length=1,
        embedding_length=2, base_name="b", draft=Draft(model_format="gguf", architecture="llama"), backend="x",
    )  # fmt: skip
    text = (
        '{"model_format":"f","model_family":"m","model_families":["a","b"],"model_type":"t","file_type":"q","renderer":"r",'
        '"parser":"p","requires":"v","remote_host":"h","remote_model":"n","capabilities":["c"],"context_length":1,'
        '"embedding_length":2,"base_name":"b","draft":{"model_format":"gguf","architecture":"llama"},"backend":"x",'
        '"architecture":"amd64","os":"linux"}\n'
    )
    assert config.dumps(full).decode() == text
    assert config.loads(text.encode()) == full


def test_unknown_keys_and_wrong_types_are_ignored():
    read = config.loads(b'{"rootfs":{"diff_ids":[1]},"model_family":3,"model_families":null,"context_length":"x"}')
    assert read == Config()


def test_what_is_no_object_is_refused():
    with pytest.raises(ValueError, match="JSON object"):
        config.loads(b"[]")


def test_a_stub_is_remote():
    assert Config(remote_host="h", remote_model="m").is_remote
    assert not Config(remote_host="h").is_remote
    assert Config().is_gguf
    assert not Config(model_format="safetensors").is_gguf


OPAQUE = Config(backend="b", backend_format="f", backend_options={"n": 1, "t": "x", "l": [1.5, None]}, upstream="u/m:1")


def test_what_a_model_tells_its_backend_follows_the_keys_of_ollama():
    written = (
        b'{"model_format":"","model_family":"","model_families":null,"model_type":"","file_type":"","backend":"b",'
        b'"backend_format":"f","backend_options":{"n":1,"t":"x","l":[1.5,null]},"upstream":"u/m:1",'
        b'"architecture":"amd64","os":"linux"}\n'
    )
    assert config.dumps(OPAQUE) == written
    assert config.loads(written) == OPAQUE


@pytest.mark.parametrize(
    ("fields", "opaque", "format_"),
    [
        ({}, False, "gguf"),
        ({"model_format": "gguf", "backend": "b", "backend_options": {"a": 1}}, False, "gguf"),
        ({"model_format": "safetensors"}, False, "safetensors"),
        ({"backend": "b"}, True, ""),
        ({"backend": "b", "upstream": "u"}, True, ""),
        ({"backend": "b", "backend_format": "f"}, True, "f"),
        ({"backend_format": "f"}, True, "f"),
        ({"backend": "b", "remote_host": "h", "remote_model": "m"}, False, "gguf"),
    ],
)
def test_opaque_models_are_told_from_those_of_ollama(fields, opaque, format_):
    assert (Config(**fields).is_opaque, Config(**fields).format) == (opaque, format_)


@pytest.mark.parametrize(
    "text",
    [
        '{"backend":"a\\nFROM b"}',
        '{"upstream":"\\u001b[31m"}',
        '{"backend_format":"' + "x" * 501 + '"}',
        '{"backend_options":{"a 1\\nFROM b":1}}',
        '{"backend_options":{"":1}}',
        '{"backend_options":{"a":NaN}}',
        '{"backend_options":' + '{"a":' * 300 + "1" + "}" * 300 + "}",
    ],
)
def test_texts_that_would_break_a_modelfile_or_a_terminal_are_refused(text):
    with pytest.raises(ValueError, match=r"backend|upstream|nested|NaN"):
        config.loads(text.encode())


@pytest.mark.parametrize("text", ['{"backend":1,"upstream":[],"backend_format":{},"backend_options":[]}', "{}"])
def test_values_of_a_wrong_type_are_no_values(text):
    assert config.loads(text.encode()) == Config()


def test_keys_of_a_newer_version_are_kept():
    text = b'{"model_format":"gguf","backend_adapters":["a"],"other":1}'
    found = config.loads(text)
    assert found.unknown == {"backend_adapters": ["a"]}
    assert config.loads(config.dumps(found)) == found
