"""Pydantic AI, over /v1/chat/completions."""

import json

from tests.apps import installed
from tests.apps.answers import check_chat, check_loop
from tests.apps.conftest import SCRIPTS


def test_chat_stream_and_tool_loop(desk, server):
    found = json.loads(
        desk.run(installed.python("pydantic-ai"), SCRIPTS / "drive_pydantic_ai.py", server.url, desk.note)
    )
    check_chat(found)
    check_loop(found, desk)
    assert found["requests"] == 2
