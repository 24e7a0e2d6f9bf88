"""Speaks HTTP to one upstream, through the package `openai`.

The package retries what failed before an answer began: a refused connection, 408, 409, 429 and 5xx, with pauses that
the upstream may name. It takes the events of a stream apart. This module adds what it leaves open: an end to waiting,
bounds on sizes, and one more try for a stream that breaks before its first event.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
from openai import AsyncOpenAI, AsyncStream

from puna.backend import request_metadata
from puna_openai.answers import NonsenseError
from puna_openai.bounds import EVENT_STREAM, BoundedTransport
from puna_openai.failures import FAILURES, CutError, StalledError, is_transient
from puna_openai.upstream import Upstream

NO_KEY = "none"
"""The package demands a key, and servers without keys ignore it."""


class UpstreamClient:
    """A client of one upstream. Its connections are shared by all models there."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        # The package would read the address, the key and more headers from variables that are not meant for this
        # upstream, so all of them are given.
        self._client = AsyncOpenAI(
            api_key=upstream.api_key or NO_KEY,
            base_url=upstream.base_url,
            organization="",
            project="",
            max_retries=upstream.retries,
            default_headers={"Accept-Encoding": "identity", **upstream.headers},
            # Waiting has an end in this module. The package's own timeouts begin anew with each retry.
            timeout=httpx2.Timeout(None, connect=upstream.connect_timeout),
            http_client=httpx2.AsyncClient(
                transport=BoundedTransport(upstream.max_event_bytes, upstream.max_response_bytes),
                # A redirect would send the conversation to a server that the operator did not name.
                follow_redirects=False,
                timeout=None,
            ),
        )

    async def events(self, body: Mapping[str, Any]) -> AsyncGenerator[object]:
        """Yield the events of a streamed chat completion as JSON values. Closing the generator hangs up.

        Raises StalledError, CutError if no event comes, NonsenseError, and what the package raises.
        """
        # One deadline for all tries, since the client waits for all of them.
        first_by = _after(self._upstream.timeout)
        for tries_left in range(self._upstream.retries, -1, -1):
            begun = False
            try:
                async with aclosing(self._events(body, first_by)) as events:
                    async for event in events:
                        begun = True
                        yield event
                if begun:
                    return
                raise CutError
            except FAILURES as error:
                # With a part of the answer passed on, a second try would write it twice.
                if begun or not tries_left or not is_transient(error):
                    raise

    async def _events(self, body: Mapping[str, Any], first_by: float) -> AsyncGenerator[object]:
        """Yield the events of one try, the first before the moment `first_by` of the loop's clock."""
        upstream = self._upstream
        async with _ending(first_by, upstream.timeout, begun=False):
            stream = await self._client.post(
                "/chat/completions",
                cast_to=object,
                body=body,
                options={"headers": self._headers()},
                stream=True,
                stream_cls=AsyncStream[object],
            )
        async with stream:
            kind = stream.response.headers.get("content-type", "")
            if not kind.startswith(EVENT_STREAM):
                raise NonsenseError(f"it is of type {kind.partition(';')[0][:50]!r} and no stream of events")
            iterator = aiter(stream)
            deadline, seconds, begun = first_by, upstream.timeout, False
            while True:
                try:
                    async with _ending(deadline, seconds, begun=begun):
                        event = await anext(iterator)
                except StopAsyncIteration:
                    return
                yield event
                deadline, seconds, begun = _after(upstream.stall_timeout), upstream.stall_timeout, True

    async def embeddings(self, body: Mapping[str, Any]) -> object:
        """Return the answer of the embeddings method as a JSON value."""
        async with _ending(_after(self._upstream.timeout), self._upstream.timeout, begun=False):
            return await self._client.post(
                "/embeddings", cast_to=object, body=body, options={"headers": self._headers()}
            )

    def _headers(self) -> dict[str, str]:
        """Return headers with the id and the trace of the current request. Those that the operator configured win."""
        configured = {name.lower() for name in self._upstream.headers}
        return {name: value for name, value in request_metadata().items() if name not in configured}

    async def models(self) -> object:
        """Return the list of the upstream's models as a JSON value."""
        async with _ending(_after(self._upstream.list_timeout), self._upstream.list_timeout, begun=False):
            return await self._client.with_options(max_retries=0).get("/models", cast_to=object)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


def _after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def _ending(deadline: float, seconds: float, *, begun: bool) -> AsyncGenerator[None]:
    """Raise StalledError if the block lasts beyond a moment of the loop's clock. `seconds` stands in its text."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise StalledError(seconds, begun=begun) from None
