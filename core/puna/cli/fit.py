"""The command `show --fit`: the memory that a model would take."""

from collections.abc import Mapping
from typing import Final

from puna.cli.client import connected
from puna.cli.tables import human_bytes, section
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc, options_pb2

_FITS: Final[Mapping[int, str]] = {
    models_pb2.MODEL_FIT_FITS: "yes",
    models_pb2.MODEL_FIT_FITS_AFTER_EVICTION: "yes, once other models are evicted",
    models_pb2.MODEL_FIT_DOES_NOT_FIT: "no",
}


async def show_fit(settings: Settings, name: str, *, context_length: int, slots: int, kv_cache_type: str) -> None:
    """Print the memory that a model would take, and whether it fits. Zeros and "" mean the server's settings."""
    options = options_pb2.RequestOptions()
    if context_length:
        options.runtime.context_length = context_length
    request = models_pb2.EstimateModelRequest(name=name, options=options, slots=slots, kv_cache_type=kv_cache_type)
    async with connected(settings) as channel:
        found = await models_pb2_grpc.ModelsServiceStub(channel).EstimateModel(request)
    print("\n".join(sections(found)))


def sections(found: models_pb2.EstimateModelResponse) -> list[str]:
    """Return the sections of an estimate."""
    if not found.HasField("estimate"):
        rows = [("backend", found.backend, "gives no estimates of memory"), ("files", human_bytes(found.file_bytes))]
        return [section("Memory", [(*row, "")[:3] for row in rows])]
    return [section("Memory", _memory_rows(found.estimate)), section("Fit", _fit_rows(found))]


def _memory_rows(estimate: models_pb2.MemoryEstimate) -> list[tuple[str, str]]:
    rows = [("context length", str(estimate.context_length)), ("slots", str(estimate.slots))]
    for each in estimate.devices:
        # The machine's own memory has no name.
        where = f" on {each.device}" if each.device else ""
        rows += [
            (f"weights{where}", human_bytes(each.weights_bytes)),
            (f"KV cache{where}", _cache(each)),
            (f"compute buffers{where}", human_bytes(each.compute_bytes)),
        ]
    return [*rows, ("process", human_bytes(estimate.process_bytes)), ("total", human_bytes(estimate.total_bytes))]


def _cache(device: models_pb2.DeviceMemory) -> str:
    text = human_bytes(device.kv_cache_bytes)
    if device.deferred_kv_cache_bytes:
        return f"{text}, and {human_bytes(device.deferred_kv_cache_bytes)} more when all slots are full"
    return text


def _fit_rows(found: models_pb2.EstimateModelResponse) -> list[tuple[str, str]]:
    largest = str(found.largest_context_length) if found.largest_context_length else "none"
    rows = [
        ("fits", _FITS.get(found.fit, "unknown")),
        ("free memory", human_bytes(found.free_bytes) if found.free_bytes else "unknown"),
        *((f"free on {each.device}", human_bytes(each.free_bytes)) for each in found.estimate.devices if each.device),
    ]
    if found.evicted_models:
        rows.append(("evicted", ", ".join(each.model.name for each in found.evicted_models)))
    if found.fit:
        rows.append(("largest context", largest))
    return rows
