"""A server in the test's process, whose models do what the test says."""

from tests.core.rpc.conftest import address, backend, batches, registry, serving, settings, stocked

__all__ = ["address", "backend", "batches", "registry", "serving", "settings", "stocked"]
