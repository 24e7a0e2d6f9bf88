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

from puna.cli.nodes import list_nodes, render
from puna_client.v1 import server_pb2

__all__ = ["address", "backend", "batches", "client", "registry", "serving", "settings", "shared", "stocked"]

NOW = 1_000_000.0


def test_the_table_has_a_row_for_each_node():
    here = server_pb2.NodeInfo(
        address="gpu1:11436", state=server_pb2.NODE_STATE_CONNECTED, hosts=2, free_memory_bytes=5_500_000_000
    )
    here.lease_expire_time.FromNanoseconds(int((NOW + 9.6) * 1e9))
    gone = server_pb2.NodeInfo(
        address="gpu2:11436", state=server_pb2.NODE_STATE_DISCONNECTED, lost_count=3, error="it does not answer"
    )
    lines = [" ".join(line.split()) for line in render([here, gone], NOW).splitlines()]
    assert lines == [
        "NODE STATE HOSTS FREE LEASE LOST ERROR",
        "gpu1:11436 connected 2 5.5 GB 9.6 s 0 -",
        "gpu2:11436 disconnected 0 - - 3 it does not answer",
    ]


async def test_a_server_without_nodes_has_none(client, capsys):
    await list_nodes(client, as_json=True)
    assert capsys.readouterr().out == "[]\n"
