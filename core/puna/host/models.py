"""The loaded models of a host, by their ids, and which of them are in use.

A host that is not shared has one model, whose id is empty. A model is freed only when no call of it runs: the core
closes the stream of a model before it asks for its end, but the request may overtake the closing.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from puna.backend import LoadedModel
from puna.host.plugin_call import Raised, attempt
from puna.host.report import report_error

IDLE_SECONDS = 3.0
"""How long the calls of a model may take to end before it is freed all the same."""
END_SECONDS = 1.0
"""The same when the host ends, which has waited for the sequences by then."""


class _Entry:
    def __init__(self, model: LoadedModel, name: str) -> None:
        self.model = model
        self.name = name
        self.calls = 0
        self.idle = asyncio.Event()
        self.idle.set()


class Models:
    """The models of a host."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._entries

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def only(self) -> LoadedModel | None:
        """The model, if there is exactly one."""
        entries = list(self._entries.values())
        return entries[0].model if len(entries) == 1 else None

    def items(self) -> list[tuple[str, LoadedModel]]:
        """Return the models with their ids."""
        return [(model_id, each.model) for model_id, each in self._entries.items()]

    def add(self, model_id: str, model: LoadedModel, name: str = "") -> None:
        """Add a model that has been loaded under a name."""
        self._entries[model_id] = _Entry(model, name)

    def owner(self, model_id: str) -> str:
        """Return " of NAME" for the model of a shared host. The core knows the name of the only model of a host."""
        entry = self._entries.get(model_id) if model_id else None
        return f" of {entry.name}" if entry is not None and entry.name else ""

    @contextmanager
    def use(self, model_id: str) -> Iterator[LoadedModel]:
        """Keep a model from being freed during the block. Raises LookupError if there is none of this id."""
        entry = self._entries.get(model_id)
        if entry is None:
            raise LookupError("no model is loaded")
        entry.calls += 1
        entry.idle.clear()
        try:
            yield entry.model
        finally:
            entry.calls -= 1
            if not entry.calls:
                entry.idle.set()

    async def free(self, model_id: str, within: float = IDLE_SECONDS) -> None:
        """Free a model once none of its calls runs, or after some seconds. Does nothing if there is none of this id."""
        # Taken away before the `await`, so that a call which arrives meanwhile finds no model instead of a closed one.
        entry = self._entries.pop(model_id, None)
        if entry is None:
            return
        waiting = asyncio.ensure_future(entry.idle.wait())
        await asyncio.wait({waiting}, timeout=within)
        waiting.cancel()
        if isinstance(raised := await attempt(entry.model.aclose), Raised):
            report_error("the backend failed to free a model", raised.error)

    async def free_all(self) -> None:
        """Free every model."""
        await asyncio.gather(*(self.free(each, END_SECONDS) for each in list(self._entries)))
