"""Stands for puna.runtime.ray_driver and a cluster of two machines, both of which are this one.

RAY_STUB says what it does: "refuse" the connection, answer "nonsense", be "full", be "silent" after the first listing,
be "slow" to connect (until RAY_STUB_OPEN exists), never "answer" a start, leave it "placed", or end at the first one
("end once"). RAY_STUB_LOG is a file that hears every request. Told to wait for the head, it waits until RAY_STUB_OPEN
exists, if that is set.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from puna.runtime.ray_actor import HostActor

MODE = os.environ.get("RAY_STUB", "")
EACH = {"cpus": 2.0, "gpus": 0.0, "memory_bytes": 1000}
LARGE = {"cpus": 2.0, "gpus": 0.0, "memory_bytes": 9000}
NODES = [
    {"id": "n1", "host": "127.0.0.1", "free": EACH, "total": LARGE},
    {"id": "n2", "host": "127.0.0.1", "free": LARGE, "total": LARGE},
]


def write(message):
    # In one piece, since two threads write.
    sys.stdout.write(f"{json.dumps(message) if isinstance(message, dict) else message}\n")
    sys.stdout.flush()


def main():
    # Nodes outlive this process and would hold its pipe open; those of Ray have its log.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with Path(os.environ["RAY_STUB_LOG"]).open("a") as log:
        log.write(json.dumps({"address": sys.argv[1], "pid": os.getpid()}) + "\n")
        log.flush()
        if "wait" in sys.argv and (path := os.environ.get("RAY_STUB_OPEN")):
            wait_for(Path(path))
        if "wait" in sys.argv:
            write({"event": "reached"})
        if MODE == "slow" and (path := os.environ.get("RAY_STUB_OPEN")):
            wait_for(Path(path))
        if MODE == "refuse":
            write({"event": "failed", "error": "no cluster here"})
            return
        write({"event": "connected", "address": os.environ["RAY_STUB_HEAD"], "local": False})
        write({"event": "nodes", "nodes": NODES})
        if MODE == "nonsense":
            write("no json")
            time.sleep(60)
        if MODE != "silent":
            threading.Thread(target=live, daemon=True).start()
        serve(log)


def wait_for(path):
    while not path.exists():
        time.sleep(0.02)


def serve(log):
    actors = {}
    for line in sys.stdin:
        request = json.loads(line)
        log.write(line)
        log.flush()
        key = request["id"]
        if request.get("end"):
            if key in actors:
                actors.pop(key)._node.stdin.close()
        elif MODE == "end once" and "wait" not in sys.argv:
            os._exit(1)
        elif MODE == "full":
            write({"id": key, "error": "no room", "full": True})
        elif MODE not in ("silent", "answer"):
            actors[key] = HostActor()
            wanted = request["start"]
            write({"id": key, "placed": "n1"})
            if MODE == "placed":
                continue
            head = os.environ["RAY_STUB_HEAD"]
            address = actors[key].start("127.0.0.1", head, wanted["certificate"], wanted["lease_seconds"])
            write({"id": key, "node_id": "n1", "address": address, "gpu_ids": ["0"]})


def live():
    """Tell that the head answers, for as long as this process lives: starting a node may take long."""
    while True:
        time.sleep(0.5)
        write({"event": "alive"})


main()
