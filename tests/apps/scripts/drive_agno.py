"""Agno, over /api/chat: arguments are the server's address and the path of a note."""

import json
import sys
from pathlib import Path

from agno.agent import Agent, RunEvent
from agno.models.ollama import Ollama

URL, NOTE = sys.argv[1:]
ran = []


def read_note(path: str) -> str:
    """Read a note."""
    ran.append(path)
    return Path(path).read_text()


agent = Agent(model=Ollama(id="stub", host=URL), tools=[read_note], telemetry=False)
chat = agent.run("Say hello.")
events = agent.run("Say hello.", stream=True, stream_events=True)
deltas = [event.content for event in events if event.event == RunEvent.run_content]
loop = agent.run(f"Please CALL read_note path={NOTE}")
found = {
    "chat": chat.content,
    "tokens": chat.metrics.output_tokens,
    "deltas": deltas,
    "loop": loop.content,
    "ran": ran,
    "calls": [[call.tool_name, call.tool_args] for call in loop.tools],
}
sys.stdout.write(json.dumps(found))
