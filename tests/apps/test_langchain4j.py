"""LangChain4j, over /api/chat."""

import json

from tests.apps import installed
from tests.apps.answers import check_chat, check_loop


def test_chat_stream_and_tool_loop(desk, server):
    found = json.loads(desk.run(*installed.java("langchain4j"), server.url, str(desk.note)))
    check_chat(found)
    for loop in (found["whole"], found["streamed"]):
        check_loop(loop, desk)
