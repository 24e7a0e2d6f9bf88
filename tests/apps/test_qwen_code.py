"""Qwen Code, over /v1/chat/completions. One of its tools is named `tool_call`, like the tag around a call."""

import json

import pytest
from tests.apps.answers import GREETING, REPORT, TOKENS, lines

SETTINGS = {
    "general": {"enableAutoUpdate": False, "disableAutoUpdate": True, "disableUpdateNag": True},
    "privacy": {"usageStatisticsEnabled": False},
    "security": {"auth": {"selectedType": "openai"}},
    "telemetry": {"enabled": False},
}
STREAM = ("--output-format", "stream-json", "--include-partial-messages")


@pytest.fixture
def qwen(desk, agents, clients_python, server):
    """Ask one question; return the events that Qwen Code prints."""
    node = clients_python.with_name("node")
    settings = desk.home / ".qwen/settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps(SETTINGS))
    desk.environment |= {"OPENAI_API_KEY": "ollama", "OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_MODEL": "stub"}

    def ask(*words):
        return desk.run(node, agents / "node_modules/@qwen-code/qwen-code/cli.js", "--approval-mode", "yolo", *words)

    return ask


def test_chat(qwen):
    result = json.loads(qwen("--output-format", "json", "Say hello."))[-1]
    assert (result["subtype"], result["is_error"], result["result"]) == ("success", False, GREETING)


def test_stream(qwen):
    events = lines(qwen(*STREAM, "Say hello."))
    inner = [event["event"] for event in events if event["type"] == "stream_event"]
    deltas = [event["delta"]["text"] for event in inner if event.get("delta", {}).get("type") == "text_delta"]
    assert len(deltas) == TOKENS
    assert "".join(deltas) == events[-1]["result"] == GREETING


def test_tool_loop(qwen, desk):
    events = lines(qwen(*STREAM, f"Please CALL read_file file_path={desk.note}"))
    messages = [event["message"]["content"] for event in events if event["type"] in ("assistant", "user")]
    (call,), (result,), (answer,) = messages
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "read_file", {"file_path": str(desk.note)})
    assert result["tool_use_id"] == call["id"]
    assert desk.secret in result["content"]
    assert answer["text"].startswith(REPORT)
    assert desk.secret in answer["text"]
