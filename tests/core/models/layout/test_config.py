import pytest

from puna.models.layout import config
from puna.models.layout.config import Config, Draft

GOLDEN = Config(model_format="gguf", model_family="test", model_families=("test",), model_type="0", file_type="unknown")


def test_a_configuration_has_the_references_bytes(sha256):
    assert sha256(config.dumps(GOLDEN)) == "99759ad5b91e723db0393d698ffbb448b1b7df5ff6377a108c49254583b1bc8c"


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
