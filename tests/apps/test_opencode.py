"""opencode with its provider for OpenAI-compatible servers, over /v1/chat/completions."""

import json

import pytest
from tests.apps.answers import GREETING, REPORT, TOKENS, lines

QUIET = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_SHARE": "1",
    "npm_config_registry": "http://127.0.0.1:1/",  # opencode installs plugins when it starts
}


@pytest.fixture
def opencode(desk, agents, server):
    """Ask one question; return the events that opencode prints."""
    (program,) = agents.glob("node_modules/opencode-linux-*[0-9]/bin/opencode")
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Puna",
        "options": {"baseURL": f"{server.url}/v1"},
        "models": {"stub": {"name": "stub"}},
    }
    config = desk.work / "opencode.json"
    config.write_text(
        json.dumps(
            {
                "autoupdate": False,
                "model": "puna/stub",
                "permission": "allow",
                "provider": {"puna": provider},
                "share": "disabled",
                "small_model": "puna/stub",
            }
        )
    )
    desk.environment |= QUIET
    return lambda text: lines(desk.run(program, "run", "--format", "json", text))


def texts(events):
    return [event["part"]["text"] for event in events if event["type"] == "text"]


def test_chat(opencode):
    """It always streams; it prints the whole message."""
    events = opencode("Say hello.")
    assert texts(events) == [GREETING]
    assert (events[-1]["part"]["reason"], events[-1]["part"]["tokens"]["output"]) == ("stop", TOKENS)


def test_tool_loop(opencode, desk):
    events = opencode("Please CALL read filePath=note.txt")
    (call,) = [event["part"] for event in events if event["type"] == "tool_use"]
    assert (call["tool"], call["state"]["status"]) == ("read", "completed")
    assert desk.secret in call["state"]["output"]
    (text,) = texts(events)
    assert text.startswith(REPORT)
    assert desk.secret in text
    reasons = [event["part"]["reason"] for event in events if event["type"] == "step_finish"]
    assert reasons == ["tool-calls", "stop"]
