"""What a node is told of a model's files, and the specification with its paths."""

import hashlib
from dataclasses import replace

import pytest

from puna.backend import ModelSpec
from puna.backend.v1 import node_pb2 as wire
from puna.runtime.errors import NodeError
from puna.runtime.node_files import files_of, localized


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_the_name_of_a_blob_is_its_digest_and_other_files_are_read(tmp_path):
    blob, other = tmp_path / f"sha256-{'a' * 64}", tmp_path / "other.gguf"
    blob.write_bytes(b"blob")
    other.write_bytes(b"other")
    spec = ModelSpec(path=str(blob), adapter_paths=(str(other),))
    assert {each.path: (each.bytes, each.digest) for each in files_of(spec)} == {
        str(blob): (4, f"sha256:{'a' * 64}"),
        str(other): (5, digest(b"other")),
    }
    other.write_bytes(b"changed")
    assert {each.digest for each in files_of(spec)} == {f"sha256:{'a' * 64}", digest(b"changed")}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(NodeError, match=r"cannot be read: No such file or directory: .*/nowhere"):
        files_of(ModelSpec(path=str(tmp_path / "nowhere")))


def test_every_path_of_a_specification_becomes_the_nodes(tmp_path):
    paths = [str(tmp_path / each) for each in ("model", "adapter", "projector", "draft")]
    spec = ModelSpec(
        path=paths[0], adapter_paths=(paths[1],), projector_paths=(paths[2],), draft_path=paths[3], memory_bytes=1
    )
    files = [wire.ModelFile(path=each) for each in paths]
    there = [f"/cache/{number}" for number in range(4)]
    placed = wire.PlaceFilesResponse(paths=there, free_memory_bytes=9)
    found = localized(spec, files, placed)
    assert [found.path, *found.adapter_paths, *found.projector_paths, found.draft_path] == there
    assert found.memory_bytes == 9


def test_files_with_names_are_in_the_folder_of_the_node():
    spec = ModelSpec(path="/here", folder="/here", files={"a": "/here/a", "b/c": "/here/b/c"})
    files = [wire.ModelFile(path=f"/blobs/{each}", name=each) for each in ("a", "b/c")]
    found = localized(spec, files, wire.PlaceFilesResponse(folder="/there", paths=["/cache/1", "/cache/2"]))
    assert (found.path, found.folder) == ("/there", "/there")
    assert found.files == {"a": "/there/a", "b/c": "/there/b/c"}
    alone = replace(spec, files={"a": "/here/a"})
    found = localized(alone, files[:1], wire.PlaceFilesResponse(folder="/there", paths=["/cache/1"]))
    assert found.path == "/there/a"
