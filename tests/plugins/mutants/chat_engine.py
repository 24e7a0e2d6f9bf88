"""A right chat-level backend over the tiny model, and mutants of it."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from tests.plugins.mutants.engine import TinyBackend, TinyModel

from puna.backend import ChatDelta, ChatToolCall, Finish, TextDelta, UnsupportedError


class TinyChat(TinyModel):
    """Renders a conversation as lines, calls a tool if it must, and thinks its first words if it may."""

    async def generate(self, request, /):
        chat = request.chat
        if any(message.media for message in chat.messages):
            self.refuse_images()
        if chat.tools and self.must_call(chat):
            yield ChatDelta(tool_calls=(self.call(chat),))
            yield Finish(reason="stop", prompt_tokens=len(self.render(chat)), output_tokens=5)
            return
        request = self.changed(replace(request, prompt=self.render(chat), chat=None))
        thinks = chat.thinking == "on"
        async with aclosing(super().generate(request)) as events:
            async for event in events:
                for each in self.change(event, thinks=thinks):
                    yield each
                thinks = thinks and not isinstance(event, TextDelta)

    def refuse_images(self):
        raise UnsupportedError("no images")

    def must_call(self, chat):
        return chat.tool_choice == "required" or chat.tool_choice.startswith("tool:")

    def call(self, chat):
        return ChatToolCall(name=chat.tools[0].name, arguments_json='{"city": "Rome"}', id="1")

    def render(self, chat):
        lines = [f"{each.role}: {each.content}{[call.name for call in each.tool_calls]}" for each in chat.messages]
        return "\n".join(lines)

    def changed(self, request):
        return request

    def change(self, event, *, thinks):
        if not isinstance(event, TextDelta):
            return [event]
        return [self.delta_of(event, thinks=thinks)]

    def delta_of(self, event, *, thinks):
        if thinks:
            return ChatDelta(thinking=event.text, logprobs=event.logprobs)
        return ChatDelta(content=event.text, logprobs=event.logprobs)


class TinyChatBackend(TinyBackend):
    model_class = TinyChat


MUTANTS = {}


def chat_mutant(test):
    def register(cls):
        MUTANTS[cls.__name__] = (type(f"{cls.__name__}Backend", (TinyBackend,), {"model_class": cls}), f"test_{test}")
        return cls

    return register


@chat_mutant("a_conversation_is_answered")
class YieldsText(TinyChat):
    def change(self, event, *, thinks):
        return [event]


@chat_mutant("a_conversation_is_answered")
class EmptyChatDeltas(TinyChat):
    def change(self, event, *, thinks):
        return [ChatDelta(), *super().change(event, thinks=thinks)]


@chat_mutant("a_conversation_is_answered")
class NoUsage(TinyChat):
    def finish(self, run, reason):
        return replace(super().finish(run, reason), prompt_tokens=0, cached_prompt_tokens=0, output_tokens=0)


@chat_mutant("a_conversation_is_answered")
class NoChatFinish(TinyChat):
    def change(self, event, *, thinks):
        return [] if isinstance(event, Finish) else super().change(event, thinks=thinks)


@chat_mutant("the_answer_comes_while_it_is_generated")
class NotStreamed(TinyChat):
    kept = ""

    def change(self, event, *, thinks):
        if isinstance(event, TextDelta):
            self.kept += event.text
            return []
        if isinstance(event, Finish):
            return [ChatDelta(content=self.kept), event]
        return [event]


@chat_mutant("all_messages_reach_the_model")
class OnlyTheLastMessage(TinyChat):
    def render(self, chat):
        return super().render(replace(chat, messages=chat.messages[-1:]))


@chat_mutant("all_messages_reach_the_model")
class SystemMessageLost(TinyChat):
    def render(self, chat):
        return super().render(replace(chat, messages=tuple(each for each in chat.messages if each.role != "system")))


@chat_mutant("a_limit_is_kept")
class ChatLimitIgnored(TinyChat):
    def changed(self, request):
        return replace(request, max_tokens=24)


@chat_mutant("a_limit_is_kept")
class ChatLimitIsStop(TinyChat):
    def finish(self, run, reason):
        return super().finish(run, "stop")


@chat_mutant("a_stop_string_ends_the_content_and_is_not_in_it")
class ChatStopIgnored(TinyChat):
    def changed(self, request):
        return replace(request, stop=())


@chat_mutant("tools_are_called_or_refused")
class ToolsIgnored(TinyChat):
    def must_call(self, chat):
        return False


@chat_mutant("tools_are_called_or_refused")
class CallsAnyway(TinyChat):
    def must_call(self, chat):
        return True


@chat_mutant("tools_are_called_or_refused")
class ArgumentsCut(TinyChat):
    def call(self, chat):
        return ChatToolCall(name=chat.tools[0].name, arguments_json='{"city": "Ro')


@chat_mutant("tools_are_called_or_refused")
class ArgumentsAreText(TinyChat):
    def call(self, chat):
        return ChatToolCall(name=chat.tools[0].name, arguments_json='"{}"')


@chat_mutant("tools_are_called_or_refused")
class AnotherTool(TinyChat):
    def call(self, chat):
        return ChatToolCall(name="get_time", arguments_json="{}")


@chat_mutant("tools_are_called_or_refused")
class ToolResultLost(TinyChat):
    def render(self, chat):
        return super().render(replace(chat, messages=chat.messages[:1]))


@chat_mutant("thinking_is_apart_from_the_content")
class AlwaysThinks(TinyChat):
    def delta_of(self, event, *, thinks):
        return ChatDelta(content=event.text, thinking=event.text)


@chat_mutant("structured_output_is_enforced_or_refused")
class ChatConstraintIgnored(TinyChat):
    def changed(self, request):
        return replace(request, constraint=None)


@chat_mutant("what_is_not_declared_is_refused")
class ChatImagesIgnored(TinyChat):
    def refuse_images(self):
        pass


@chat_mutant("what_is_not_declared_is_refused")
class ChatLogprobsIgnored(TinyChat):
    def changed(self, request):
        return replace(request, top_logprobs=None)


@chat_mutant("conversations_are_independent")
class ConversationsMixed(TinyChat):
    latest = None

    def render(self, chat):
        if self.open and self.latest:
            return self.latest
        self.latest = super().render(chat)
        return self.latest


@chat_mutant("closing_a_generator_cancels_the_request")
class ChatGoesOn(TinyChat):
    async def serve(self, request, tokens, matcher):
        try:
            async for event in super().serve(request, tokens, matcher):
                yield event
        finally:
            self.task = asyncio.ensure_future(asyncio.sleep(3))
