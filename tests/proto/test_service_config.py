"""proto/service_config.json names methods that exist, and repeats only calls that may be repeated."""

import json
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

from puna.rpc.server import SERVICES

CONFIG = json.loads((Path(__file__).parents[2] / "proto/service_config.json").read_text())
METHODS = [method for service in SERVICES for method in descriptor_pool.Default().FindServiceByName(service).methods]
ANSWERS = ("Generate", "StreamGenerate", "Chat", "StreamChat")
"""Methods that are not idempotent, since each call samples anew. Repeating one does no harm."""


def configured(method):
    """Return the configuration of a method: its own, or that of its service."""
    service = {"service": method.containing_service.full_name}
    for name in (service | {"method": method.name}, service):
        for each in CONFIG["methodConfig"]:
            if name in each["name"]:
                return each
    return {}


def test_all_names_exist():
    known = {(method.containing_service.full_name, method.name) for method in METHODS}
    for each in (name for config in CONFIG["methodConfig"] for name in config["name"]):
        assert (each["service"], each.get("method")) in known or ("method" not in each and each["service"] in SERVICES)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_what_only_reads_is_repeated_and_what_changes_is_not(method):
    level = method.GetOptions().idempotency_level
    repeated = "retryPolicy" in configured(method)
    if level == MethodOptions.NO_SIDE_EFFECTS and not method.server_streaming:
        assert repeated
    if repeated:
        assert level != MethodOptions.IDEMPOTENCY_UNKNOWN or method.name in ANSWERS
        assert not method.client_streaming or level == MethodOptions.IDEMPOTENT
