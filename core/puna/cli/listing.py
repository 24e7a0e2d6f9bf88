"""The commands `list`, `ps`, `plugins` and `demo`."""

import json
import time
from collections.abc import Callable, Sequence

from google.protobuf import json_format
from google.protobuf.message import Message

from puna.cli.client import connected
from puna.cli.tables import human_bytes, relative_time, short_id, table
from puna.paging import read_pages
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc


async def list_models(settings: Settings, prefix: str, *, as_json: bool) -> None:
    """Print the models of the store whose names begin with a prefix, ignoring case."""
    async with connected(settings) as channel:
        stub = models_pb2_grpc.ModelsServiceStub(channel)
        answer = await read_pages(stub.ListModels, models_pb2.ListModelsRequest())
    models = [model for model in answer.models if model.name.lower().startswith(prefix.lower())]
    if as_json:
        print_json(models)
        return
    now = time.time()
    # The column appears only when it says something, and as the last one: scripts for Ollama's output count columns.
    named = any(model.backend for model in models)
    rows = [
        (
            model.name,
            short_id(model.digest),
            "-" if model.remote_model or _has_no_files(model) else human_bytes(model.size_bytes),
            relative_time(model.modify_time.ToNanoseconds() / 1e9 - now),
            *([model.serving_backend or f"{model.backend} (not installed)"] if named else []),
        )
        for model in models
    ]
    print(table(("NAME", "ID", "SIZE", "MODIFIED", *(["BACKEND"] if named else [])), rows))


async def list_loaded(settings: Settings, prefix: str, *, as_json: bool) -> None:
    """Print the loaded models whose names begin with a prefix."""
    async with connected(settings) as channel:
        stub = models_pb2_grpc.ModelsServiceStub(channel)
        answer = await read_pages(stub.ListLoadedModels, models_pb2.ListLoadedModelsRequest())
    models = [each for each in answer.models if each.model.name.startswith(prefix)]
    models.sort(key=lambda each: each.expire_time.ToNanoseconds(), reverse=True)
    if as_json:
        print_json(models)
        return
    now = time.time()
    more = _further_columns(models)
    rows = [
        (
            each.model.name,
            short_id(each.model.digest),
            # A model of an upstream takes no memory here, and its context length may be unknown.
            human_bytes(each.size_bytes) if each.size_bytes else "-",
            processor(each.size_bytes, each.vram_bytes) if each.size_bytes or each.model.details.format else "-",
            str(each.context_length or "-"),
            _until(each.expire_time.ToNanoseconds() / 1e9 - now),
            each.backend,
            *(cell(each) for cell in more.values()),
        )
        for each in models
    ]
    print(table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL", "BACKEND", *more), rows))
    if answer.pending_requests:
        print(f"{answer.pending_requests} waiting for a model to be loaded")


def _further_columns(models: Sequence[models_pb2.LoadedModel]) -> dict[str, Callable[[models_pb2.LoadedModel], str]]:
    """Return the columns that say something about one of the models, and the function of their cells.

    They are the last ones, since scripts for Ollama's output count columns.
    """
    found: dict[str, Callable[[models_pb2.LoadedModel], str]] = {}
    if any(each.queued_requests for each in models):
        found["QUEUE"] = lambda each: str(each.queued_requests)
    if any(len(each.replicas) + each.starting_replicas > 1 for each in models):
        found["REPLICAS"] = replicas
    if any(replica.node for each in models for replica in each.replicas):
        found["NODE"] = nodes
    return found


def replicas(model: models_pb2.LoadedModel) -> str:
    """Return the number of a model's replicas, such as "3"; "2/3" if one of three has not loaded the model yet."""
    loaded = len(model.replicas)
    return f"{loaded}/{loaded + model.starting_replicas}" if model.starting_replicas else str(loaded)


def nodes(model: models_pb2.LoadedModel) -> str:
    """Return the nodes of a model, each once, such as "gpu1:11436,gpu2:11436"; "-" for this machine."""
    return ",".join(dict.fromkeys(each.node or "-" for each in model.replicas)) or "-"


def processor(size: int, vram: int) -> str:
    """Return the share of CPU and GPU in a model's memory, such as "100% CPU"."""
    if vram == 0:
        return "100% CPU"
    if vram >= size:
        return "100% GPU"
    # One share is rounded and the other is the rest, so the two add up to 100.
    cpu = round((size - vram) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def _has_no_files(model: models_pb2.Model) -> bool:
    # Its size is that of the configuration, which says nothing.
    return bool(model.backend and not model.details.format)


def _until(seconds: float) -> str:
    return relative_time(seconds) if seconds > 0 else "Stopping..."


def print_json(messages: Sequence[Message]) -> None:
    """Print messages as one JSON array, for scripts."""
    print(
        json.dumps([json_format.MessageToDict(each, preserving_proto_field_name=True) for each in messages], indent=2)
    )


def list_plugins(settings: Settings) -> None:
    """Print each backend: where it comes from, what it serves and can do, and the error if it is broken."""
    from puna.plugins import Registry
    from puna.plugins.table import plain

    rows = [
        (
            each.name,
            # A backend of a folder has no distribution.
            f"{each.distribution} {each.version}".strip() or (plain(str(each.manifest.path)) if each.manifest else "-"),
            str(each.manifest.contract) if each.manifest else "-",
            ", ".join(each.formats) or "-",
            each.error or (", ".join(each.manifest.capabilities.names()) if each.manifest else ""),
            each.manifest.description if each.manifest else "",
        )
        for each in Registry.discover(settings).describe()
    ]
    print(table(("NAME", "FROM", "CONTRACT", "FORMATS", "CAPABILITIES", "DESCRIPTION"), rows))


def install_demo(settings: Settings) -> None:
    """Install the demo models into the store. Needs no running server."""
    from puna.demo.install import DEMO_MODELS, install
    from puna.models.store import ModelStore

    install(ModelStore(settings.models, no_prune=settings.no_prune, go_template=settings.go_template))
    print(f"{' and '.join(demo.name.model for demo in reversed(DEMO_MODELS))} are in the store")
