import json
from dataclasses import replace

import pytest
from tests.core.cli.serving import (
    address,
    backend,
    batches,
    client,
    registry,
    serving,
    settings,
    shared,
    stocked,
)

from puna.cli.listing import list_loaded, nodes, print_json, processor, replicas
from puna_client.v1 import models_pb2

__all__ = ["address", "backend", "batches", "client", "registry", "serving", "settings", "shared", "stocked"]


@pytest.mark.parametrize(
    ("size", "vram", "share"),
    [
        (100, 0, "100% CPU"),
        (0, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 120, "100% GPU"),
        (100, 25, "75%/25% CPU/GPU"),
        (3, 1, "67%/33% CPU/GPU"),
    ],
)
def test_the_share_of_processors_in_a_model_s_memory(size, vram, share):
    assert processor(size, vram) == share


@pytest.mark.parametrize(
    ("places", "starting", "cells"),
    [
        ([""], 0, ("1", "-")),
        (["gpu1:7"], 0, ("1", "gpu1:7")),
        (["gpu1:7", "gpu2:7", "gpu1:7"], 0, ("3", "gpu1:7,gpu2:7")),
        (["gpu1:7", "gpu2:7"], 1, ("2/3", "gpu1:7,gpu2:7")),
        ([], 0, ("0", "-")),
    ],
)
def test_the_replicas_and_nodes_of_a_model(places, starting, cells):
    model = models_pb2.LoadedModel(starting_replicas=starting)
    for place in places:
        model.replicas.add(node=place)
    assert (replicas(model), nodes(model)) == cells


async def test_columns_appear_when_they_say_something(client, serving, monkeypatch, capsys):
    await serving.load("plain")
    plain, _ = await headers(client, capsys)
    assert plain == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL", "BACKEND"]
    (entry,) = serving.loaded()
    (replica,) = entry.replicas
    spread = replace(entry, queued=2, replicas=(replace(replica, node="gpu1:7"), replace(replica, node="gpu2:7")))
    monkeypatch.setattr(serving, "loaded", lambda: [spread])
    more, row = await headers(client, capsys)
    assert more == [*plain, "QUEUE", "REPLICAS", "NODE"]
    assert row[-3:] == ["2", "2", "gpu1:7,gpu2:7"]


async def headers(client, capsys):
    await list_loaded(client, "", as_json=False)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_scripts_get_one_array_with_the_names_of_the_proto(capsys):
    print_json([models_pb2.Model(name="m", size_bytes=1)])
    assert json.loads(capsys.readouterr().out) == [{"name": "m", "size_bytes": "1"}]
    print_json([])
    assert json.loads(capsys.readouterr().out) == []
