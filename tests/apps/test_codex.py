"""Codex, over /v1/responses."""

import pytest
from tests.apps.answers import GREETING, REPORT, lines

CONFIG = """
model = "stub"
model_provider = "puna"
check_for_update_on_startup = false
analytics.enabled = false
features.apps = false
features.plugins = false

[model_providers.puna]
name = "Puna"
base_url = "{url}/v1"
wire_api = "responses"
"""


@pytest.fixture
def codex(desk, agents, server):
    """Ask one question; return the events that Codex prints."""
    (program,) = agents.glob("node_modules/@openai/codex-linux-*/vendor/*/bin/codex")
    config = desk.home / ".codex/config.toml"
    config.parent.mkdir()
    config.write_text(CONFIG.format(url=server.url))
    # The sandbox of Codex needs rights that a container may not give.
    options = ("--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")

    def ask(*words):
        return lines(desk.run(program, "exec", *options, *words))

    return ask


def items(events, kind):
    return [each["item"] for each in events if each["type"] == "item.completed" and each["item"]["type"] == kind]


def test_chat(codex):
    """Codex always streams; it prints the whole message."""
    events = codex("Say hello.")
    assert [item["text"] for item in items(events, "agent_message")] == [GREETING]
    assert events[-1]["type"] == "turn.completed"
    assert events[-1]["usage"]["output_tokens"] == len(GREETING.split())


def test_tool_loop(codex, desk):
    events = codex("Please CALL exec_command cmd=cat+note.txt")
    (command,) = items(events, "command_execution")
    assert (command["exit_code"], command["status"]) == (0, "completed")
    assert desk.secret in command["aggregated_output"]
    (message,) = items(events, "agent_message")
    assert message["text"].startswith(REPORT)
    assert desk.secret in message["text"]


def test_second_turn(codex):
    """A resumed conversation sends the items of the first turn again."""
    codex("Say hello.")
    events = codex("resume", "--last", "Say hello again.")
    assert [item["text"] for item in items(events, "agent_message")] == [GREETING]
