"""The gate in front of the servicers: each call is admitted, and its caller is set, before its message is read.

A wrapper of handlers and not a gRPC interceptor, so that it also stands in front of the channel inside the process,
through which the REST bridge calls.
"""

import inspect
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack
from typing import Any, Final

from puna import events
from puna.auth.caller import Caller, enter
from puna.auth.gate import Gate
from puna.auth.permissions import Permission, needed
from puna.backend.metadata import enter_request
from puna.errors import PunaError
from puna.request_log import call_id, choose_call_id, http_route
from puna.rpc.error_boundary import Context, refuse
from puna.rpc.handlers import Behaviour, wrapped
from puna.rpc.load_reports import LoadReports

REQUEST_ID: Final = "x-request-id"
"""Metadata with the id of a call, from the client and in the answer."""
_UNIX: Final = ("unix:", "unix-abstract:")
"""How gRPC names the peer of a Unix socket."""


class Admission:
    """Puts the gate in front of the handlers of a server or channel."""

    def __init__(self, gate: Gate, *, bridge: bool, reports: LoadReports | None = None) -> None:
        """`bridge`: whether the calls come from this process's REST bridge.

        `reports` makes the load reports in the trailers of calls that run a model; without it there are none.
        """
        self._gate = gate
        self._bridge = bridge
        self._reports = reports

    def guarding(self, service: str, handlers: Mapping[str, Any]) -> dict[str, Any]:
        """Return the handlers of a service behind the gate."""
        return wrapped(handlers, lambda name, behaviour: self._admitting(f"/{service}/{name}", behaviour))

    def _admitting(self, method: str, behaviour: Behaviour) -> Behaviour:
        reports = self._reports if needed(method) is Permission.INFERENCE else None

        async def serve(request: object, context: Context) -> Any:  # noqa: ANN401 - any method's answer
            with ExitStack() as counted:
                metadata = dict(context.invocation_metadata() or ())
                identified = self._identified(metadata, context)
                try:
                    caller = self._admitted(method, metadata, context)
                    counted.enter_context(self._gate.counted(method, caller))
                except PunaError as error:
                    self._publish(method, metadata, error)
                    await refuse(context, error)
                enter(caller)
                answer = await behaviour(request, identified)
                if reports is not None:
                    context.set_trailing_metadata((reports.trailer(),))
                if identified is not context:
                    await identified.send_id()
                return answer

        async def generate(request: object, context: Context) -> AsyncGenerator[Any]:
            metadata = dict(context.invocation_metadata() or ())
            identified = self._identified(metadata, context)
            try:
                enter(self._admitted(method, metadata, context))
            except PunaError as error:
                self._publish(method, metadata, error)
                await refuse(context, error)
            async for each in behaviour(request, identified):
                if identified is not context:
                    await identified.send_id()
                yield each

        return generate if inspect.isasyncgenfunction(behaviour) else serve

    def _identified(self, metadata: Mapping[str, Any], context: Any) -> Any:  # noqa: ANN401 - a context of gRPC
        """Choose the id of the call; return a context that tells the client."""
        given = metadata.get(REQUEST_ID, "")
        chosen = choose_call_id(given if isinstance(given, str) else "")
        enter_request({**metadata, REQUEST_ID: chosen})
        # The bridge tells its client by itself.
        return context if self._bridge else _IdentifiedContext(context, chosen)

    def _publish(self, method: str, metadata: Mapping[str, Any], error: PunaError) -> None:
        """Publish that a call was refused, if it came with a known key."""
        if events.wanted(events.CallRefused) and (key := self._gate.key_of(metadata)) is not None:
            service, _, name = method.removeprefix("/").partition("/")
            events.publish(
                events.CallRefused(
                    id=call_id(),
                    service=service,
                    method=name,
                    key=key.name,
                    key_id=key.id,
                    http_route=http_route(),
                    reason=error.reason,
                    error=str(error),
                )
            )

    def _admitted(self, method: str, metadata: Mapping[str, Any], context: Context) -> Caller:
        """Return the caller of a call. Raises what Gate.admit raises."""
        local = not self._bridge and context.peer().startswith(_UNIX)
        return self._gate.admit(method, metadata, local=local, bridge=self._bridge)


class _IdentifiedContext:
    """A call's context that sends the call's id in initial metadata, right before the first message.

    A client repeats a failed call by its retry policy only if it has received no initial metadata. So a call that fails
    before its first message must send none: its answer is then a status alone.
    """

    def __init__(self, context: Context, id_: str) -> None:
        self._context = context
        self._id = id_
        self._sent = False
        self.disable_next_message_compression = context.disable_next_message_compression

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)

    async def write(self, message: object) -> None:
        """Send the first message, and have gRPC's own context send the others."""
        await self.send_id()
        # Writing is the path of every token.
        self.write = self._context.write  # type: ignore[method-assign]
        await self.write(message)

    async def send_id(self) -> None:
        """Send the id, unless it was sent."""
        if not self._sent:
            self._sent = True
            await self._context.send_initial_metadata(((REQUEST_ID, self._id),))
