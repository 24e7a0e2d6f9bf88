"""A conversation of `run`: settings, messages, and requests to the model."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import grpc.aio

from puna_client.v1 import chat_pb2, chat_pb2_grpc, message_pb2, options_pb2, usage_pb2

LEVELS = {
    "": options_pb2.THINKING_LEVEL_UNSPECIFIED,
    "false": options_pb2.THINKING_LEVEL_OFF,
    "true": options_pb2.THINKING_LEVEL_ON,
    "low": options_pb2.THINKING_LEVEL_LOW,
    "medium": options_pb2.THINKING_LEVEL_MEDIUM,
    "high": options_pb2.THINKING_LEVEL_HIGH,
    "max": options_pb2.THINKING_LEVEL_MAX,
}


@dataclass(slots=True, kw_only=True)
class Conversation:
    """The model, the messages so far, and the settings for answers."""

    model: str
    messages: list[message_pb2.ChatMessage] = field(default_factory=list)
    parameters: dict[str, object] = field(default_factory=dict)
    """Parameters that the user has set, by their names in Modelfiles."""
    system: str = ""
    """System message that the user has set."""
    format: str = ""
    """"json" or the text of a JSON Schema."""
    think: str = ""
    """A key of LEVELS."""
    keep_alive_ns: int | None = None
    finish: usage_pb2.Finish | None = None
    """The end of the last answer."""

    def set_system(self, text: str) -> None:
        """Set the system message. Replaces a system message that no other message follows."""
        self.system = text
        # Two settings in a row mean the second one. A message in between has been answered under the first, so it
        # stays.
        if self.messages and self.messages[-1].role == "system":
            self.messages.pop()
        self.messages.append(message_pb2.ChatMessage(role="system", content=text))

    def clear(self) -> None:
        """Remove all messages but the system message."""
        self.messages = [message_pb2.ChatMessage(role="system", content=self.system)] if self.system else []

    def options(self) -> options_pb2.RequestOptions:
        """Return the options of a request."""
        options = options_pb2.RequestOptions(
            options_json=json.dumps(self.parameters) if self.parameters else "",
            # An interactive conversation goes on when it is longer than the context, as Ollama's does.
            truncate=True,
            thinking=LEVELS[self.think],
        )
        if self.format == "json":
            options.constraint.json_object = True
        elif self.format:
            options.constraint.json_schema = self.format
        if self.keep_alive_ns is not None:
            # A negative duration means for good, as in Ollama.
            if self.keep_alive_ns < 0:
                options.keep_alive.forever = True
            else:
                options.keep_alive.duration.FromNanoseconds(self.keep_alive_ns)
        return options

    async def load(self, channel: grpc.aio.Channel) -> None:
        """Load the model."""
        request = chat_pb2.ChatRequest(model=self.model, options=self.options())
        await chat_pb2_grpc.ChatServiceStub(channel).Chat(request)

    async def ask(
        self, channel: grpc.aio.Channel, content: str, media: list[bytes]
    ) -> AsyncGenerator[chat_pb2.ChatDelta]:
        """Send a message and yield the answer while it arrives. Both join the messages once the answer ends.

        Closing the generator stops the model; then neither is kept.
        """
        said = message_pb2.ChatMessage(role="user", content=content)
        for each in media:
            said.media.add(data=each)
        request = chat_pb2.ChatRequest(model=self.model, messages=[*self.messages, said], options=self.options())
        heard = message_pb2.ChatMessage(role="assistant")
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamChat(request)
        try:
            async for answer in call:
                for delta in answer.deltas:
                    heard.content += delta.content
                    heard.thinking += delta.thinking
                    yield delta
                if answer.HasField("done"):
                    self.finish = answer.done.finish
        finally:
            # Without this, the model would go on after the consumer has stopped.
            call.cancel()
        # Not in the `finally`: half an answer must not become part of the conversation.
        self.messages += [said, heard]
