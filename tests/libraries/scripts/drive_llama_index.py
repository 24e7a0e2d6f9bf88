"""The llama-index-llms-ollama package."""

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel
from steps import run

FRANCE = "What is the capital of France?"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def of(url, model="llamita", **more):
    return Ollama(model=model, base_url=url, temperature=0, request_timeout=60, context_window=2048, **more)


def complete(url):
    answer = of(url).complete(FRANCE)
    return {"text": answer.text, "raw": sorted(answer.raw)}


def stream(url):
    return [each.delta for each in of(url).stream_complete(FRANCE)]


def chat(url):
    talk = of(url)
    said = [
        ChatMessage(role="system", content="Be kind."),
        ChatMessage(role="user", content="Hi! My name is Clara."),
    ]
    said += [talk.chat(said).message, ChatMessage(role="user", content="What is my name?")]
    return talk.chat(said).message.content


def stream_chat(url):
    return [each.delta for each in of(url).stream_chat([ChatMessage(role="user", content=FRANCE)])]


async def chat_async(url):
    answer = await of(url).achat([ChatMessage(role="user", content=FRANCE)])
    return answer.message.content


async def stream_chat_async(url):
    stream = await of(url).astream_chat([ChatMessage(role="user", content=FRANCE)])
    return [each.delta async for each in stream]


def thinking(url):
    answer = of(url, thinking=True).chat([ChatMessage(role="user", content="What is 3 + 4?")])
    return {"text": answer.message.content, "kinds": [block.block_type for block in answer.message.blocks]}


def tools(url):
    def get_weather(city: str) -> str:
        """Get the weather in a city"""
        return f"18 degrees and cloudy in {city}"

    talk = of(url)
    answer = talk.chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg="What is the weather in Paris?")
    calls = talk.get_tool_calls_from_response(answer)
    return [[call.tool_name, call.tool_kwargs] for call in calls]


def structured(url):
    asked = [ChatMessage(role="user", content="Anna is 31 years old. Write JSON with name and age.")]
    return of(url).as_structured_llm(Person).chat(asked).raw.model_dump()


def options(url):
    talk = Ollama(
        model="scripted", base_url=url, additional_kwargs={"num_predict": 3, "seed": 1}, keep_alive="5m",
        context_window=512,
    )  # fmt: skip
    return talk.complete("b").text


def errors(url):
    try:
        of(url, "nowhere").complete("a")
    except Exception as error:
        return [type(error).__name__, str(error)]


run(
    complete, stream, chat, stream_chat, chat_async, stream_chat_async, thinking, tools, structured, options, errors
)  # fmt: skip
