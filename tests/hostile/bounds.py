"""The conditions that hold while a server is attacked and after it: it answers others, and its memory comes back."""

import contextlib
import threading
import time
import urllib.request
from pathlib import Path

from tests.e2e.server import parents

ANSWER_WITHIN = 0.1
"""Seconds in which /api/version is answered once an attack is over."""
MEMORY_RETURNS_TO = 1.2
SLACK = 48 << 20
"""Bytes that allocators keep and first uses load; a small server would otherwise fail by a page or two."""


def resident(server):
    """Return the bytes of memory of the server and of everything that it started."""
    tree = parents()
    family = {server.process.pid}
    while more := {pid for pid, parent in tree.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            total += sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:"))
    return total


def ping(server, timeout=30.0):
    """Return the seconds that /api/version takes."""
    start = time.perf_counter()
    with urllib.request.urlopen(server.url + "/api/version", timeout=timeout) as answer:
        assert answer.status == 200
        answer.read()
    return time.perf_counter() - start


class Watch:
    """Pings a server beside an attack, and keeps the highest memory that it saw."""

    def __init__(self, server):
        self._server = server
        self._stop = threading.Event()
        self.slowest = 0.0
        self.highest = 0
        self.failure = None

    def run(self):
        """Ping until the attack is over."""
        while not self._stop.wait(0.05):
            try:
                self.slowest = max(self.slowest, ping(self._server))
            except OSError as error:
                self.failure = error
                return
            self.highest = max(self.highest, resident(self._server))

    def stop(self):
        """End the pinging."""
        self._stop.set()


@contextlib.contextmanager
def unharmed(server, *, within=1.0, memory=512 << 20):
    """Attack in this block; fail unless others were served meanwhile and all is as before soon after.

    within: seconds that a ping may take during the attack. Two busy cores make even an idle loop late; a blocked one is
    later by far. memory: bytes by which the server, hosts included, may grow meanwhile.
    """
    before = resident(server)
    watch = Watch(server)
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        thread.join(60)
    assert watch.failure is None, f"the server stopped answering: {watch.failure}"
    assert watch.slowest <= within, f"a ping took {watch.slowest:.2f} s during the attack"
    assert watch.highest - before <= memory, f"memory grew by {(watch.highest - before) >> 20} MiB"
    deadline = time.monotonic() + 15
    while True:
        late, kept = ping(server) > ANSWER_WITHIN, resident(server) > before * MEMORY_RETURNS_TO + SLACK
        if not (late or kept):
            return
        assert time.monotonic() < deadline, f"afterwards: pings late: {late}, memory kept: {kept}"
        time.sleep(0.25)
