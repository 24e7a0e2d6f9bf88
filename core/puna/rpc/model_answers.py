"""Translation of models and transfers from dataclasses of the core to protobuf messages."""

import math
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypedDict

from google.protobuf.timestamp_pb2 import Timestamp

from puna.go import json as gojson
from puna.go.json import replace_lone_surrogates
from puna.model_settings import ModelSettings
from puna.models.facts.details import Details, ModelSummary, local_time
from puna.models.progress import JobPhase, TransferStep
from puna.models.show import ShowResult
from puna.models.storage.linked import InPlace
from puna.models.storage.stat_fingerprints import FileState, Place
from puna.models.stored import StoredModel
from puna.rpc.answers import tool_call
from puna.runtime.estimates import Fit, ModelEstimate
from puna.runtime.requirements import LoadedEntry, ReplicaEntry
from puna_client.v1 import message_pb2, models_pb2, options_pb2

_DIGITS: Final = 64
_PLACES: Final = {
    Place.STORE: models_pb2.LINK_KIND_UNSPECIFIED,
    Place.HARD_LINK: models_pb2.LINK_KIND_HARD,
    Place.SYMBOLIC_LINK: models_pb2.LINK_KIND_SYMBOLIC,
}
_PHASES: Final = {
    JobPhase.READING_MANIFEST: models_pb2.JOB_PHASE_READING_MANIFEST,
    JobPhase.DOWNLOADING: models_pb2.JOB_PHASE_DOWNLOADING,
    JobPhase.UPLOADING: models_pb2.JOB_PHASE_UPLOADING,
    JobPhase.VERIFYING: models_pb2.JOB_PHASE_VERIFYING,
    JobPhase.READING_FILES: models_pb2.JOB_PHASE_READING_FILES,
    JobPhase.CONVERTING: models_pb2.JOB_PHASE_CONVERTING,
    JobPhase.QUANTIZING: models_pb2.JOB_PHASE_QUANTIZING,
    JobPhase.WRITING_LAYERS: models_pb2.JOB_PHASE_WRITING_LAYERS,
    JobPhase.WRITING_MANIFEST: models_pb2.JOB_PHASE_WRITING_MANIFEST,
    JobPhase.REMOVING_BLOBS: models_pb2.JOB_PHASE_REMOVING_BLOBS,
    JobPhase.DONE: models_pb2.JOB_PHASE_DONE,
}
_STATES: Final = {
    None: models_pb2.FILE_STATE_MISSING,
    FileState.UNKNOWN: models_pb2.FILE_STATE_UNSPECIFIED,
    FileState.UNCHANGED: models_pb2.FILE_STATE_UNCHANGED,
    FileState.CHANGED: models_pb2.FILE_STATE_CHANGED,
}


def summary(model: ModelSummary | ShowResult) -> models_pb2.Model:
    """Return an entry of the list of models."""
    return models_pb2.Model(
        name=model.name.shortest,
        digest=digest(model.digest),
        size_bytes=model.size,
        modify_time=timestamp(model.modified_ns),
        # Ollama prints times with the server's offset from UTC, which a Timestamp does not carry.
        modify_utc_offset_seconds=offset(model.modified_ns),
        details=details(model.details),
        capabilities=model.capabilities,
        remote_model=model.remote_model,
        remote_host=model.remote_host,
        backend=replace_lone_surrogates(model.backend),
        serving_backend=model.serving_backend,
    )


def shown(model: ShowResult) -> models_pb2.GetModelResponse:
    """Return the full description of a model."""
    return models_pb2.GetModelResponse(
        model=summary(model),
        # The texts come from untrusted files. protobuf refuses a lone surrogate, which would make such a model
        # impossible to show.
        license=replace_lone_surrogates(model.license),
        modelfile=replace_lone_surrogates(model.modelfile),
        parameters=replace_lone_surrogates(model.parameters),
        template=replace_lone_surrogates(model.template),
        system=replace_lone_surrogates(model.system),
        messages=[
            message_pb2.ChatMessage(
                role=replace_lone_surrogates(each.role),
                content=replace_lone_surrogates(each.content),
                thinking=replace_lone_surrogates(each.thinking),
                media=[options_pb2.Media(data=data) for data in each.media],
                tool_calls=map(tool_call, each.tool_calls),
                tool_name=replace_lone_surrogates(each.tool_name),
                tool_call_id=replace_lone_surrogates(each.tool_call_id),
            )
            for each in model.messages
        ],
        model_info_json=replace_lone_surrogates(model.model_info_json),
        projector_info_json=replace_lone_surrogates(model.projector_info_json),
        tensors=[
            models_pb2.TensorInfo(name=replace_lone_surrogates(e.name), type=e.type, shape=e.shape)
            for e in model.tensors
        ],
        requires=model.requires,
        in_place=map(in_place_file, model.in_place),
        backend_format=model.backend_format,
        backend_options_json=gojson.dumps(model.backend_options, sort_keys=True) if model.backend_options else "",
        upstream=model.upstream,
        files=[models_pb2.FileBlob(name=each.name, digest=digest(each.digest)) for each in model.files],
        settings=model_settings(model.settings, model.sets) if model.settings is not None else None,
    )


def model_settings(settings: ModelSettings, sets: Sequence[str]) -> models_pb2.ModelSettings:
    """Return what the configuration says about a model."""
    wire = models_pb2.ModelSettings(
        preload=settings.preload,
        pin=settings.pin,
        aliases=settings.aliases,
        options_json=gojson.dumps(dict(settings.options), sort_keys=True) if settings.options else "",
        backend=settings.backend,
        num_parallel=settings.num_parallel,
        max_queue=settings.max_queue,
        max_context_tokens=settings.max_context_tokens,
        max_output_tokens=settings.max_output_tokens,
        sets=sets,
        min_replicas=settings.replicas.least if settings.replicas else None,
        max_replicas=settings.replicas.most if settings.replicas else None,
        routing=settings.routing,
    )
    if settings.keep_alive == math.inf:
        wire.keep_alive.forever = True
    elif settings.keep_alive is not None:
        wire.keep_alive.duration.FromNanoseconds(int(settings.keep_alive * 1e9))
    if settings.load_timeout is not None:
        never = settings.load_timeout == math.inf
        wire.load_timeout.FromNanoseconds(0 if never else int(settings.load_timeout * 1e9))
    return wire


def loaded(entry: LoadedEntry) -> models_pb2.LoadedModel:
    """Return an entry of the list of loaded models. The details come from the stored model."""
    # The pool passes the details through without knowing their type. See puna.runtime.requirements.
    model: StoredModel = entry.details
    return models_pb2.LoadedModel(
        model=models_pb2.Model(
            name=entry.name,
            digest=digest(entry.digest),
            size_bytes=model.size,
            modify_time=timestamp(model.modified_ns),
            modify_utc_offset_seconds=offset(model.modified_ns),
            details=details(model.details),
            capabilities=model.capabilities,
            backend=model.config.backend,
            serving_backend=entry.backend,
        ),
        # This size is the memory in use; the one above is the size of the files.
        size_bytes=entry.size_bytes,
        vram_bytes=entry.vram_bytes,
        expire_time=timestamp(entry.expires_at_ns),
        expire_utc_offset_seconds=offset(entry.expires_at_ns),
        context_length=entry.context_length,
        backend=entry.backend,
        active_requests=entry.active,
        queued_requests=entry.queued,
        process_id=entry.pid,
        pinned=entry.pinned,
        slots=entry.slots,
        kv_cache=_kv_cache(entry),
        replicas=map(_replica, entry.replicas),
        starting_replicas=entry.starting_replicas,
        routing=entry.routing,
    )


def _replica(entry: ReplicaEntry) -> models_pb2.Replica:
    return models_pb2.Replica(
        number=entry.number,
        node=entry.node,
        process_id=entry.process_id,
        slots=entry.slots,
        active_requests=entry.active,
        queued_requests=entry.queued,
        kv_cache=_kv_cache(entry),
        size_bytes=entry.size_bytes,
        vram_bytes=entry.vram_bytes,
        load_time=timestamp(entry.loaded_at_ns),
    )


def _kv_cache(entry: LoadedEntry | ReplicaEntry) -> models_pb2.KvCache | None:
    if (usage := entry.kv_cache_usage) is None:
        return None
    return models_pb2.KvCache(
        total_tokens=entry.kv_cache_tokens,
        active_tokens=usage.active_tokens,
        cached_tokens=usage.cached_tokens,
        type=entry.kv_cache_type,
    )


_FITS: Final = {
    Fit.UNKNOWN: models_pb2.MODEL_FIT_UNSPECIFIED,
    Fit.FITS: models_pb2.MODEL_FIT_FITS,
    Fit.AFTER_EVICTION: models_pb2.MODEL_FIT_FITS_AFTER_EVICTION,
    Fit.DOES_NOT_FIT: models_pb2.MODEL_FIT_DOES_NOT_FIT,
}


def estimate(found: ModelEstimate) -> models_pb2.EstimateModelResponse:
    """Return an estimate of the memory that a model would take."""
    memory = None
    if found.memory is not None:
        # The fields of a device have the same names in the contract of backends.
        names = models_pb2.DeviceMemory.DESCRIPTOR.fields_by_name
        devices = [
            models_pb2.DeviceMemory(**{name: getattr(each, name) for name in names}) for each in found.memory.devices
        ]
        parts = ((each.weights_bytes, each.kv_cache_bytes, each.compute_bytes) for each in devices)
        memory = models_pb2.MemoryEstimate(
            context_length=found.memory.context_length,
            slots=found.memory.parallel,
            total_bytes=found.memory.process_bytes + sum(map(sum, parts)),
            devices=devices,
            process_bytes=found.memory.process_bytes,
        )
    return models_pb2.EstimateModelResponse(
        backend=found.backend,
        estimate=memory,
        file_bytes=found.file_bytes,
        free_bytes=found.free_bytes,
        evicted_models=map(loaded, found.evicted),
        fit=_FITS[found.fit],
        largest_context_length=found.largest_context_length,
    )


def progress(step: TransferStep) -> models_pb2.JobProgress:
    """Return the progress of a transfer, a creation or an import."""
    return models_pb2.JobProgress(
        phase=_PHASES[step.phase],
        status=step.status,
        digest=digest(step.digest),
        total_bytes=step.total,
        completed_bytes=step.completed,
    )


class JobEvent(TypedDict, total=False):
    """The field of an answer of PullModel, PushModel and CreateModel: one of the two."""

    progress: models_pb2.JobProgress
    model: models_pb2.Model


def job_event(event: TransferStep | ModelSummary) -> JobEvent:
    """Return a step of a job, or the model with which it ends."""
    return {"model": summary(event)} if isinstance(event, ModelSummary) else {"progress": progress(event)}


def digest(text: str) -> str:
    """Return a digest in the one form of the wire, "sha256:" and 64 hexadecimal digits; empty if there is none.

    The core has digests of manifests without the algorithm, and manifests may write a hyphen in place of the colon.
    """
    if len(text) == _DIGITS:
        return f"sha256:{text}"
    return text.replace("-", ":", 1)


def in_place_file(found: InPlace) -> models_pb2.InPlaceFile:
    """Return the description of a file that was imported in place."""
    return models_pb2.InPlaceFile(
        digest=digest(found.digest),
        path=replace_lone_surrogates(found.origin),
        link_kind=_PLACES[found.place],
        state=_STATES[found.state],
    )


def details(found: Details) -> models_pb2.ModelDetails:
    """Return the details of a model: format, families, size, quantization."""
    return models_pb2.ModelDetails(
        parent_model=replace_lone_surrogates(found.parent_model),
        format=replace_lone_surrogates(found.format),
        family=replace_lone_surrogates(found.family),
        families=[replace_lone_surrogates(each) for each in found.families or ()],
        # Ollama's JSON has null for a missing list and [] for an empty one, which a repeated field cannot tell apart.
        has_families=found.families is not None,
        parameter_size=replace_lone_surrogates(found.parameter_size),
        quantization_level=replace_lone_surrogates(found.quantization_level),
        context_length=found.context_length,
        embedding_length=found.embedding_length,
    )


def timestamp(nanoseconds: int) -> Timestamp:
    """Return nanoseconds since 1970 as a Timestamp."""
    stamp = Timestamp()
    stamp.FromNanoseconds(nanoseconds)
    return stamp


def offset(nanoseconds: int) -> int:
    """Return the offset of local time from UTC, in seconds, at a time given in nanoseconds since 1970."""
    try:
        delta = local_time(nanoseconds).utcoffset()
    except (OverflowError, OSError, ValueError):  # beyond the range of the system's calendar
        delta = datetime.fromtimestamp(time.time()).astimezone().utcoffset()
    return int(delta.total_seconds()) if delta else 0
