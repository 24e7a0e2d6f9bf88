"""A host that serves several models: all of its backend, or those that have the same weights.

Weights take most of a model's memory, and adapters little. A backend whose manifest says `shares_weights` loads models
that have the same weights and differ in their adapters in one host, where the weights are in memory once. Each model
has its own id, Run stream and KV cache there, so it is loaded, leased and evicted as any other.
"""

import asyncio
import json
import logging
from typing import Final

import grpc
import grpc.aio

from puna.backend import ModelSpec
from puna.backend.v1 import backend_pb2 as wire
from puna.plugins import Plugin
from puna.runtime.host_connection import HostConnection

log = logging.getLogger(__name__)

UNLOAD_SECONDS: Final = 5.0
"""How long a shared host may take to free a model before the model is left behind in it."""


def weights_of(spec: ModelSpec) -> str:
    """Return the identity of a model's weights in memory: models of equal identities can share them.

    Empty if they cannot be shared, because the model has no file or several.
    """
    if not spec.path or spec.files:
        return ""
    placed = (spec.format, spec.path, spec.gpu_layers, spec.main_gpu, spec.use_mmap)
    return json.dumps([*placed, sorted(spec.backend_options.items())])


class SharedHost:
    """A host that serves several models. It ends when the last of them is released."""

    def __init__(self, backend: Plugin, host: HostConnection) -> None:
        self.backend = backend
        """The backend as it was when the host started."""
        self._host = host
        self._models: set[str] = set()
        """The ids of the models that it serves."""
        self._ended = False

    @property
    def usable(self) -> bool:
        """True while another model can be loaded in it."""
        return not self._ended and not self._host.process.ended

    def join(self, model_id: str) -> HostConnection:
        """Return the connection of one more model."""
        self._models.add(model_id)
        host = self._host
        return HostConnection(host.endpoint, host.channel, lambda: self._leave(model_id), model_id)

    async def _leave(self, model_id: str) -> None:
        """Free a model, and end the host after the last one. Does nothing for a model that has left."""
        if model_id not in self._models:
            return
        self._models.remove(model_id)
        if not self._models:
            # Ending the host frees the model too. Set before the `await`, so that no other model joins meanwhile.
            self._ended = True
            await self._host.release()
        elif not self._host.process.ended:
            await self._unload(model_id)

    async def _unload(self, model_id: str) -> None:
        try:
            await self._host.stub.Unload(wire.UnloadRequest(model_id=model_id), timeout=UNLOAD_SECONDS)
        except grpc.aio.AioRpcError as error:
            if not self._host.process.ended:
                log.error(
                    "%s: %s has not freed one: %s",
                    self._host.process.label,
                    self._host.process.title,
                    error.details(),
                )
        # The channel was closed, since the last of the other models has been released meanwhile.
        except (grpc.aio.UsageError, asyncio.CancelledError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
