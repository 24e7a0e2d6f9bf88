"""Claude Code, over /v1/messages."""

import pytest
from tests.apps.answers import GREETING, REPORT, lines


@pytest.fixture
def claude(desk, agents, server):
    """Ask one question; return the events that Claude Code prints."""
    (program,) = agents.glob("node_modules/@anthropic-ai/claude-code-linux-*/claude")
    desk.environment |= {
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_AUTH_TOKEN": "ollama",
        "ANTHROPIC_MODEL": "stub",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "stub",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_TELEMETRY": "1",
    }

    def ask(text, *more):
        return lines(desk.run(program, "-p", text, *more))

    return ask


STREAM = ("--output-format", "stream-json", "--verbose", "--include-partial-messages")


def deltas(events):
    inner = [event["event"] for event in events if event["type"] == "stream_event"]
    return [event["delta"]["text"] for event in inner if event.get("delta", {}).get("type") == "text_delta"]


def test_chat(claude):
    (result,) = claude("Say hello.", "--output-format", "json")
    assert (result["subtype"], result["is_error"], result["result"]) == ("success", False, GREETING)
    assert result["usage"]["output_tokens"] == len(GREETING.split())


def test_stream(claude):
    events = claude("Say hello.", *STREAM)
    assert len(deltas(events)) == len(GREETING.split())
    assert "".join(deltas(events)) == events[-1]["result"] == GREETING


def test_tool_loop(claude, desk):
    events = claude(f"Please CALL Read file_path={desk.note}", *STREAM)
    messages = [event["message"]["content"] for event in events if event["type"] in ("assistant", "user")]
    (call,), (result,), (answer,) = messages
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "Read", {"file_path": str(desk.note)})
    assert result["tool_use_id"] == call["id"]
    assert desk.secret in result["content"]
    assert answer["text"].startswith(REPORT)
    assert desk.secret in answer["text"]
    assert events[-1]["num_turns"] == 2
