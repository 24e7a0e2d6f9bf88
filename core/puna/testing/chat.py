"""The contract of chat-level backends as tests: conversations in, ChatDelta out.

class TestClerk(ChatContract):
    manifest = "backend.toml"

    def spec(self) -> ModelSpec:
        return ModelSpec(path="", upstream="clerk-1")
"""

import asyncio
import itertools
import json
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from puna.backend import (
    BackendError,
    ChatDelta,
    ChatInput,
    ChatMessage,
    ChatTool,
    ChatToolCall,
    Constraint,
    Finish,
    InvalidRequestError,
    LoadedModel,
    Prefill,
    SequenceRequest,
    TokenLogprob,
    UnsupportedError,
)
from puna.testing.answers import check_finish, first_event, refused
from puna.testing.context import png
from puna.testing.harness import ContractBase
from puna.testing.vectors import VectorTests

TOOL = ChatTool(
    name="get_weather",
    description="Returns the weather of a city.",
    parameters_json='{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)
WORDS = ("qz7-xylophone", "jk9-zebra")
SCHEMA = Constraint("json_schema", json.dumps({"enum": WORDS}))
MANY = 2000
"""max_tokens of an answer that is to be cancelled."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The events of a complete answer."""

    deltas: tuple[ChatDelta, ...]
    finish: Finish

    @property
    def content(self) -> str:
        """The whole content."""
        return "".join(delta.content for delta in self.deltas)

    @property
    def thinking(self) -> str:
        """The whole thinking."""
        return "".join(delta.thinking for delta in self.deltas)

    @property
    def calls(self) -> tuple[ChatToolCall, ...]:
        """All calls of tools."""
        return tuple(call for delta in self.deltas for call in delta.tool_calls)

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """The log-probabilities of all tokens."""
        return [each for delta in self.deltas for each in delta.logprobs]


async def collect_chat(model: LoadedModel, request: SequenceRequest) -> ChatAnswer:
    """Run a conversation to its end. Raises AssertionError for an event that the contract forbids at its place."""
    deltas: list[ChatDelta] = []
    finish = None
    begun = time.perf_counter_ns()
    async with aclosing(model.generate(request)) as events:
        async for event in events:
            assert finish is None, f"{event} came after the Finish"
            if isinstance(event, ChatDelta):
                carries = event.content or event.thinking or event.tool_calls or event.logprobs
                assert carries, "a delta is empty; yield none for an event of the engine that adds nothing"
                f"{event.content}{event.thinking}".encode()
                deltas.append(event)
            elif isinstance(event, Finish):
                finish = event
            else:
                assert isinstance(event, Prefill), f"{event} came; a chat-level backend yields ChatDelta"
                assert not deltas, "Prefill came after a delta"
            await asyncio.sleep(0)
    assert finish is not None, "the generator ended without a Finish; yield one as the last event"
    check_finish(finish, request, time.perf_counter_ns() - begun)
    return ChatAnswer(tuple(deltas), finish)


class ChatContract(VectorTests, ContractBase):
    """Tests that every chat-level backend passes. The manifest says what is tested beyond plain conversations."""

    def chat(self, *texts: str, **values: Any) -> SequenceRequest:  # noqa: ANN401 (fields of ChatInput)
        """Return a request with these messages, of the user and the assistant in turn."""
        roles = ("user", "assistant")
        messages = [
            ChatMessage(role=roles[turn % 2], content=text) for turn, text in enumerate(texts or (self.prompt,))
        ]
        chat = ChatInput(messages=tuple(values.pop("messages", messages)), **values)
        return self.request(prompt="", chat=chat)

    def test_a_conversation_is_answered(self) -> None:
        """A conversation is answered with deltas and one Finish, which counts the tokens.

        If it fails: the message names the event that is wrong. Take the counts from the engine's usage.
        """

        async def test(model: LoadedModel) -> None:
            answer = await collect_chat(model, self.chat())
            assert answer.content or answer.thinking, "there is no answer"
            assert answer.finish.prompt_tokens > 0, "the tokens of the prompt are not counted"
            assert answer.finish.output_tokens > 0, "the tokens of the answer are not counted"
            again = await collect_chat(model, self.chat())
            assert again.finish.prompt_tokens == answer.finish.prompt_tokens

        self.run_any(test)

    def test_the_answer_comes_while_it_is_generated(self) -> None:
        """An answer of many tokens comes in several deltas.

        If it fails: let the engine stream, and yield each of its events at once.
        """

        async def test(model: LoadedModel) -> None:
            answer = await collect_chat(model, self.chat())
            if answer.finish.output_tokens >= 8:
                assert len(answer.deltas) > 2, "the whole answer came at once"

        self.run_any(test)

    def test_all_messages_reach_the_model(self) -> None:
        """Each message of a conversation, of whatever role, counts towards the prompt.

        If it fails: pass all messages on, in order, with their roles.
        """

        async def test(model: LoadedModel) -> None:
            question = ChatMessage(role="user", content=self.prompt)
            before = (
                ChatMessage(role="system", content="Answer in one word, as a pirate would."),
                ChatMessage(role="user", content="Who are you, and what is your name?"),
                ChatMessage(role="assistant", content="I am a model without a name."),
            )
            counts = []
            for begin in range(len(before), -1, -1):
                answer = await collect_chat(model, self.chat(messages=(*before[begin:], question)))
                counts.append(answer.finish.prompt_tokens)
            assert all(one < other for one, other in itertools.pairwise(counts)), (
                f"a longer conversation has no more tokens: {counts}"
            )

        self.run_any(test)

    def test_a_limit_is_kept(self) -> None:
        """`max_tokens` ends an answer with the reason "length".

        If it fails: pass `max_tokens` on, and map the engine's reason.
        """

        async def test(model: LoadedModel) -> None:
            whole = await collect_chat(model, self.chat())
            for limit in (1, 3):
                answer = await collect_chat(model, replace(self.chat(), max_tokens=limit))
                if whole.finish.output_tokens > limit:
                    assert (answer.finish.reason, answer.finish.output_tokens) == ("length", limit)
                    assert len(answer.content) <= len(whole.content)

        self.run_any(test)

    def test_a_stop_string_ends_the_content_and_is_not_in_it(self) -> None:
        """The content ends before the stop string, and the reason is "stop".

        If it fails: pass `stop` on to the engine, or cut the content yourself with `puna.backend.text.TextAssembly`.
        """

        async def test(model: LoadedModel) -> None:
            whole = (await collect_chat(model, self.chat())).content
            for begin in {len(whole) // 3, len(whole) // 2}:
                stop = whole[begin : begin + 3]
                if stop.strip():
                    answer = await collect_chat(model, replace(self.chat(), stop=("never\0there", stop)))
                    assert answer.content == whole.partition(stop)[0], f"stop string {stop!r} in {whole!r}"
                    assert answer.finish.reason == "stop"

        self.run_any(test)

    def test_tools_are_called_or_refused(self) -> None:
        """A tool that must be called is called with a JSON object, its result can be given back, and "none" forbids it.

        If it fails: pass tools and `tool_choice` on, collect a call until its arguments are complete, and yield it
        once. Without the capability `tools`, raise UnsupportedError.
        """

        async def test(model: LoadedModel) -> None:
            forced = replace(self.chat(tools=(TOOL,), tool_choice=f"tool:{TOOL.name}"), max_tokens=200)
            if not self.declares("tools"):
                error = await refused(model, forced)
                assert isinstance(error, UnsupportedError | InvalidRequestError), "tools were ignored"
                return
            for choice in (f"tool:{TOOL.name}", "required"):
                request = replace(self.chat(tools=(TOOL,), tool_choice=choice), max_tokens=200)
                calls = (await collect_chat(model, request)).calls
                assert [call.name for call in calls[:1]] == [TOOL.name], f"{choice} gives the calls {calls}"
                assert isinstance(json.loads(calls[0].arguments_json), dict), "arguments are a JSON object"
            messages = (
                ChatMessage(role="user", content=self.prompt),
                ChatMessage(role="assistant", tool_calls=calls[:1]),
                ChatMessage(role="tool", content="sunny", tool_name=TOOL.name, tool_call_id=calls[0].id),
            )
            answer = await collect_chat(model, self.chat(messages=messages, tools=(TOOL,)))
            assert answer.deltas, "there is no answer to the result of a tool"
            assert answer.finish.prompt_tokens > (await collect_chat(model, self.chat())).finish.prompt_tokens
            none = await collect_chat(model, self.chat(tools=(TOOL,), tool_choice="none"))
            assert not none.calls, 'a tool was called although tool_choice is "none"'

        self.run_any(test)

    def test_thinking_is_apart_from_the_content(self) -> None:
        """With thinking off there is none, and thinking is not repeated in the content.

        If it fails: yield the engine's reasoning in `thinking`, and pass `thinking` of the request on.
        """

        async def test(model: LoadedModel) -> None:
            if self.declares("thinking"):
                off = await collect_chat(model, self.chat(thinking="off"))
                assert not off.thinking, "there is thinking although it is off"
                on = await collect_chat(model, self.chat(thinking="on"))
                assert len(on.thinking) < 16 or on.thinking not in on.content, "the thinking is in the content too"

        self.run_any(test)

    def test_structured_output_is_enforced_or_refused(self) -> None:
        """The content keeps to the constraint, or the request is refused before the first delta.

        If it fails: pass the constraint on in the engine's way, or raise UnsupportedError.
        """

        async def test(model: LoadedModel) -> None:
            request = self.chat()
            request = replace(request, constraint=SCHEMA, max_tokens=100)
            error = await refused(model, request)
            if error is None:
                answer = await collect_chat(model, request)
                beginnings = {f'"{word}"'[:length] for word in WORDS for length in range(len(word) + 3)}
                assert answer.content.strip() in beginnings, f"{answer.content!r} does not keep to the schema"
                if answer.finish.reason == "stop":
                    assert json.loads(answer.content) in WORDS
            else:
                assert isinstance(error, UnsupportedError | InvalidRequestError), f"it was refused with {error!r}"
                self.check_may_lack("json_schema")

        self.run_any(test)

    def test_what_is_not_declared_is_refused(self) -> None:
        """Images and log-probabilities are never ignored.

        If it fails: raise UnsupportedError before the first delta for what the manifest does not declare.
        """

        async def test(model: LoadedModel) -> None:
            image = ChatMessage(role="user", content=self.prompt, media=(png(255, 0, 0),))
            if not self.declares("vision"):
                error = await refused(model, self.chat(messages=(image,)))
                assert isinstance(error, BackendError), "an image was ignored"
            request = replace(self.chat(), top_logprobs=2)
            error = await refused(model, request)
            if error is None:
                answer = await collect_chat(model, request)
                assert answer.logprobs, "log-probabilities were asked for and left out"
                for each in answer.logprobs:
                    assert max([each.logprob, *(other.logprob for other in each.top)]) <= 1e-3
            else:
                self.check_may_lack("logprobs")

        self.run_any(test)

    def test_conversations_are_independent(self) -> None:
        """Conversations that run at once give the answers that they give alone.

        If it fails: keep the state of each request apart.
        """

        async def test(model: LoadedModel) -> None:
            requests = [self.chat(prompt) for prompt in self.prompts(4)]
            alone = [(await collect_chat(model, request)).content for request in requests]
            together = await asyncio.gather(*(collect_chat(model, request) for request in requests))
            assert [answer.content for answer in together] == alone

        self.run_any(test)

    def test_closing_a_generator_cancels_the_request(self) -> None:
        """A cancelled answer ends at once, leaves no task, and the next request is served.

        If it fails: close the engine's stream in `finally`, so that the upstream stops too.
        """

        async def test(model: LoadedModel) -> None:
            await collect_chat(model, replace(self.chat(), max_tokens=1))
            await asyncio.sleep(0.05)
            tasks = len(asyncio.all_tasks())
            async with asyncio.timeout(self.stop_seconds):
                for number in range(model.facts.parallel + 1 if model.facts.parallel < 8 else 8):
                    events = model.generate(replace(self.chat(f"{self.prompt} {number}"), max_tokens=MANY))
                    await first_event(events)
                    await events.aclose()
                await collect_chat(model, replace(self.chat(), max_tokens=1))
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) <= tasks, f"tasks are left: {asyncio.all_tasks()}"

        self.run_any(test)
