"""The command `show`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from puna.cli.client import connected
from puna.cli.errors import CommandError
from puna.cli.fit import show_fit
from puna.cli.tables import human_parameters, metadata_value, section, short_id
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc

SINGLE = ("license", "modelfile", "parameters", "system", "template")
SHOWN_LINES = 2
SHOWN_FILES = 10
LINK_KINDS: Mapping[int, str] = {
    models_pb2.LINK_KIND_HARD: "hard link",
    models_pb2.LINK_KIND_SYMBOLIC: "symbolic link",
}
STATES: Mapping[int, str] = {
    models_pb2.FILE_STATE_UNCHANGED: "unchanged",
    models_pb2.FILE_STATE_CHANGED: "touched since",
    models_pb2.FILE_STATE_MISSING: "gone",
}


async def run(settings: Settings, arguments: argparse.Namespace) -> None:
    """Print what the arguments ask for: facts about a model, or the memory that it would take."""
    if not arguments.fit:
        await show(settings, arguments.model, arguments.wanted or [], verbose=arguments.verbose)
        return
    await show_fit(
        settings,
        arguments.model,
        context_length=arguments.context_length,
        slots=arguments.slots,
        kv_cache_type=arguments.kv_cache_type,
    )


async def show(settings: Settings, name: str, wanted: list[str], *, verbose: bool) -> None:
    """Print the description of a model, or one of its texts."""
    if len(wanted) > 1:
        names = [f"'--{each}'" for each in SINGLE]
        raise CommandError(f"only one of {', '.join(names[:-1])}, or {names[-1]} can be specified")
    async with connected(settings) as channel:
        request = models_pb2.GetModelRequest(name=name, verbose=verbose)
        model = await models_pb2_grpc.ModelsServiceStub(channel).GetModel(request)
    if wanted:
        print(getattr(model, wanted[0]))
        return
    print("\n".join(sections(model, verbose=verbose)))


def sections(model: models_pb2.GetModelResponse, *, verbose: bool) -> list[str]:
    """Return the sections of a model's description."""
    info: dict[str, Any] = json.loads(model.model_info_json or "{}")
    found = [section("Model", _model_rows(model, info))]
    if model.model.capabilities:
        found.append(section("Capabilities", [(each,) for each in model.model.capabilities]))
    if model.projector_info_json:
        found.append(section("Projector", _projector_rows(json.loads(model.projector_info_json))))
    if model.backend_options_json:
        options: dict[str, Any] = json.loads(model.backend_options_json)
        texts = [(key, each if isinstance(each, str) else json.dumps(each)) for key, each in options.items()]
        found.append(section("Backend options", texts))
    if model.files:
        found.append(section("Files", _file_rows(model.files, verbose=verbose)))
    if model.parameters:
        pairs = (line.partition(" ") for line in model.parameters.splitlines())
        found.append(section("Parameters", [(name, value.strip()) for name, _, value in pairs]))
    if model.HasField("settings"):
        found.append(section("Settings on this server", _settings_rows(model.settings)))
    if verbose and info:
        found.append(section("Metadata", [(key, metadata_value(info[key])) for key in sorted(info)]))
    if verbose and model.tensors:
        rows = [(each.name, each.type, f"[{' '.join(map(str, each.shape))}]") for each in model.tensors]
        found.append(section("Tensors", rows))
    if model.in_place:
        found.append(section("In place", [in_place_row(each) for each in model.in_place]))
    for title, text in (("System", model.system), ("License", model.license)):
        if text:
            found.append(section(title, _first_lines(text)))
    return found


def _model_rows(model: models_pb2.GetModelResponse, info: dict[str, Any]) -> list[tuple[str, str]]:
    details = model.model.details
    # The stub of a remote model has no metadata, only the family.
    architecture = info.get("general.architecture", details.family)
    count = info.get("general.parameter_count")
    rows = [
        ("Remote model", model.model.remote_model),
        ("Remote URL", model.model.remote_host),
        ("architecture", str(architecture)),
        ("parameters", human_parameters(count) if count else details.parameter_size),
        ("context length", str(info.get(f"{architecture}.context_length", ""))),
        ("embedding length", str(info.get(f"{architecture}.embedding_length", ""))),
        ("quantization", details.quantization_level),
        ("requires", model.requires),
        ("backend", _backend(model.model)),
        ("format", model.backend_format),
        ("upstream", model.upstream),
    ]
    return [(name, value) for name, value in rows if value]


def _backend(model: models_pb2.Model) -> str:
    """Return the backend that serves the model; empty for a stub, which runs elsewhere."""
    if model.serving_backend or not model.backend:
        return "" if model.remote_host else model.serving_backend
    return f"{model.backend} (not installed)"


def _projector_rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    architecture = info.get("general.architecture", "clip")
    rows = [
        ("architecture", architecture),
        ("parameters", human_parameters(info.get("general.parameter_count", 0))),
        ("embedding length", str(info.get(f"{architecture}.vision.embedding_length", ""))),
        ("dimensions", str(info.get(f"{architecture}.vision.projection_dim", ""))),
    ]
    return [(name, value) for name, value in rows if value]


def _file_rows(files: Sequence[models_pb2.FileBlob], *, verbose: bool) -> list[tuple[str, str]]:
    shown = files if verbose else files[:SHOWN_FILES]
    rows = [(each.name, short_id(each.digest)) for each in shown]
    return rows + ([("...", f"{len(files) - len(shown)} more")] if len(shown) < len(files) else [])


def in_place_row(file: models_pb2.InPlaceFile) -> tuple[str, str, str]:
    """Return the row of a file outside of the store: path, kind of link, state."""
    return file.path, LINK_KINDS.get(file.link_kind, ""), STATES.get(file.state, "")


def _settings_rows(settings: models_pb2.ModelSettings) -> list[tuple[str, str]]:
    """Return the settings of the configuration under the keys that they have in its file."""
    options: dict[str, Any] = json.loads(settings.options_json or "{}")
    rows: list[tuple[str, str]] = [(key, "true") for key in ("preload", "pin") if getattr(settings, key)]
    rows += [("alias", each) for each in settings.aliases]
    rows += [("backend", settings.backend)] if settings.backend else []
    if settings.HasField("keep_alive"):
        keep_alive = settings.keep_alive
        rows.append(("keep_alive", "forever" if keep_alive.forever else _seconds(keep_alive.duration)))
    if settings.HasField("load_timeout"):
        rows.append(("load_timeout", _seconds(settings.load_timeout) if settings.load_timeout.ByteSize() else "never"))
    counts = ("num_parallel", "max_queue", "max_context_tokens", "max_output_tokens")
    given = {field.name: value for field, value in settings.ListFields()}
    rows += [(key, str(given[key])) for key in counts if key in given]
    if settings.HasField("min_replicas"):
        least, most = settings.min_replicas, settings.max_replicas
        rows.append(("replicas", f"{least}-{most}" if least < most else str(most)))
    rows += [("routing", settings.routing)] if settings.routing else []
    rows += [(f"options.{key}", each if isinstance(each, str) else json.dumps(each)) for key, each in options.items()]
    return rows + [("set", each) for each in settings.sets]


def _seconds(duration: Duration) -> str:
    return f"{duration.ToNanoseconds() / 1e9:g}s"


def _first_lines(text: str) -> list[tuple[str]]:
    # Licenses are pages long. `--license` prints the whole text.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line,) for line in [*lines[:SHOWN_LINES], *(["..."] if len(lines) > SHOWN_LINES else [])]]
