"""The litellm package, by both of its providers and by the OpenAI one."""

import litellm
from steps import FUNCTION, PERSON, run

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS = [{"type": "function", "function": FUNCTION}]
PARIS = [{"role": "user", "content": "What is the weather in Paris?"}]
ANNA = [{"role": "user", "content": "Anna is 31 years old. Write JSON with name and age."}]
FORM = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}


def ask(url, provider="ollama_chat", model="llamita", **more):
    return litellm.completion(model=f"{provider}/{model}", api_base=url, temperature=0, num_retries=0, **more)


def chat(url):
    return {provider: ask(url, provider, messages=FRANCE).model_dump() for provider in ("ollama", "ollama_chat")}


def openai(url):
    return ask(f"{url}/v1", "openai", messages=FRANCE, api_key="ollama").choices[0].message.content


def stream(url):
    return {
        provider: [chunk.choices[0].delta.content for chunk in ask(url, provider, messages=FRANCE, stream=True)]
        for provider in ("ollama", "ollama_chat")
    }


async def stream_async(url):
    stream = await litellm.acompletion(
        model="ollama_chat/llamita", api_base=url, messages=FRANCE, temperature=0, stream=True
    )
    return [chunk.choices[0].delta.content async for chunk in stream]


def tools(url):
    first = ask(url, messages=PARIS, tools=TOOLS).choices[0]
    (call,) = first.message.tool_calls
    said = [*PARIS, first.message, {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and cloudy"}]
    second = ask(url, messages=said, tools=TOOLS).choices[0]
    return {
        "call": [call.function.name, call.function.arguments],
        "finish": first.finish_reason,
        "answer": second.message.content,
    }


def json_schema(url):
    return {
        provider: ask(url, provider, messages=ANNA, response_format=FORM).choices[0].message.content
        for provider in ("ollama", "ollama_chat")
    }


def thinking(url):
    said = [{"role": "user", "content": "What is 3 + 4?"}]
    message = ask(url, messages=said, reasoning_effort="high").choices[0].message
    return {"text": message.content, "reasoning": message.reasoning_content}


def embeddings(url):
    answer = litellm.embedding(model="ollama/embedder", input=["one", "two"], api_base=url)
    return [each["embedding"] for each in answer.data]


def options(url):
    said = [{"role": "user", "content": "b"}]
    return ask(url, model="chatty", messages=said, max_tokens=9, stop=["w2"], top_p=0.9, seed=1).model_dump()


def errors(url):
    found = {}
    for provider in ("ollama", "ollama_chat"):
        try:
            ask(url, provider, "nowhere", messages=FRANCE)
        except Exception as error:
            found[provider] = [type(error).__name__, str(error)]
    return found


run(chat, openai, stream, stream_async, tools, json_schema, thinking, embeddings, options, errors)
