"""The options of channels: one set for both clients."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message

SERVICE_CONFIG: Final = (resources.files("puna_client") / "service_config.json").read_text()
"""Retries, timeouts, health checks and balancing, as proto/README.md describes them."""
LARGEST_MESSAGE: Final = 64 << 20
"""Bytes of the largest message that a client receives. gRPC's own limit is 4 MiB."""


def options(service_config: str, more: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the options of a channel; later ones count."""
    return [
        ("grpc.service_config", service_config),
        ("grpc.max_receive_message_length", LARGEST_MESSAGE),
        # Routers and firewalls forget connections that are silent, as in a long prefill.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        *more,
    ]


def credentials(tls: bool | grpc.ChannelCredentials) -> grpc.ChannelCredentials | None:
    """Return the credentials of a channel. None: without TLS."""
    return grpc.ssl_channel_credentials() if tls is True else tls or None


def tls(
    ca: str | Path | None = None, certificate: str | Path | None = None, key: str | Path | None = None
) -> grpc.ChannelCredentials:
    """Return credentials for TLS from PEM files.

    `ca` holds the authorities that may sign the server's certificate; None: those that gRPC knows. `certificate` and
    `key` are the client's own, for mutual TLS.
    """
    return grpc.ssl_channel_credentials(*(Path(each).read_bytes() if each else None for each in (ca, key, certificate)))


def metadata(key: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of each call."""
    return (("authorization", f"Bearer {key}"),) if key else ()


def serialized(message: Message) -> bytes:
    """Return the encoded form of a request."""
    return message.SerializeToString()
