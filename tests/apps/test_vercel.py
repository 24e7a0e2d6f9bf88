"""The Vercel AI SDK with providers of all four APIs: native, OpenAI chat and responses, Anthropic."""

import json

from tests.apps import installed
from tests.apps.answers import check_chat, check_loop

PROVIDERS = ("ai-sdk-ollama", "ollama-ai-provider-v2", "openai-compatible", "openai", "anthropic")


def test_chat_stream_tool_loop_and_thinking(desk, server, clients_python):
    binaries = clients_python.parent
    script = installed.node("vercel", binaries) / "drive.mjs"
    found = json.loads(desk.run(binaries / "node", script, server.url, desk.note))
    for provider in PROVIDERS:
        check_chat(found[provider])
        for loop in (found[provider]["whole"], found[provider]["streamed"]):
            check_loop(loop, desk)
            assert loop["steps"] == 2
    assert {thought["text"] for thought in found["thinking"].values()} == {"3 + 4 = 7."}
    assert all("7" in thought["reasoning"] for thought in found["thinking"].values())
