import asyncio
from contextlib import closing

import pytest

from puna.batch.core import Batches
from puna.limits import Limits


class Clock:
    """Nanoseconds since 1970, as a test sets them."""

    def __init__(self):
        self.ns = 1_700_000_000_000_000_000

    def __call__(self):
        return self.ns

    def pass_(self, seconds):
        self.ns += int(seconds * 1e9)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limits():
    return Limits()


@pytest.fixture
def open_batches(tmp_path, clock, limits):
    """Return a function that opens the folder, as a server does that starts; the one before it is closed."""
    opened = []

    def open_(**changed):
        if opened:
            opened[-1]._folder.close()
        found = Batches(tmp_path / "batches", Limits(**changed) if changed else limits, clock)
        found._folder.check()
        opened.append(found)
        return found

    yield open_
    if opened:
        opened[-1]._folder.close()


def make(found, *ids, owner="", window=3600.0, alone=False):
    """Store a batch whose requests have these custom ids."""
    writer = found.store.writer(owner, local=False, long_errors=False, window=window, metadata={}, data=b"")
    with closing(writer):
        for each in ids:
            writer.add(each, each.encode(), alone=alone)
        writer.flush()
        return writer.finish()


def results(found, batch, after=0, failed=None):
    """Return index, number and payload of all results."""
    seen, offset = [], 0
    while True:
        more, following = found.store.read_results(batch, offset, after, failed=failed)
        if following == offset:
            return seen
        seen += [(each.index, each.number, each.payload) for each in more]
        offset = following


async def until(condition):
    """Wait for something that has no event to wait for."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError
