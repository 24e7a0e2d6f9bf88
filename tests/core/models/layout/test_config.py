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
