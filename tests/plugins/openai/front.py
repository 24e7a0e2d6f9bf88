"""A server that speaks OpenAI's API and misbehaves on demand, for the tests of the backend.

The model's name in a request chooses what happens: "fault:cut" cuts the stream, for example. Every request is kept.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

KEY = "sk-secret-0123456789"
CREATED = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chunk(delta: dict[str, Any] | None = None, *, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return an event of a streamed chat completion."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason} | more
    return CREATED | {"choices": [choice]}


USAGE = CREATED | {
    "choices": [],
    "usage": {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}},
}


def call(index: int | None, arguments: str | dict[str, Any], *, name: str = "", id_: str = "") -> dict[str, Any]:
    """Return a fragment of a tool call."""
    fragment: dict[str, Any] = {"function": {"arguments": arguments}}
    if index is not None:
        fragment["index"] = index
    if name:
        fragment["function"]["name"] = name
    if id_:
        fragment |= {"id": id_, "type": "function"}
    return chunk({"tool_calls": [fragment]})


def entry(token: str, logprob: float, raw: list[int] | None = None) -> dict[str, Any]:
    """Return a token's log-probability."""
    return {"token": token, "logprob": logprob, "bytes": raw, "top_logprobs": []}


HELLO = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"})]
END = [chunk(reason="stop"), USAGE]

ANSWERS: dict[str, list[dict[str, Any]]] = {
    "hello": [*HELLO, *END],
    "long": [*HELLO, chunk(reason="length"), USAGE],
    "stopped": [*HELLO, chunk(reason="stop", stop_reason="\n\n"), USAGE],
    "no-usage": [*HELLO, chunk(reason="stop")],
    "refusal": [chunk({"refusal": "I cannot."}), *END],
    "reasoning_content": [chunk({"reasoning_content": "Hm."}), chunk({"content": "Yes."}), *END],
    "reasoning": [chunk({"reasoning": "Hm."}), chunk({"content": "Yes."}), *END],
    "tools": [
        call(0, "", name="weather", id_="call_a"),
        call(0, '{"city": "Par'),
        call(0, 'is"}'),
        call(1, "", name="time", id_="call_b"),
        call(1, "{}"),
        chunk(reason="tool_calls"),
        USAGE,
    ],
    "tools-repeated-name": [
        call(0, '{"a":', name="f", id_="x"),
        call(0, "1}", name="f", id_="x"),
        chunk(reason="tool_calls"),
    ],
    "tools-without-index": [
        call(None, '{"a": 1}', name="f", id_="x"),
        call(None, '{"a": 2}', name="f", id_="y"),
        chunk(reason="tool_calls"),
    ],
    "tools-object": [call(0, {"a": 1}, name="f", id_="x"), chunk(reason="tool_calls")],
    "tools-no-arguments": [call(0, "", name="f", id_="x"), chunk(reason="tool_calls")],
    "logprobs": [
        chunk({"content": "é"}, logprobs={"content": [entry("\\xc3", -0.5, [0xC3]), entry("\\xa9", -0.25, [0xA9])]}),
        chunk(
            {"content": "!"},
            logprobs={"content": [entry("!", -1.5) | {"top_logprobs": [entry("!", -1.5), entry("?", -2.0)]}]},
        ),
        *END,
    ],
    "fault:bad-arguments": [call(0, '{"city": ', name="weather", id_="x"), chunk(reason="tool_calls")],
    "fault:array-arguments": [call(0, "[1]", name="weather", id_="x"), chunk(reason="tool_calls")],
    "fault:nameless-call": [call(0, "{}", id_="x"), chunk(reason="tool_calls")],
    "fault:many-calls": [call(number, "{}", name="f", id_=str(number)) for number in range(200)],
    "fault:number-content": [chunk({"content": 7}), *END],
    "fault:text-choices": [CREATED | {"choices": "abc"}, *END],
    "fault:nan-logprob": [chunk({"content": "a"}, logprobs={"content": [entry("a", float("nan"))]}), *END],
    "fault:error-event": [{"error": {"message": f"engine died, key {KEY}", "type": "server_error"}}],
    "fault:late-error-event": [*HELLO, {"error": {"message": "engine died", "type": "server_error"}}],
    "fault:no-reason": HELLO,
    "empty": [],
}
STATUSES: dict[str, tuple[int, Any]] = {
    "fault:400": (400, {"error": {"message": f"bad temperature; you sent {KEY}", "type": "invalid_request_error"}}),
    "fault:401": (401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}),
    "fault:403": (403, {"error": {"message": f"key {KEY} may not do this"}}),
    "fault:404": (404, {"error": {"message": "The model does not exist", "code": "model_not_found"}}),
    "fault:429": (429, {"error": {"message": "Rate limit reached", "type": "requests"}}),
    "fault:500": (500, {"error": {"message": "CUDA error"}}),
    "fault:502": (502, "<html><body>Bad gateway at 10.0.0.7</body></html>"),
    "fault:detail": (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}),
    "fault:too-long-vllm": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 512 tokens. However, you requested 700 tokens.",
        },
    ),
    "fault:too-long-llama": (
        400,
        {
            "error": {
                "message": "request (700 tokens) exceeds the available context size (512 tokens)",
                "n_prompt_tokens": 700,
                "n_ctx": 512,
            }
        },
    ),
    "fault:redirect": (302, ""),
}


class Front:
    """The server's state: the requests that came, and the streams that clients closed before their end."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, CIMultiDict[str], Any]] = []
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.failures_left = 0
        """How many of the next requests for "flaky" and the like fail."""
        self.url = ""
        self.embed: Callable[[list[Any]], Any] = lambda inputs: {
            "data": [{"index": i, "embedding": [float(len(text)), 3.0]} for i, text in enumerate(inputs)],
            "usage": {"prompt_tokens": 10},
        }
        self.models: Any = {"object": "list", "data": [{"id": "a"}, {"id": "org/b:7b"}, {"id": "tts-1"}]}
        self.models_status = 200

    @property
    def bodies(self) -> list[Any]:
        """The bodies of the requests."""
        return [body for _, _, body in self.requests]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat completion."""
        body = await request.json()
        self.requests.append((request.path, request.headers.copy(), body))
        self.asked.set()
        model = body["model"]
        if model in ("flaky", "flaky-cut", "flaky-silent") and self.failures_left:
            self.failures_left -= 1
            if model.startswith("flaky") and model != "flaky-cut":
                return web.json_response({"error": {"message": "try again"}}, status=503, headers={"retry-after": "0"})
            return await self._cut(request, [])
        if model in STATUSES:
            status, text = STATUSES[model]
            headers = {"retry-after": "0", "location": "http://127.0.0.1:1/elsewhere"}
            if isinstance(text, str):
                return web.Response(status=status, text=text, content_type="text/html", headers=headers)
            return web.json_response(text, status=status, headers=headers)
        special = await self._special(request, model)
        return special or await self._streamed(request, ANSWERS.get(model, ANSWERS["hello"]))

    async def _special(self, request: web.Request, model: str) -> web.StreamResponse | None:
        if model == "fault:cut":
            return await self._cut(request, HELLO)
        if model == "fault:html":
            return web.Response(text="<html>Welcome</html>", content_type="text/html")
        if model == "fault:json":
            return web.json_response({"choices": [{"message": {"content": "not streamed"}}]})
        if model == "fault:nonsense":
            return await self._raw(request, b"data: {this is no JSON\n\n")
        if model == "fault:not-utf-8":
            return await self._raw(request, b"data: \xff\xfe\xfd\n\n")
        if model == "fault:huge-line":
            return await self._raw(request, b'data: {"x": "' + b"x" * (8 << 20))
        if model == "fault:compressed":
            return await self._raw(request, b"\x1f\x8b", {"content-encoding": "gzip"})
        if model in ("stalled", "silent", "flaky-silent", "endless"):
            return await self._stalled(request, model)
        return None

    async def _stream(self, request: web.Request, more: dict[str, str] | None = None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **(more or {})})
        await response.prepare(request)
        return response

    async def _streamed(self, request: web.Request, events: list[dict[str, Any]]) -> web.StreamResponse:
        response = await self._stream(request)
        for event in events:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        if not request.path.endswith("cut"):
            await response.write(b"data: [DONE]\n\n")
        return response

    async def _raw(
        self, request: web.Request, data: bytes, headers: dict[str, str] | None = None
    ) -> web.StreamResponse:
        response = await self._stream(request, headers)
        await response.write(data)
        return response

    async def _cut(self, request: web.Request, events: list[dict[str, Any]]) -> web.StreamResponse:
        response = await self._stream(request)
        for event in events:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        assert request.transport is not None
        request.transport.close()
        return response

    async def _stalled(self, request: web.Request, model: str) -> web.StreamResponse:
        """Send nothing more after a few events (or ever), or send without end, until the client hangs up."""
        try:
            response = await self._stream(request)
            if not model.endswith("silent"):
                for event in HELLO:
                    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            while True:
                await asyncio.sleep(0.01)
                # A comment is no event: it keeps proxies from hanging up and says nothing of the model.
                text = b"data: " + json.dumps(HELLO[1]).encode() + b"\n\n" if model == "endless" else b": ping\n\n"
                await response.write(text)
        except (ConnectionError, asyncio.CancelledError):
            self.hung_up.set()
            raise

    async def embeddings(self, request: web.Request) -> web.Response:
        """Answer a request for vectors."""
        body = await request.json()
        self.requests.append((request.path, request.headers.copy(), body))
        if body["model"] in STATUSES:
            status, text = STATUSES[body["model"]]
            return web.json_response(text, status=status, headers={"retry-after": "0"})
        return web.json_response(self.embed(body["input"]))

    async def list(self, request: web.Request) -> web.Response:
        """List the models."""
        self.requests.append((request.path, request.headers.copy(), None))
        return web.json_response(self.models, status=self.models_status)


@asynccontextmanager
async def serving() -> AsyncGenerator[Front]:
    """Serve on a free port of this machine."""
    front = Front()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/chat/completions", front.chat)
    app.router.add_post("/v1/embeddings", front.embeddings)
    app.router.add_get("/v1/models", front.list)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    front.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield front
    finally:
        await runner.cleanup()
