"""A server in the test's process, as `puna serve` starts it, whose models do what the test says."""

import pytest
from tests.core.rpc.conftest import backend, registry, serving, settings, stocked

from puna.auth.gate import Gate
from puna.rpc.server import serving as running

__all__ = ["backend", "registry", "serving", "settings", "stocked"]


@pytest.fixture
async def address(serving):
    async with running(serving, "127.0.0.1:0", gate=Gate()) as bound:
        yield bound
