"""Pydantic AI, over /v1/chat/completions: arguments are the server's address and the path of a note."""

import asyncio
import json
import sys
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.ollama import OllamaProvider

URL, NOTE = sys.argv[1:]
agent = Agent(OpenAIChatModel("stub", provider=OllamaProvider(base_url=f"{URL}/v1")))
ran = []


@agent.tool_plain
def read_note(path: str) -> str:
    """Read a note."""
    ran.append(path)
    return Path(path).read_text()


async def main():
    chat = await agent.run("Say hello.")
    async with agent.run_stream("Say hello.") as answer:
        deltas = [delta async for delta in answer.stream_text(delta=True, debounce_by=None)]
    loop = await agent.run(f"Please CALL read_note path={NOTE}")
    return {
        "chat": chat.output,
        "tokens": chat.usage.output_tokens,
        "deltas": deltas,
        "loop": loop.output,
        "ran": ran,
        "requests": loop.usage.requests,
    }


sys.stdout.write(json.dumps(asyncio.run(main())))
