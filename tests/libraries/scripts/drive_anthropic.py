"""The anthropic package."""

import anthropic
from steps import WEATHER, run

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS = [{"name": "get_weather", "description": "Get the weather in a city", "input_schema": WEATHER}]


def of(url):
    return anthropic.Anthropic(base_url=url, api_key="ollama", max_retries=0)


def messages(url):
    answer = of(url).messages.create(
        model="llamita",
        max_tokens=200,
        messages=FRANCE,
        thinking={"type": "disabled"},
        extra_body={"temperature": 0},
        metadata={"user_id": "somebody"},
    )
    return answer.model_dump()


def named_by_the_system(url):
    """System text as blocks, with marks for a cache."""
    answer = of(url).messages.create(
        model="llamita",
        max_tokens=100,
        system=[{"type": "text", "text": "Your name is Clara.", "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": [{"type": "text", "text": "What is your name?"}]}],
        extra_body={"temperature": 0},
    )
    return [block.text for block in answer.content if block.type == "text"]


def stream(url):
    with of(url).messages.stream(
        model="llamita", max_tokens=200, messages=FRANCE, extra_body={"temperature": 0}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    return {"kinds": kinds, "final": final.model_dump()}


async def stream_async(url):
    async with (
        anthropic.AsyncAnthropic(base_url=url, api_key="ollama") as client,
        client.messages.stream(
            model="llamita",
            max_tokens=200,
            messages=FRANCE,
            thinking={"type": "disabled"},
            extra_body={"temperature": 0},
        ) as stream,
    ):
        return [text async for text in stream.text_stream]


def raw_stream(url):
    """Events as they come, without the helper."""
    events = of(url).messages.create(
        model="chatty", max_tokens=3, messages=[{"role": "user", "content": "b"}], stream=True
    )
    return [event.type for event in events]


def tools(url):
    ask = of(url).messages.create
    more = {"model": "llamita", "max_tokens": 200, "tools": TOOLS, "extra_body": {"temperature": 0}}
    first = ask(messages=PARIS, **more)
    (call,) = [block for block in first.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees and cloudy"}
    turns = [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = ask(messages=PARIS + turns, **more)
    return {"first": first.model_dump(), "second": second.model_dump()}


def tools_stream(url):
    with of(url).messages.stream(
        model="toolful", max_tokens=100, messages=[{"role": "user", "content": "k"}], tools=TOOLS
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        return {"pieces": pieces, "final": stream.get_final_message().model_dump()}


def tools_in_parts(url):
    """The arguments of a call that the model writes in two tokens."""
    with of(url).messages.stream(
        model="toolful", max_tokens=100, messages=[{"role": "user", "content": "g"}], tools=TOOLS
    ) as stream:
        parts = [event.partial_json for event in stream if event.type == "input_json"]
        return {"parts": parts, "final": stream.get_final_message().model_dump()}


def thinking(url):
    answer = of(url).messages.create(
        model="llamita",
        max_tokens=2000,
        messages=[{"role": "user", "content": "What is 3 + 4?"}],
        thinking={"type": "enabled", "budget_tokens": 1024},
        extra_body={"temperature": 0},
    )
    return answer.model_dump()


def thinking_where_none_is(url):
    """Some users of the package send `thinking` to any model."""
    answer = of(url).messages.create(
        model="chatty",
        max_tokens=2000,
        messages=[{"role": "user", "content": "a"}],
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    return answer.content[0].model_dump()


def limits(url):
    ask = of(url).messages.create
    cut = ask(model="chatty", max_tokens=3, messages=[{"role": "user", "content": "b"}])
    stopped = ask(model="chatty", max_tokens=30, messages=[{"role": "user", "content": "b"}], stop_sequences=["w2"])
    return {"cut": cut.model_dump(), "stopped": stopped.model_dump()}


def counting(url):
    counted = of(url).messages.count_tokens(
        model="llamita", messages=PARIS, tools=TOOLS, system="Be brief.", thinking={"type": "disabled"}
    )
    answer = of(url).messages.create(
        model="llamita", max_tokens=1, messages=PARIS, tools=TOOLS, system="Be brief.", thinking={"type": "disabled"}
    )
    try:
        of(url).messages.count_tokens(model="nowhere", messages=FRANCE)
    except anthropic.NotFoundError as error:
        return {"counted": counted.model_dump(), "usage": answer.usage.model_dump(), "error": error.body}


def errors(url):
    try:
        of(url).messages.create(model="nowhere", max_tokens=3, messages=FRANCE)
    except anthropic.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.body]


run(
    messages, named_by_the_system, stream, stream_async, raw_stream, tools, tools_stream, tools_in_parts, thinking,
    thinking_where_none_is, limits, counting, errors,
)  # fmt: skip
