"""The event stream of /v1/responses."""

from collections.abc import Callable, Sequence
from typing import Any

from puna.go import json as gojson
from puna.go.json_scanner import Document
from puna.offload import weight_of_message
from puna_client.v1 import chat_pb2, message_pb2
from puna_rest.errors import Failure
from puna_rest.translate import search
from puna_rest.translate.openai.chat_answer import tool_calls
from puna_rest.translate.options import Body
from puna_rest.translate.parts import Part, parts
from puna_rest.translate.responses.answer import (
    call_item,
    message_item,
    new_number,
    reasoning_item,
    response,
    status_of,
    text_part,
    usage,
)
from puna_rest.translate.responses.request import has_web_search


class Events:
    """The writer of a stream. At most one output item is open at a time: thinking or a message."""

    def __init__(
        self,
        document: Document,
        body: Body,
        keep: Callable[[Sequence[dict[str, Any]]], None],
        *,
        call_deltas: bool = False,
    ) -> None:
        """`keep` receives the output items of a finished response before its last event is written.

        `call_deltas`: whether the request asked for parts of tool calls.
        """
        self._call_deltas = call_deltas
        self._keep = keep
        self._document = document
        self._body = body
        self._id_number = new_number()
        self._id = f"resp_{self._id_number}"
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._thinking = ""
        self._thinking_id = ""
        self._text = ""
        self._text_id = ""
        self._called = False
        self._call: dict[str, Any] | None = None
        """The item of the call whose arguments are coming in parts."""
        self._streamed: set[int] = set()
        """The indexes of calls whose arguments came in parts."""
        self._search: message_pb2.ToolCall | None = None

    def write(self, message: chat_pb2.StreamChatResponse) -> str:
        """Return the events for one message of the core."""
        return "".join([self._part(part) for part in parts(message, call_deltas=self._call_deltas)])

    def weigh(self, message: chat_pb2.StreamChatResponse) -> int:
        """Return the cost of writing a message, for puna.offload. The first and the last event repeat the request."""
        repeats = self._number == 0 or message.HasField("done")
        return weight_of_message(message) + (self._document.weight if repeats else 0)

    def write_error(self, failure: Failure) -> str:
        """Return the event that ends a stream that failed."""
        failed = self._response("failed")
        failed["error"] = {"code": "server_error", "message": failure.text}
        return self._event("response.failed", response=failed)

    def _part(self, part: Part) -> str:
        out = ""
        if self._number == 0:
            out += self._event("response.created", response=self._response("in_progress"))
            out += self._event("response.in_progress", response=self._response("in_progress"))
        # A search ends the answer with an error, but only after the last part, which brings the token counts.
        if self._search is None and has_web_search(self._body):
            self._search = search.asked_for(part.tool_calls)
        if self._search is not None:
            return out if part.finish is None else out + self._fail_to_search(part, self._search)
        if part.thinking:
            out += self._think(part.thinking)
        for delta in part.tool_call_deltas:
            out += self._call_delta(delta)
            self._called = True
        if part.tool_calls:
            out += self._close_call("completed") + self._close()
            out += self._calls(tuple(each for each in part.tool_calls if each.index not in self._streamed))
            self._called = True
        # Ollama drops text after a call: it would need an item behind the call's, which its clients do not expect.
        elif part.content and not self._called:
            out += self._say(part.content)
        if part.finish is not None:
            status = status_of(part)
            out += self._close(status)
            self._keep(self._output)
            done = response(self._document, self._body, self._id, self._output, usage=usage(part), status=status)
            # Ollama writes these two fields differently in a stream; `response` has the form of unstreamed answers.
            done["reasoning"] = self._reasoning()
            done["tools"] = self._tools(done)
            out += self._event(f"response.{status}", response=done)
        return out

    def _fail_to_search(self, part: Part, asked: message_pb2.ToolCall) -> str:
        """Return the events of a web search, which fails because it needs Ollama's cloud."""
        out = self._close()
        if query := search.query_of(asked):
            item_id = f"ws_{self._id_number}_1"
            action = {"type": "search", "query": query}
            item = {"id": item_id, "type": "web_search_call", "status": "in_progress", "action": action}
            out += self._event("response.output_item.added", output_index=self._index, item=item)
            for stage in ("in_progress", "searching"):
                out += self._event(f"response.web_search_call.{stage}", output_index=self._index, item_id=item_id)
        counts = usage(part)
        failed = {
            "id": self._id,
            "object": "response",
            "model": self._body["model"],
            "status": "failed",
            "output": [],
            "error": {"code": "api_error", "message": search.REFUSED if query else search.NO_QUERY},
            "usage": {name: counts[name] for name in ("input_tokens", "output_tokens", "total_tokens")},
        }
        return out + self._event("response.failed", response=failed)

    def _think(self, text: str) -> str:
        out = ""
        # Thinking may begin again after text; that is a new item, since an item has one contiguous text.
        if not self._thinking_id:
            out += self._close()
            self._thinking_id = f"rs_{new_number()}"
            item = {"id": self._thinking_id, "type": "reasoning", "summary": []}
            out += self._event("response.output_item.added", output_index=self._index, item=item)
        self._thinking += text
        return out + self._event(
            "response.reasoning_summary_text.delta",
            item_id=self._thinking_id,
            output_index=self._index,
            summary_index=0,
            delta=text,
        )

    def _say(self, text: str) -> str:
        out = ""
        if not self._text_id:
            out += self._close()
            self._text_id = f"msg_{new_number()}"
            item = {"id": self._text_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
            out += self._event("response.output_item.added", output_index=self._index, item=item)
            out += self._of_text("response.content_part.added", part=text_part(""))
        self._text += text
        return out + self._of_text("response.output_text.delta", delta=text, logprobs=[])

    def _calls(self, calls: tuple[message_pb2.ToolCall, ...]) -> str:
        out = ""
        number = new_number()
        for index, call in enumerate(tool_calls(calls)):
            item = call_item(f"fc_{number}_{index}", call)
            arguments = call["function"]["arguments"]
            # A call arrives complete from the core. Clients expect the life of a streamed one, so it gets one delta.
            begun = {**item, "status": "in_progress", "arguments": "", "call_id": call["id"]}
            where = {"item_id": item["id"], "output_index": self._index}
            out += self._event("response.output_item.added", output_index=self._index, item=begun)
            out += self._event("response.function_call_arguments.delta", **where, delta=arguments)
            out += self._event("response.function_call_arguments.done", **where, arguments=arguments)
            out += self._finish({**item, "call_id": call["id"]})
        return out

    def _call_delta(self, delta: message_pb2.ToolCallDelta) -> str:
        """Return the events for a part of a call. The next item, or the end, closes the item of the call."""
        out = ""
        if delta.id:
            self._streamed.add(delta.index)
            out = self._close_call("completed") + self._close()
            item = {"id": f"fc_{new_number()}_{delta.index}", "type": "function_call", "status": "in_progress"}
            self._call = item | {"call_id": delta.id, "name": delta.name, "arguments": ""}
            out += self._event("response.output_item.added", output_index=self._index, item=self._call)
        if self._call is not None and delta.arguments_json:
            self._call["arguments"] += delta.arguments_json
            where = {"item_id": self._call["id"], "output_index": self._index}
            out += self._event("response.function_call_arguments.delta", **where, delta=delta.arguments_json)
        return out

    def _close_call(self, status: str) -> str:
        """Close the item of the call that comes in parts, if there is one."""
        call, self._call = self._call, None
        if call is None:
            return ""
        where = {"item_id": call["id"], "output_index": self._index}
        out = ""
        if status == "completed":
            out = self._event("response.function_call_arguments.done", **where, arguments=call["arguments"])
        return out + self._finish({**call, "status": status})

    def _close(self, status: str = "completed") -> str:
        """Close the open item, if there is one. `status`: the status of a message item."""
        out = ""
        if self._call is not None:
            # Neither the complete call nor another one has come: the model did not complete it.
            return self._close_call("incomplete")
        if self._thinking_id:
            item = reasoning_item(self._thinking_id, self._thinking)
            out = self._event(
                "response.reasoning_summary_text.done",
                item_id=self._thinking_id,
                output_index=self._index,
                summary_index=0,
                text=self._thinking,
            )
            self._thinking_id = self._thinking = ""
            return out + self._finish(item)
        if self._text_id:
            item = message_item(self._text_id, self._text, status=status)
            out = self._of_text("response.output_text.done", text=self._text, logprobs=[])
            out += self._of_text("response.content_part.done", part=text_part(self._text))
            self._text_id = self._text = ""
            return out + self._finish(item)
        return out

    def _finish(self, item: dict[str, Any]) -> str:
        out = self._event("response.output_item.done", output_index=self._index, item=item)
        self._output.append(item)
        return out

    @property
    def _index(self) -> int:
        return len(self._output)

    def _of_text(self, kind: str, **fields: object) -> str:
        return self._event(kind, item_id=self._text_id, output_index=self._index, content_index=0, **fields)

    def _response(self, status: str) -> dict[str, Any]:
        # A copy, because the list grows while the caller may still hold the event.
        out = response(self._document, self._body, self._id, list(self._output), usage=None, status=status)
        out["reasoning"] = self._reasoning()
        out["tools"] = self._tools(out)
        return out

    def _reasoning(self) -> dict[str, Any] | None:
        """Return `reasoning`, in which a stream writes missing fields as null."""
        wanted = self._body["reasoning"]
        if not (wanted["effort"] or wanted["summary"]):
            return None
        return {name: wanted[name] or None for name in ("effort", "summary")}

    def _tools(self, out: dict[str, Any]) -> list[dict[str, Any]]:
        """Return `tools`, in which a stream omits the members of a namespace."""
        return [{name: value for name, value in tool.items() if name != "tools"} for tool in out["tools"]]

    def _event(self, kind: str, **fields: object) -> str:
        # Ollama encodes events as Go maps, whose keys are sorted.
        data = {**fields, "type": kind, "sequence_number": self._number}
        self._number += 1
        return f"event: {kind}\ndata: {gojson.dumps(data, sort_keys=True)}\n\n"
