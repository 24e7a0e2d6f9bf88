"""/v1/models."""

from typing import Any

from puna_client.v1 import models_pb2


def listing(response: models_pb2.ListModelsResponse) -> dict[str, Any]:
    """Return the list of models. An empty store gives null, as in Ollama."""
    return {"object": "list", "data": [model(each, each.name) for each in response.models] or None}


def model(message: models_pb2.Model, name: str) -> dict[str, Any]:
    """Return a model under the name of the request."""
    return {"id": name, "object": "model", "created": message.modify_time.seconds, "owned_by": _namespace(name)}


def _namespace(name: str) -> str:
    path = name.split("/")
    return path[-2] if len(path) > 1 else "library"
