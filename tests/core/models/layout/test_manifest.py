import pytest

from puna.models.layout import manifest, media_types
from puna.models.layout.manifest import Layer, Manifest

WRITTEN = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":'
    b'"application/vnd.docker.container.image.v1+json","digest":"sha256:c","size":3},"layers":[{"mediaType":'
    b'"application/vnd.ollama.image.model","digest":"sha256:m","size":5,"from":"a\\u003cb"},{"mediaType":'
    b'"application/vnd.ollama.image.tensor","digest":"sha256:t","size":7,"name":"n"}]}\n'
)


def sample():
    return Manifest(
        Layer(media_type=media_types.CONFIG, digest="sha256:c", size=3),
        (
            Layer(media_type=media_types.MODEL, digest="sha256:m", size=5, source="a<b"),
            Layer(media_type=media_types.PREFIX + "tensor", digest="sha256:t", size=7, name="n"),
        ),
    )


def test_manifests_are_written_as_the_reference_writes_them():
    assert manifest.dumps(sample()) == WRITTEN


def test_without_layers_there_is_null():
    assert b'"layers":null}' in manifest.dumps(Manifest(sample().config, ()))
    assert manifest.loads(manifest.dumps(Manifest(sample().config, ()))).layers == ()


def test_what_is_written_is_read_again():
    read = manifest.loads(WRITTEN)
    assert read == sample()
    assert read.size == 15
    assert read.digests == {"sha256:c", "sha256:m", "sha256:t"}
    assert read.last(media_types.MODEL) == sample().layers[0]
    assert read.last(media_types.SYSTEM) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"layers":3}', b'{"layers":[3]}', b'{"config":[1]}', b"\xff"])
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own errors are among them
        manifest.loads(data)
