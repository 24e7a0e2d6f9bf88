"""The openai package."""

import json
import time

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


def line(custom_id, url, body):
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def batch(url):
    """Each endpoint, with a request that succeeds and one that fails."""
    client, found = of(url), {}
    bodies = {
        "/v1/chat/completions": {"model": "llamita", "messages": FRANCE, "temperature": 0},
        "/v1/completions": {"model": "llamita", "prompt": "a", "max_tokens": 2},
        "/v1/embeddings": {"model": "embedder", "input": ["a", "b"]},
        "/v1/responses": {"model": "llamita", "input": "What is the capital of France?", "temperature": 0},
    }
    for endpoint, body in bodies.items():
        lines = "\n".join((line("good", endpoint, body), line("bad", endpoint, body | {"model": "nowhere"})))
        file = client.files.create(file=("in.jsonl", lines.encode()), purpose="batch")
        made = client.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"for": "test"}
        )
        while (made := client.batches.retrieve(made.id)).status not in ("completed", "failed"):
            time.sleep(0.05)
        found[endpoint] = {
            "batch": made.model_dump(),
            "input": client.files.content(file.id).text == lines,
            "good": json.loads(client.files.content(made.output_file_id).text),
            "bad": json.loads(client.files.content(made.error_file_id).text),
            "file": client.files.retrieve(made.output_file_id).model_dump(),
        }
    return found


def batch_lists(url):
    """Paging by the package's own iterators, cancellation and deletion."""
    client = of(url)
    lines = "\n".join(line(str(number), "/v1/completions", {"model": "nowhere"}) for number in range(3))
    files = [client.files.create(file=("in.jsonl", lines.encode()), purpose="batch").id for _ in range(3)]
    made = [
        client.batches.create(input_file_id=id_, endpoint="/v1/completions", completion_window="24h").id
        for id_ in files
    ]
    cancelled = client.batches.cancel(made[0])
    return {
        "batches": [each.id for each in client.batches.list(limit=2)][:3] == made[::-1],
        "files": [each.id for each in client.files.list(limit=2, purpose="batch")][:3] == files[::-1],
        "cancelled": cancelled.status,
        "deleted": client.files.delete(files[0]).deleted,
        "left": files[0] in [each.id for each in client.files.list()],
    }


run(
    chat, stream, stream_async, stream_helper, tools_in_parts, tools, thinking, json_schema, json_parsed, json_object,
    logprobs, embeddings, completions, models, responses, responses_stream, responses_tools_in_parts, errors,
    batch, batch_lists,
)  # fmt: skip
