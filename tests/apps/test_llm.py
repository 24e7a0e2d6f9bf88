"""The command `llm` with the plugin llm-ollama, over /api/chat."""

import json
import subprocess

import pytest
from tests.apps import installed
from tests.apps.answers import GREETING, REPORT, TOKENS

TOOL = '''
def read_note(path: str) -> str:
    """Read a note."""
    return open(path).read()
'''


@pytest.fixture
def llm(desk, server):
    program = installed.python("llm").with_name("llm")
    desk.environment |= {"OLLAMA_HOST": server.url}
    return lambda *words: desk.run(program, *words)


def test_chat(llm):
    assert llm("-m", "ollama/stub", "--no-stream", "Say hello.").strip() == GREETING


def test_stream(llm, desk):
    """The answer is printed as it comes."""
    command = [installed.python("llm").with_name("llm"), "-m", "ollama/stub", "Say hello."]
    pieces = []
    with subprocess.Popen(command, env=desk.environment, stdout=subprocess.PIPE, bufsize=0) as process:
        while piece := process.stdout.read(1000):
            pieces.append(piece.decode())
    assert "".join(pieces).strip() == GREETING
    assert len(pieces) > 2
    (logged,) = json.loads(llm("logs", "list", "-n", "1", "--json"))
    assert (logged["response"], logged["output_tokens"]) == (GREETING, TOKENS)


def test_tool_loop(llm, desk):
    said = llm("-m", "ollama/stub", "--functions", TOOL, f"Please CALL read_note path={desk.note}")
    assert said.startswith(REPORT)
    assert desk.secret in said
