"""/api/tags, /api/ps, /api/show."""

from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import Document, parse_whole
from puna_client.v1 import models_pb2
from puna_rest.times import local
from puna_rest.translate.options import Body, raw_object


def tags(response: models_pb2.ListModelsResponse) -> dict[str, Any]:
    """Return the answer of /api/tags."""
    return {"models": [_tag(model) for model in response.models]}


def ps(response: models_pb2.ListLoadedModelsResponse) -> dict[str, Any]:
    """Return the answer of /api/ps."""
    # As in Ollama, the model that expires last comes first.
    models = sorted(response.models, key=lambda each: each.expire_time.ToNanoseconds(), reverse=True)
    return {"models": [_loaded(each) for each in models]}


def show_request(document: Document, body: Body) -> models_pb2.GetModelRequest:
    """Return the GetModelRequest of a body of /api/show."""
    return models_pb2.GetModelRequest(
        name=body["model"] or body["name"],
        verbose=body["verbose"],
        system=body["system"],
        options_json=raw_object(document, body["options"]) if body["options"] is not None else "",
    )


def show(response: models_pb2.GetModelResponse, basename: str = "") -> dict[str, Any]:
    """Return the answer of /api/show. `basename` replaces general.basename unless it is empty."""
    model = response.model
    info = _with_basename(response.model_info_json, basename) if basename else response.model_info_json
    every: dict[str, Any] = {
        "license": response.license,
        "modelfile": response.modelfile,
        "parameters": response.parameters,
        "template": response.template,
        "system": response.system,
        "details": details(model.details, lengths=False),
        "messages": [{"role": each.role, "content": each.content} for each in response.messages],
        "remote_model": model.remote_model,
        "remote_host": model.remote_host,
        "model_info": gojson.Raw(info or "{}"),
        "projector_info": gojson.Raw(response.projector_info_json),
        "tensors": [{"name": each.name, "type": each.type, "shape": list(each.shape)} for each in response.tensors],
        "capabilities": list(model.capabilities),
        "modified_at": local(model.modify_time, model.modify_utc_offset_seconds),
        "requires": response.requires,
        **_of_backend(model),
        "backend_format": response.backend_format,
        "backend_options": gojson.Raw(response.backend_options_json),
        "upstream": response.upstream,
        "files": {each.name: each.digest for each in response.files},
    }
    # Go omits empty fields. model_info is the exception: it is {} when empty, hence a text that is not empty.
    return {name: value for name, value in every.items() if value}


def details(message: models_pb2.ModelDetails, *, lengths: bool = True, parent: bool = True) -> dict[str, Any]:
    """Return `details`: format, family, parameter size, quantization."""
    out: dict[str, Any] = {
        "parent_model": message.parent_model if parent else "",
        "format": message.format,
        "family": message.family,
        # Go tells a nil slice, written as null, from an empty one.
        "families": list(message.families) if message.families or message.has_families else None,
        "parameter_size": message.parameter_size,
        "quantization_level": message.quantization_level,
    }
    if lengths and message.context_length:
        out["context_length"] = message.context_length
    if lengths and message.embedding_length:
        out["embedding_length"] = message.embedding_length
    return out


def _tag(model: models_pb2.Model) -> dict[str, Any]:
    out: dict[str, Any] = {"name": model.name, "model": model.name}
    if model.remote_model:
        out["remote_model"] = model.remote_model
    if model.remote_host:
        out["remote_host"] = model.remote_host
    out["modified_at"] = local(model.modify_time, model.modify_utc_offset_seconds)
    out["size"] = model.size_bytes
    out["digest"] = _digits(model.digest)
    out["details"] = details(model.details)
    if model.capabilities:
        out["capabilities"] = list(model.capabilities)
    return out | _of_backend(model)


def _digits(digest: str) -> str:
    """Return the digits of a digest. Ollama writes those of manifests without the algorithm."""
    return digest.removeprefix("sha256:")


def _of_backend(model: models_pb2.Model) -> dict[str, Any]:
    """Return Puna's own fields of a model that names its backend. Other models look exactly as in Ollama."""
    return {"backend": model.backend} if model.backend else {}


def _loaded(loaded: models_pb2.LoadedModel) -> dict[str, Any]:
    model = loaded.model
    return {
        "name": model.name,
        "model": model.name,
        "size": loaded.size_bytes,
        "digest": _digits(model.digest),
        "details": details(model.details, lengths=False, parent=False),
        "expires_at": local(loaded.expire_time, loaded.expire_utc_offset_seconds),
        "size_vram": loaded.vram_bytes,
        "context_length": loaded.context_length,
        **_of_backend(model),
    }


def _with_basename(info: str, basename: str) -> str:
    """Return the raw JSON of model_info with general.basename added at its place among the sorted keys."""
    # Raw values: metadata holds integers beyond 2**53 and floats in Go's digits.
    document = parse_whole(info or "{}")
    fields = {key: document.raw(node) for key, node in document.root.value}
    fields["general.basename"] = gojson.string(basename)
    return "{" + ",".join(f"{gojson.string(key)}:{fields[key]}" for key in sorted(fields)) + "}"
