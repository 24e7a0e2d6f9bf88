"""The command `nodes`: the machines that run models for the server."""

import time
from collections.abc import Sequence
from typing import Final

from puna.cli.client import connected
from puna.cli.listing import print_json
from puna.cli.tables import human_bytes, table
from puna.paging import read_pages
from puna.settings import Settings
from puna_client.v1 import server_pb2, server_pb2_grpc

HEADERS: Final = ("NODE", "STATE", "HOSTS", "FREE", "LEASE", "LOST", "ERROR")
STATES: Final = {
    server_pb2.NODE_STATE_CONNECTED: "connected",
    server_pb2.NODE_STATE_CONNECTING: "connecting",
    server_pb2.NODE_STATE_DISCONNECTED: "disconnected",
}


async def list_nodes(settings: Settings, *, as_json: bool) -> None:
    """Print the nodes of the server, by address."""
    async with connected(settings) as channel:
        stub = server_pb2_grpc.ServerServiceStub(channel)
        found = (await read_pages(stub.ListNodes, server_pb2.ListNodesRequest())).nodes
    if as_json:
        print_json(found)
        return
    print(render(found, time.time()))


def render(nodes: Sequence[server_pb2.NodeInfo], now: float) -> str:
    """Return the table. `now` is in seconds since 1970."""
    return table(HEADERS, [_row(each, now) for each in nodes])


def _row(node: server_pb2.NodeInfo, now: float) -> tuple[str, ...]:
    """Return the cells of a node. The lease is the number of seconds that are left of it."""
    lease = "-"
    if node.HasField("lease_expire_time"):
        lease = f"{max(node.lease_expire_time.ToNanoseconds() / 1e9 - now, 0.0):.1f} s"
    return (
        node.address,
        STATES.get(node.state, "-"),
        str(node.hosts),
        human_bytes(node.free_memory_bytes) if node.free_memory_bytes else "-",
        lease,
        str(node.lost_count),
        node.error or "-",
    )
