"""Runs a Ray cluster on this machine, whose nodes are added by lines of the input, until the input ends."""

import json
import os
import sys

from ray.cluster_utils import Cluster

OBJECT_BYTES = 80 << 20
ATTEMPTS = 3


def add(cluster, wanted):
    """Add a node. Ray gives one up whose agents have not started within 15 s, so it may need several attempts."""
    for attempt in range(ATTEMPTS):
        try:
            return cluster.add_node(
                num_cpus=wanted["cpus"],
                num_gpus=wanted.get("gpus", 0),
                object_store_memory=OBJECT_BYTES,
                include_dashboard=False,
                node_ip_address="127.0.0.1",
                **({"gcs_server_port": wanted["port"]} if "port" in wanted else {}),
            )
        except Exception:
            # A head that has not started leaves nothing to join; the caller starts this program again.
            if attempt == ATTEMPTS - 1 or cluster.head_node is None:
                raise
    return None


def main():
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cluster = Cluster()
    head = None
    for line in sys.stdin:
        node = add(cluster, json.loads(line))
        processes = {kind: found[0].process.pid for kind, found in node.all_processes.items()}
        head = head or processes["gcs_server"]
        output.write(json.dumps({"address": cluster.address, "head": head, "raylet": processes["raylet"]}) + "\n")
        output.flush()
    cluster.shutdown()


if __name__ == "__main__":
    main()
