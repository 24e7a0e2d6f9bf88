"""The langchain-ollama package."""

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from pydantic import BaseModel
from steps import PERSON, run

FRANCE = "What is the capital of France?"


def of(url, model="llamita", **more):
    return ChatOllama(model=model, base_url=url, temperature=0, **more)


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city"""
    return f"18 degrees and cloudy in {city}"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def invoke(url):
    answer = of(url, reasoning=False, validate_model_on_init=True).invoke(FRANCE)
    return {"text": answer.content, "usage": answer.usage_metadata, "about": answer.response_metadata}


def history(url):
    talk = of(url, reasoning=False)
    said = [("human", "Hi! My name is Clara.")]
    said += [talk.invoke(said), ("human", "What is my name?")]
    return talk.invoke(said).content


def stream(url):
    chunks = list(of(url, reasoning=False).stream(FRANCE))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return {"pieces": [chunk.content for chunk in chunks], "usage": whole.usage_metadata}


async def stream_async(url):
    return [chunk.content async for chunk in of(url, reasoning=False).astream(FRANCE)]


def reasoning(url):
    answer = of(url, reasoning=True).invoke("What is 3 + 4?")
    return {"text": answer.content, "reasoning": answer.additional_kwargs["reasoning_content"]}


def tools(url):
    talk = of(url, reasoning=False).bind_tools([get_weather])
    said = [HumanMessage("What is the weather in Paris?")]
    first = talk.invoke(said)
    said.append(first)
    said += [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in first.tool_calls]
    return {"calls": first.tool_calls, "answer": talk.invoke(said).content}


def tools_stream(url):
    whole = None
    for chunk in of(url, "toolful").bind_tools([get_weather]).stream("k"):
        whole = chunk if whole is None else whole + chunk
    return {"text": whole.content, "calls": whole.tool_calls}


def structured(url):
    asked = "Anna is 31 years old. Write JSON with name and age."
    talk = of(url, reasoning=False)
    return {
        "class": talk.with_structured_output(Person).invoke(asked).model_dump(),
        "schema": talk.with_structured_output(PERSON | {"title": "Person"}).invoke(asked),
        "mode": talk.with_structured_output(None, method="json_mode").invoke(asked),
    }


def logprobs(url):
    answer = of(url, reasoning=False, logprobs=True, top_logprobs=2).invoke(FRANCE)
    return {"text": answer.content, "tokens": [each["token"] for each in answer.response_metadata["logprobs"]]}


def completion(url):
    talk = OllamaLLM(model="scripted", base_url=url, temperature=0)
    return {"whole": talk.invoke("a"), "pieces": list(talk.stream("a"))}


def embeddings(url):
    vectors = OllamaEmbeddings(model="embedder", base_url=url)
    return {"documents": vectors.embed_documents(["one", "two"]), "query": vectors.embed_query("one")}


def options(url):
    """What the package sends as options."""
    talk = ChatOllama(
        model="chatty", base_url=url, num_predict=4, num_ctx=512, seed=1, top_p=0.9, top_k=40, repeat_penalty=1.1,
        mirostat=0, tfs_z=1.0, stop=["w3"], keep_alive="5m",
    )  # fmt: skip
    return {
        "stopped": talk.invoke("b").content,
        "cut": talk.bind(stop=None).invoke("l").response_metadata["done_reason"],
    }


def errors(url):
    try:
        of(url, "nowhere").invoke("a")
    except Exception as error:
        return [type(error).__name__, str(error)]


run(
    invoke, history, stream, stream_async, reasoning, tools, tools_stream, structured, logprobs, completion,
    embeddings, options, errors,
)  # fmt: skip
