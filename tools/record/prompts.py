"""Prompts that a server makes of conversations, asked for with `_debug_render_only`. Nothing is generated.

tests/core/prompt/rendered.json (Go templates), builtin/renderers.json and builtin/families.json (builtin renderers),
jinja/prompts.json (chat templates in model files), and tests/core/models/create/known_prompts.json (Go templates that
`create` takes in place of well-known chat templates).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.core.prompt.builtin.format_text import named
from tests.core.prompt.jinja.samples import BOS, EOS, TOOLS
from tools.record.client import RecordingError, Server
from tools.record.scripted_model import gguf_file

NAME = "record-prompts"
THINKING_NAME = "record-prompts-thinking"
PLAIN_TEMPLATE = "{{ range .Messages }}{{ .Content }}{{ end }}"
PARSERS = {
    "deepseek3.1": "deepseek3",
    "gemma4-large": "gemma4",
    "gemma4-small": "gemma4",
    "olmo3.1": "olmo3",
    "olmo3-32b-think": "olmo3-think",
    "qwen3.8": "qwen3.5",
}
"""Parsers of the renderers whose parser has another name. A model's parser says whether it thinks."""
DATE = ("Current date: [0-9-]{10}\\.", "Current date: 2026-11-21.")
"""The day of a prompt, and the day in the fixtures."""


def note(*, thinks: bool) -> str:
    """Return a comment to put behind the chat template of a sample.

    A server tells by words of a template whether its model uses tools and thinks, and refuses requests by that; and it
    takes a Go template where a chat template is near a well-known one.
    """
    return "{#" + (" tools" + " <think> </think>" * thinks).ljust(150, ".") + "#}"


def go_templates(server: Server, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Render the cases of rendered.json again; compare_templates.py makes new ones."""
    return [_go_template(server, case) for case in recorded]


def _go_template(server: Server, case: dict[str, Any]) -> dict[str, Any]:
    asked = {key: value for key, value in case.items() if key not in ("text", "error")}
    digest = server.create_once("record-scripted", "scripted")
    status, answer = server.ask(
        "/api/create", {"model": NAME, "from": digest, "template": case["template"], "stream": False}
    )
    if status != 200:
        return {**asked, "error": answer["error"]}
    request = {key: value for key, value in asked.items() if key != "template"}
    made = server.rendered({"model": NAME, **request})
    # Addresses of Go's memory stand in some texts.
    return {**asked, **{key: re.sub("0x[0-9a-f]{6,}", "0xc000000000", value) for key, value in made.items()}}


def builtin(server: Server, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Render the cases of renderers.json or families.json again."""
    return [_builtin(server, case) for case in recorded]


def _builtin(server: Server, case: dict[str, Any]) -> dict[str, Any]:
    renderer = case["renderer"]
    images = any("images" in message for message in case["messages"])
    files = ("chatter", "chatter-eye") if images else ("chatter",)
    name = f"record-{renderer}{'-images' if images else ''}"
    server.create_once(name, *files, renderer=renderer, parser=PARSERS.get(renderer, renderer), template=PLAIN_TEMPLATE)
    request = {key: case[key] for key in ("messages", "tools", "think") if key in case}
    made = server.rendered({"model": name, **request})
    if "text" not in made:
        raise RecordingError(f"{renderer}: {made['error']}")
    text = re.sub(*DATE, made["text"])
    asked = {key: value for key, value in case.items() if key not in ("text", "sha256")}
    bare = named(text)
    return {**asked, "text": bare} | ({"sha256": hashlib.sha256(text.encode()).hexdigest()} if bare != text else {})


def jinja(server: Server, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Render the cases of jinja/prompts.json again."""
    made = []
    for each in recorded:
        for name, thinks in ((NAME, False), (THINKING_NAME, True)):
            server.create(name, gguf_file([], each["template"] + note(thinks=thinks), BOS, EOS))
        made.append({**each, "cases": [_jinja(server, case) for case in each["cases"]]})
    return made


def _jinja(server: Server, case: dict[str, Any]) -> dict[str, Any]:
    request: dict[str, Any] = {"model": NAME, "messages": [_message(each) for each in case["messages"]]}
    if case["tools"]:
        request["tools"] = api_tools()
    if case["think"] is not None:
        request |= {"model": THINKING_NAME, "think": case["think"]}
    answer = server.rendered(request)
    return {**case, "prompt": answer.get("text"), "error": _runner_error(answer.get("error"))}


def _runner_error(text: str | None) -> str | None:
    """Return the error of the process that runs the model, which the server puts into an error of its own."""
    if text is None or not text.startswith("{"):
        return text
    inner = str(json.loads(text)["error"]["message"])
    return inner if inner.startswith("{") else text


def _message(given: Mapping[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"content": "", **given}
    if "tool_calls" in given:
        message["tool_calls"] = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": json.loads(call["arguments"])}}
            for call in given["tool_calls"]
        ]
    return message


def api_tools() -> list[dict[str, Any]]:
    """Return the tools of the samples as a request has them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)},
        }
        for tool in TOOLS
    ]


def known(server: Server, recorded: dict[str, Any], checkout: Path | None) -> dict[str, Any]:
    """Render the conversations of known_prompts.json with the templates that `create` takes for known ones.

    checkout: a folder with Ollama's sources, whose template/index.json holds the chat templates to recognise. They are
    read and never stored.
    """
    if checkout is None:
        raise RecordingError("known_prompts.json needs --checkout: a folder with Ollama's sources")
    texts: dict[str, str] = {}
    for each in json.loads((checkout / "template/index.json").read_text()):
        texts.setdefault(each["name"], each["template"])
    prompts = {}
    for name in recorded["prompts"]:
        server.create(NAME, gguf_file([], texts[name]))
        prompts[name] = {
            title: server.rendered({"model": NAME, **told})["text"] for title, told in recorded["conversations"].items()
        }
    return {**recorded, "prompts": prompts}
