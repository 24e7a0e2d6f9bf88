"""Short ways to ask and to read answers."""

import asyncio
from contextlib import aclosing

from puna.messages import Message, Tool
from puna.serving.answers import Delta, Done
from puna.serving.requests import ChatRequest, GenerateRequest, RequestOptions

WEATHER = Tool(name="get_weather", parameters='{"type":"object","properties":{"city":{"type":"string"}}}')


def user(text):
    return Message(role="user", content=text)


def prompted(model, prompt="x", *, values=None, **fields):
    options = {key: fields.pop(key) for key in list(fields) if key in RequestOptions.__dataclass_fields__}
    return GenerateRequest(
        model=model,
        prompt=prompt,
        options=RequestOptions(**{"values": values or {}, "truncate": True} | options),
        **fields,
    )


def said(model, *messages, values=None, **fields):
    options = {key: fields.pop(key) for key in list(fields) if key in RequestOptions.__dataclass_fields__}
    return ChatRequest(
        model=model,
        messages=tuple(user(each) if isinstance(each, str) else each for each in messages),
        options=RequestOptions(**{"values": values or {}, "truncate": True} | options),
        **fields,
    )


async def answered(events):
    """Return all deltas and the end."""
    deltas = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta):
                deltas.append(event)
            elif isinstance(event, Done):
                return deltas, event
    raise AssertionError("no end")


def parts(deltas):
    """Show what streams: texts as they are, thinking in slashes, calls by name, nothing as None."""
    shown = []
    for delta in deltas:
        shown += [f"/{delta.thinking}/"] if delta.thinking else []
        shown += [delta.text] if delta.text else []
        shown += [f"{call.name}{call.arguments}" for call in delta.tool_calls]
        if not (delta.thinking or delta.text or delta.tool_calls):
            shown.append(None)
    return shown


async def until(condition):
    """Wait for what has no event to wait for."""
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError
