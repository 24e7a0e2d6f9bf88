import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import message_pb2, models_pb2
from puna_rest.bodies import native
from puna_rest.translate import models

DETAILS = models_pb2.ModelDetails(
    parent_model="p", format="gguf", family="llama", families=["llama"], parameter_size="1B", context_length=8
)


def model(**fields):
    found = models_pb2.Model(name="m:latest", digest="d", size_bytes=5, details=DETAILS, **fields)
    found.modify_time.FromSeconds(1_700_000_000)
    return found


def test_an_entry_of_the_list():
    listing = models.tags(models_pb2.ListModelsResponse(models=[model(modify_utc_offset_seconds=-16200)]))
    (found,) = listing["models"]
    assert list(found) == ["name", "model", "modified_at", "size", "digest", "details"]
    assert found["modified_at"] == "2023-11-14T17:43:20-04:30"
    assert found["details"]["context_length"] == 8


def test_an_entry_of_a_model_elsewhere():
    (found,) = models.tags(
        models_pb2.ListModelsResponse(models=[model(remote_model="r", remote_host="h", capabilities=["tools"])])
    )["models"]
    assert list(found) == [
        *("name", "model", "remote_model", "remote_host", "modified_at", "size", "digest", "details", "capabilities"),
    ]


@pytest.mark.parametrize(
    ("fields", "families"),
    [({"families": ["a"]}, ["a"]), ({"has_families": True}, []), ({}, None)],
)
def test_families_are_null_if_the_model_names_none(fields, families):
    assert models.details(models_pb2.ModelDetails(**fields))["families"] == families


def test_a_loaded_model():
    loaded = models_pb2.LoadedModel(model=model(), size_bytes=9, vram_bytes=4, context_length=16)
    loaded.expire_time.FromSeconds(0)
    (found,) = models.ps(models_pb2.ListLoadedModelsResponse(models=[loaded]))["models"]
    assert (found["size"], found["size_vram"], found["context_length"]) == (9, 4, 16)
    assert found["expires_at"] == "1970-01-01T00:00:00Z"
    assert found["details"]["parent_model"] == ""
    assert "context_length" not in found["details"]


def test_show_leaves_empty_fields_out():
    found = models.show(models_pb2.GetModelResponse(model=model()))
    assert list(found) == ["details", "model_info", "modified_at"]
    found = models.show(
        models_pb2.GetModelResponse(
            model=model(capabilities=["tools"]),
            license="L",
            messages=[message_pb2.ChatMessage(role="user", content="hi")],
            tensors=[models_pb2.TensorInfo(name="t", type="F32", shape=[2, 3])],
        )
    )
    assert found["license"] == "L"
    assert found["messages"] == [{"role": "user", "content": "hi"}]
    assert found["tensors"] == [{"name": "t", "type": "F32", "shape": [2, 3]}]


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        ('{"general.architecture":"l","general.size":1e3}',
         '{"general.architecture":"l","general.basename":"b\\u003c","general.size":1e3}'),
        ('{"general.basename":"old"}', '{"general.basename":"b\\u003c"}'),
        ("", '{"general.basename":"b\\u003c"}'),
    ],
)  # fmt: skip
def test_a_basename_takes_its_place_among_the_sorted_keys(info, shown):
    found = models.show(models_pb2.GetModelResponse(model_info_json=info), "b<")
    assert found["model_info"] == shown


@pytest.mark.parametrize(("body", "name"), [({"model": "a", "name": "b"}, "a"), ({"name": "b"}, "b")])
def test_requests_may_use_the_old_name_of_the_field(body, name):
    assert models.show_request(*decoded(native.SHOW, body)).name == name


def test_options_are_passed_on_as_they_are():
    request = models.show_request(*decoded(native.SHOW, '{"options": {"top_p": 0.50}, "verbose": true, "system": "s"}'))
    assert (request.options_json, request.verbose, request.system) == ('{"top_p":0.50}', True, "s")
    assert json.loads(request.options_json) == {"top_p": 0.5}
