import pytest

from puna_client.v1 import models_pb2
from puna_rest.translate.openai import models


@pytest.mark.parametrize(
    ("name", "owner"), [("m:latest", "library"), ("alice/m:1b", "alice"), ("host.example/alice/m", "alice")]
)
def test_a_model_is_owned_by_its_namespace(name, owner):
    message = models_pb2.Model(name=name)
    message.modify_time.FromSeconds(7)
    assert models.model(message, name) == {"id": name, "object": "model", "created": 7, "owned_by": owner}


def test_an_empty_store_gives_null():
    assert models.listing(models_pb2.ListModelsResponse()) == {"object": "list", "data": None}
    listing = models.listing(models_pb2.ListModelsResponse(models=[models_pb2.Model(name="m")]))
    assert [each["id"] for each in listing["data"]] == ["m"]
