"""A backend whose answers depend on the prompt alone. With this folder on PYTHONPATH it is installed.

A model of this backend answers by three rules, the first of which that applies:

1. The last message is the result of a tool: the answer is REPORT and that result.
2. The last message of the user contains `CALL NAME ARGUMENTS`, and the request offers a tool of that name: the answer
   is that call. ARGUMENTS are written as a query string, `city=Oslo&days=3`, because programs quote and escape what a
   user types. Every value is a string.
3. Otherwise the answer is GREETING.

So a test decides which tool a program must run, and the answer proves that the program ran it and gave the result back.
These rules read prompts of the chat template in template.txt.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from urllib.parse import parse_qsl

from puna.backend import (
    Backend,
    Finish,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
)

GREETING = "Hello! One two three four five."
REPORT = "The tool says: "
SECONDS_PER_DELTA = 0.05
"""The pause after each word, so that a client can tell a stream from an answer in one piece."""
CHARACTERS_PER_TOKEN = 4
_TOOL = re.compile(r"^<\|offer\|>(.*)$", re.MULTILINE)
_MESSAGE = re.compile(r"^<\|(system|user|assistant|tool)\|>", re.MULTILINE)
_CALL = re.compile(r"CALL (\w+) ([\w/.,+&=%-]+)")
_CONTEXT = 1 << 20


def answer(prompt: str) -> str:
    """Return what the model says to a prompt."""
    header, *parts = _MESSAGE.split(prompt)
    roles, contents = parts[::2], parts[1::2]
    if roles and roles[-1] == "tool":
        return REPORT + contents[-1].strip()
    asked = [content for role, content in zip(roles, contents, strict=True) if role == "user"]
    call = _CALL.search(asked[-1]) if asked else None
    if call and call[1] in _TOOL.findall(header):
        said = {"name": call[1], "arguments": dict(parse_qsl(call[2]))}
        return f"<tool_call>\n{json.dumps(said)}\n</tool_call>"
    return GREETING


class Stub(LoadedModel):
    """A loaded model. A token is CHARACTERS_PER_TOKEN characters of text."""

    def __init__(self, spec: ModelSpec) -> None:
        self._facts = ModelFacts(context_length=min(spec.context_length, _CONTEXT), parallel=4)

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        prompt = request.prompt if isinstance(request.prompt, str) else "".join(map(chr, request.prompt))
        words = re.findall(r"\s*\S+|\s+$", answer(prompt))
        for word in words[: request.max_tokens]:
            yield TextDelta(word)
            await asyncio.sleep(SECONDS_PER_DELTA)
        complete = len(words) <= request.max_tokens
        yield Finish(
            reason="stop" if complete else "length",
            prompt_tokens=len(prompt) // CHARACTERS_PER_TOKEN,
            output_tokens=min(len(words), request.max_tokens),
        )

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        return [ord(letter) for letter in text[::CHARACTERS_PER_TOKEN]]

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        return [chr(token).encode() for token in tokens]


class StubBackend(Backend):
    formats = ("gguf",)
    preference = -1
    """A model is of this backend only if it names it."""

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        return Stub(spec)
