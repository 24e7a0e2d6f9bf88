"""Publishes the stages of a sequence: its wait for a slot, its prefill and its decoding."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from puna import events
from puna.backend import ChatDelta, Finish, SequenceEvent, TextDelta


class SequenceStages:
    """Notes when the stages of one sequence begin, and publishes them when the sequence ends.

    AdmittedModel uses it only if an event's listener wants the stages, so that other sequences pay nothing.
    """

    def __init__(self, on_position: Callable[[int], None]) -> None:
        """`on_position` is called with positions in the queue for a slot."""
        self._on_position = on_position
        self._begun_ns = time.time_ns()
        self._waited = False
        self._slot_ns = 0
        self._first_ns = 0
        self._finish: Finish | None = None

    def on_position(self, position: int) -> None:
        """Note that the sequence waits, and pass its position on."""
        self._waited = True
        self._on_position(position)

    def on_slot(self) -> None:
        """Note that the sequence has a slot."""
        self._slot_ns = time.time_ns()

    async def observing(self, source: AsyncGenerator[SequenceEvent]) -> AsyncGenerator[SequenceEvent]:
        """Yield the events of the sequence. Closing this generator closes `source` first."""
        error = ""
        try:
            async with aclosing(source):
                async for event in source:
                    if not self._first_ns and isinstance(event, TextDelta | ChatDelta):
                        self._first_ns = time.time_ns()
                    elif isinstance(event, Finish):
                        self._finish = event
                    yield event
        except BaseException as failure:
            # Readers close the generator as soon as they have the Finish.
            error = "" if self._finish is not None else events.reason_of(failure)
            raise
        finally:
            self._publish(error)

    def _publish(self, error: str) -> None:
        now, finish = time.time_ns(), self._finish
        if self._waited:
            events.publish_stage("queue", self._begun_ns, self._slot_ns or now, "" if self._slot_ns else error)
        if not self._slot_ns:
            return
        prompt = {"prompt_tokens": finish.prompt_tokens, "cached_tokens": finish.cached_prompt_tokens} if finish else {}
        prefilled = self._first_ns or now
        events.publish_stage("prefill", self._slot_ns, prefilled, "" if self._first_ns else error, **prompt)
        if self._first_ns:
            output = {"output_tokens": finish.output_tokens} if finish else {}
            events.publish_stage("decode", self._first_ns, now, error, **output)
