"""Answers as a server parts them into thinking, content and tool calls, chunk by chunk.

tests/core/prompt/builtin/answers.json and parsers.json (builtin parsers), go_template/streams.json (Go templates) and
jinja/answers.json (chat templates in model files). For each group of cases with the same parser or template a scripted
model is created that writes the pieces of the cases token by token; see scripted_model.py.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.core.prompt.builtin.test_parsers import TOOLS as BUILTIN_TOOLS
from tests.core.prompt.go_template.test_tool_calls import TOOLS as GO_TOOLS
from tests.core.prompt.jinja.samples import BOS, EOS
from tools.record.client import RecordingError, Server
from tools.record.prompts import PLAIN_TEMPLATE, api_tools, note
from tools.record.scripted_model import CONTEXT, PADDING, Script, gguf_file, scripts

from puna.messages import Tool

NAME = "record-answers"
Case = dict[str, Any]
Chunk = dict[str, Any]


@dataclass(frozen=True)
class _Group:
    """Cases that one model answers."""

    cases: Sequence[Case]
    fields: Mapping[str, Any]
    """Fields of /api/create."""
    request: Callable[[Case], dict[str, Any]]
    """Returns the tools and the thinking that a case asks for."""
    chat_template: str | None = None
    bos: str = "<bos>"
    eos: str = "<eos>"

    def ask(self, server: Server) -> list[list[Chunk]]:
        """Return the chunks of each case's answer."""
        found, remaining = [], list(self.cases)
        for wanted in scripts([case["pieces"] for case in self.cases]):
            server.create(NAME, gguf_file(wanted, self.chat_template, self.bos, self.eos), **self.fields)
            placed = [(script, self.request(remaining.pop(0))) for script in wanted]
            answers = [_chunks(server, script, request) for script, request in placed]
            for (script, request), chunks in zip(placed, answers, strict=True):
                found.append(chunks if chunks is not None else self._alone(server, script, request))
        return found

    def _alone(self, server: Server, script: Script, request: Mapping[str, Any]) -> list[Chunk]:
        """Return the chunks of an answer whose prompt cannot be lengthened: the script begins where the prompt ends."""
        start = _length(_ask(server, 1, 1, request))
        alone = [Script(start, script.texts)]
        server.create(NAME, gguf_file(alone, self.chat_template, self.bos, self.eos), **self.fields)
        return _ask(server, 1, len(script.texts) + 1, request)


def _ask(server: Server, padding: int, limit: int, request: Mapping[str, Any]) -> list[Chunk]:
    options = {"temperature": 0, "num_ctx": CONTEXT, "num_predict": limit}
    messages = [{"role": "user", "content": PADDING * padding}]
    return list(server.stream("/api/chat", {"model": NAME, "messages": messages, "options": options, **request}))


def _length(chunks: Sequence[Chunk]) -> int:
    if "prompt_eval_count" not in chunks[-1]:
        raise RecordingError(str(chunks[-1]))
    return int(chunks[-1]["prompt_eval_count"])


def _chunks(server: Server, script: Script, request: Mapping[str, Any]) -> list[Chunk] | None:
    """Return the chunks of an answer; None if the template cuts the message, so that no prompt reaches the script."""
    missing = script.start - _length(_ask(server, 1, 1, request)) + 1
    if missing < 1:
        raise RecordingError(f"the prompt is longer than {script.start} tokens")
    chunks = _ask(server, missing, len(script.texts) + 1, request)
    return chunks if "error" in chunks[-1] or _length(chunks) == script.start else None


def _api_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    function["parameters"] = json.loads(tool.parameters) if tool.parameters else {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _plain(chunks: Sequence[Chunk]) -> list[list[Any]]:
    """Return content, thinking and calls of each chunk that has any of them; an error is a chunk too."""
    found: list[list[Any]] = []
    for chunk in chunks:
        if "error" in chunk:
            found.append(["ERR", chunk["error"]])
            continue
        message = chunk["message"]
        functions = [call["function"] for call in message.get("tool_calls", ())]
        # Ollama writes null where gpt-oss gives null for arguments, Puna an empty object, which clients expect.
        calls = [[each["name"], each["arguments"] or {}, each.get("index", 0)] for each in functions]
        if message["content"] or message.get("thinking") or calls:
            found.append([message["content"], message.get("thinking", ""), calls])
    return found


def _in_groups(
    server: Server, recorded: Sequence[Case], key: Callable[[Case], Any], group: Callable[[list[Case]], _Group]
) -> list[Case]:
    grouped: dict[Any, list[int]] = {}
    for index, case in enumerate(recorded):
        grouped.setdefault(key(case), []).append(index)
    made = list(recorded)
    for indices in grouped.values():
        answers = group([recorded[index] for index in indices]).ask(server)
        for index, chunks in zip(indices, answers, strict=True):
            made[index] = {**recorded[index], "chunks": _plain(chunks)}
    return made


def builtin(server: Server, recorded: list[Case]) -> list[Case]:
    """Have the builtin parsers read the answers of answers.json or parsers.json again."""
    tools = [_api_tool(tool) for tool in BUILTIN_TOOLS]

    def request(case: Case) -> dict[str, Any]:
        asked: dict[str, Any] = {"tools": tools} if case["tools"] else {}
        return asked | ({"think": case["think"]} if case["think"] is not None else {})

    def group(cases: list[Case]) -> _Group:
        return _Group(cases, {"parser": cases[0]["parser"], "template": PLAIN_TEMPLATE}, request)

    return _in_groups(server, recorded, lambda case: case["parser"], group)


def go_templates(server: Server, recorded: list[Case]) -> list[Case]:
    """Have Go templates read the answers of streams.json again."""
    tools = [_api_tool(tool) for tool in GO_TOOLS]

    def request(case: Case) -> dict[str, Any]:
        return ({"tools": tools} if case["tools"] else {}) | ({"think": True} if case["think"] else {})

    def group(cases: list[Case]) -> _Group:
        thinking = "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}" if cases[0]["think"] else ""
        # The tag is the text in front of the brace.
        call = f'{{{{ if .ToolCalls }}}}{cases[0]["tag"].removesuffix("{")}{{"name": "{{{{ .Role }}}}"}}{{{{ end }}}}'
        template = (
            f"{{{{ if .Tools }}}}{{{{ end }}}}{{{{ range .Messages }}}}{{{{ .Content }}}}{thinking}{call}{{{{ end }}}}"
        )
        return _Group(cases, {"template": template}, request)

    return _in_groups(server, recorded, lambda case: (case["tag"], case["think"]), group)


def jinja(server: Server, recorded: list[Case], templates: Mapping[str, str]) -> list[Case]:
    """Have chat templates in model files read the answers of jinja/answers.json again.

    templates: the templates of jinja/prompts.json by name.
    """
    return [{**each, "answers": _jinja(server, each["answers"], templates[each["name"]])} for each in recorded]


def _jinja(server: Server, cases: list[Case], template: str) -> list[Case]:
    def request(case: Case) -> dict[str, Any]:
        return {"tools": api_tools()} if case["tools"] else {}

    made = []
    chunks = _Group(cases, {}, request, template + note(thinks=True), BOS, EOS).ask(server)
    for case, answer in zip(cases, chunks, strict=True):
        events: list[list[str]] = []
        calls: list[dict[str, Any]] = []
        for content, thinking, called in _plain(answer):
            events += [["t", thinking]] if thinking else []
            events += [["c", content]] if content else []
            calls += [{"name": name, "arguments": arguments} for name, arguments, _ in called]
        made.append({**case, "events": events, "calls": calls})
    return made
