"""The openai package."""

import openai
from pydantic import BaseModel
from steps import FUNCTION, PERSON, run

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS = [{"type": "function", "function": FUNCTION}]


def of(url, **more):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="ollama", max_retries=0, **more)


def chat(url):
    answer = of(url).chat.completions.create(model="llamita", messages=FRANCE, temperature=0)
    return answer.model_dump()


def stream(url):
    chunks = list(
        of(url).chat.completions.create(
            model="llamita", messages=FRANCE, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    return {
        "pieces": [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content],
        "ids": len({chunk.id for chunk in chunks}),
        "finish": [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason],
        "usage": chunks[-1].usage.model_dump(),
        "last_choices": len(chunks[-1].choices),
    }


async def stream_async(url):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="ollama") as client:
        stream = await client.chat.completions.create(model="llamita", messages=FRANCE, temperature=0, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def stream_helper(url):
    """The helper that puts the chunks together again."""
    with of(url).chat.completions.stream(
        model="toolful", messages=[{"role": "user", "content": "k"}], tools=TOOLS
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    return {"kinds": kinds, "message": message.model_dump()}


def tools_in_parts(url):
    """The arguments of a call that the model writes in two tokens, as chunks and put together by the helper."""
    ask = {"model": "toolful", "messages": [{"role": "user", "content": "g"}], "tools": TOOLS}
    deltas = [chunk.choices[0].delta for chunk in of(url).chat.completions.create(stream=True, **ask)]
    with of(url).chat.completions.stream(**ask) as stream:
        events = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    return {
        "parts": [call.model_dump() for delta in deltas for call in delta.tool_calls or ()],
        "put_together": [event.arguments for event in events],
    }


def tools(url):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    ask = of(url).chat.completions.create
    first = ask(model="llamita", messages=messages, tools=TOOLS, temperature=0).choices[0]
    (call,) = first.message.tool_calls
    messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and cloudy"}]
    second = ask(model="llamita", messages=messages, tools=TOOLS, temperature=0).choices[0]
    return {"first": first.model_dump(), "second": second.model_dump()}


def thinking(url):
    answer = of(url).chat.completions.create(
        model="llamita",
        messages=[{"role": "user", "content": "What is 3 + 4?"}],
        temperature=0,
        reasoning_effort="high",
    )
    return answer.choices[0].message.model_dump()


def json_schema(url):
    asked = [{"role": "user", "content": "Anna is 31 years old. Write JSON with name and age."}]
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = of(url).chat.completions.create(model="llamita", messages=asked, response_format=form, temperature=0)
    return answer.choices[0].message.content


def json_parsed(url):
    class Person(BaseModel):
        name: str
        age: int

    answer = of(url).chat.completions.parse(
        model="llamita",
        messages=[{"role": "user", "content": "Anna is 31 years old. Write JSON with name and age."}],
        response_format=Person,
        temperature=0,
    )
    return answer.choices[0].message.parsed.model_dump()


def json_object(url):
    answer = of(url).chat.completions.create(
        model="llamita",
        messages=[{"role": "user", "content": "Write JSON."}],
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=200,
    )
    return answer.choices[0].message.content


def logprobs(url):
    choice = (
        of(url)
        .chat.completions.create(model="llamita", messages=FRANCE, temperature=0, logprobs=True, top_logprobs=3)
        .choices[0]
    )
    return {"text": choice.message.content, "tokens": [each.model_dump() for each in choice.logprobs.content]}


def embeddings(url):
    """By default the package asks for base64 and unpacks it."""
    client = of(url)
    packed = client.embeddings.create(model="embedder", input=["one", "two", "one"])
    plain = client.embeddings.create(model="embedder", input="one", encoding_format="float")
    short = client.embeddings.create(model="embedder", input="one", dimensions=8)
    return {
        "packed": [each.embedding for each in packed.data],
        "indexes": [each.index for each in packed.data],
        "usage": packed.usage.model_dump(),
        "plain": plain.data[0].embedding,
        "short": short.data[0].embedding,
    }


def completions(url):
    client = of(url)
    whole = client.completions.create(model="scripted", prompt="a", max_tokens=3)
    pieces = [chunk.choices[0].text for chunk in client.completions.create(model="scripted", prompt="a", stream=True)]
    return {"whole": whole.model_dump(), "pieces": pieces}


def models(url):
    client = of(url)
    return {
        "list": [model.id for model in client.models.list()],
        "retrieved": client.models.retrieve("llamita").model_dump(),
    }


def responses(url):
    client = of(url)
    whole = client.responses.create(model="llamita", input="What is the capital of France?", temperature=0)
    called = client.responses.create(
        model="llamita",
        input="What is the weather in Paris?",
        tools=[{"type": "function", **FUNCTION, "strict": False}],
        temperature=0,
    )
    return {
        "text": whole.output_text,
        "status": whole.status,
        "usage": whole.usage.model_dump(),
        "called": [item.model_dump() for item in called.output],
    }


def responses_stream(url):
    with of(url).responses.stream(model="llamita", input="What is the capital of France?", temperature=0) as stream:
        events = list(stream)
        return {
            "kinds": [event.type for event in events],
            "numbers": [event.sequence_number for event in events],
            "pieces": [event.delta for event in events if event.type == "response.output_text.delta"],
            "text": stream.get_final_response().output_text,
        }


def responses_tools_in_parts(url):
    with of(url).responses.stream(
        model="toolful", input="g", tools=[{"type": "function", **FUNCTION, "strict": False}]
    ) as stream:
        parts = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        (item,) = stream.get_final_response().output
    return {"parts": parts, "arguments": item.arguments, "status": item.status}


def errors(url):
    found = {}
    for name, model, more in (("missing", "nowhere", {}), ("temperature", "scripted", {"temperature": "hot"})):
        try:
            of(url).chat.completions.create(model=model, messages=FRANCE, **more)
        except openai.APIStatusError as error:
            found[name] = [type(error).__name__, error.status_code, error.body]
    return found


run(
    chat, stream, stream_async, stream_helper, tools_in_parts, tools, thinking, json_schema, json_parsed, json_object,
    logprobs, embeddings, completions, models, responses, responses_stream, responses_tools_in_parts, errors,
)  # fmt: skip
