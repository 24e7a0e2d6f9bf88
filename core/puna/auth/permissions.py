"""Permissions of keys, and the permission that each RPC needs.

The REST bridge reaches the core through the same RPCs, so this table holds for its routes as well. A method that the
table does not know needs every permission.
"""

from enum import Enum
from typing import Final


class Permission(Enum):
    """A group of RPCs."""

    INFERENCE = "inference"
    """Runs models, and loads them."""
    READ = "read"
    """Lists and describes models and the server."""
    MODELS = "models"
    """Changes the store, and unloads and pins models."""
    METRICS = "metrics"
    """Reads metrics and server events, which name all models and keys, and the list of nodes."""
    REQUESTS = "requests"
    """Reads the records of past requests, with their prompts and answers: those of the caller's own key."""
    DIAGNOSTICS = "diagnostics"
    """Reads the records of all requests, and the log."""
    ADMIN = "admin"
    """Sees and cancels the requests of others, asks for usage, and has the configuration read again."""


GRANTS: Final = {
    "inference": frozenset({Permission.INFERENCE, Permission.READ}),
    "read": frozenset({Permission.READ, Permission.METRICS}),
    "models": frozenset({Permission.MODELS, Permission.READ}),
    "requests": frozenset({Permission.REQUESTS, Permission.READ}),
    "diagnostics": frozenset({Permission.DIAGNOSTICS, Permission.REQUESTS, Permission.READ, Permission.METRICS}),
    "all": frozenset(Permission),
}
"""The permissions behind each name that `puna key create --allow` takes. A key may have several names."""

OPEN: Final = frozenset({"grpc.health.v1.Health"})
"""Services without a permission: a load balancer that asks for the server's health has no key."""

_BY_SERVICE: Final = {
    "puna.v1.GenerateService": Permission.INFERENCE,
    "puna.v1.ChatService": Permission.INFERENCE,
    "puna.v1.EmbedService": Permission.INFERENCE,
    "puna.v1.TokenizeService": Permission.INFERENCE,
    "puna.v1.RankService": Permission.INFERENCE,
    "puna.v1.BatchService": Permission.INFERENCE,
    "puna.v1.FilesService": Permission.INFERENCE,
    "puna.v1.ModelsService": Permission.MODELS,
    "puna.v1.ServerService": Permission.ADMIN,
    "puna.v1.DiagnosticsService": Permission.DIAGNOSTICS,
    "xds.service.orca.v3.OpenRcaService": Permission.READ,
    "grpc.reflection.v1.ServerReflection": Permission.READ,
    "grpc.reflection.v1alpha.ServerReflection": Permission.READ,
}
_BY_METHOD: Final = {
    "puna.v1.ModelsService/ListModels": Permission.READ,
    "puna.v1.ModelsService/GetModel": Permission.READ,
    "puna.v1.ModelsService/StreamModel": Permission.READ,
    "puna.v1.ModelsService/ListLoadedModels": Permission.READ,
    "puna.v1.ModelsService/LoadModel": Permission.INFERENCE,
    "puna.v1.ModelsService/EstimateModel": Permission.INFERENCE,  # it starts a host, as a load does
    "puna.v1.ServerService/GetServerInfo": Permission.READ,
    "puna.v1.ServerService/WatchLoad": Permission.READ,
    "puna.v1.ServerService/GetMetrics": Permission.METRICS,
    "puna.v1.ServerService/ListNodes": Permission.METRICS,
    "puna.v1.DiagnosticsService/ListRequestRecords": Permission.REQUESTS,
    "puna.v1.DiagnosticsService/GetRequestRecord": Permission.REQUESTS,
    "puna.v1.DiagnosticsService/StreamServerEvents": Permission.METRICS,
    "puna.v1.ServerService/ListUsage": Permission.READ,  # of the caller's own key
}

_APART: Final = frozenset({"puna.v1.BatchService", "puna.v1.FilesService"})
"""Services that need the permission to run models, and whose calls run none."""

EXPOSURES: Final = ("generate", "chat", "embed", "tokenize", "rank", "batch", "models", "manage", "server")
"""The names that the setting `expose` takes."""
_ALWAYS_EXPOSED: Final = frozenset({"puna.v1.ServerService/GetServerInfo"})
_EXPOSURE_BY_SERVICE: Final = {
    "puna.v1.GenerateService": "generate",
    "puna.v1.ChatService": "chat",
    "puna.v1.EmbedService": "embed",
    "puna.v1.TokenizeService": "tokenize",
    "puna.v1.RankService": "rank",
    "puna.v1.BatchService": "batch",
    "puna.v1.FilesService": "batch",
    "puna.v1.ModelsService": "manage",
}


def needed(method: str) -> Permission | None:
    """Return the permission that a method needs; None if it needs none. `method` is "/package.Service/Method"."""
    name = method.removeprefix("/")
    service = name.partition("/")[0]
    if service in OPEN:
        return None
    return _BY_METHOD.get(name) or _BY_SERVICE.get(service, Permission.ADMIN)


def runs_models(method: str) -> bool:
    """Return whether a call of a method that needs the permission INFERENCE runs a model by itself."""
    return method.removeprefix("/").partition("/")[0] not in _APART


def needs_known_caller(method: str) -> bool:
    """Return whether a method is refused to other machines' callers without a key, even where others are served.

    It shows what other callers have sent, or the operator's configuration with its mistakes.
    """
    name = method.removeprefix("/")
    return name.startswith("puna.v1.DiagnosticsService/") or name == "puna.v1.ServerService/ReloadConfiguration"


def exposure(method: str) -> str:
    """Return the name in the setting `expose` that a method belongs to; empty if it is always exposed."""
    name = method.removeprefix("/")
    service = name.partition("/")[0]
    if service in OPEN or name in _ALWAYS_EXPOSED:
        return ""
    if service == "puna.v1.ModelsService" and needed(method) is Permission.READ:
        return "models"
    return _EXPOSURE_BY_SERVICE.get(service, "server")
