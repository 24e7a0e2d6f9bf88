"""Puts the messages of a prompt together: the model's own, the request's, and the system message."""

from collections.abc import Sequence
from dataclasses import replace

from puna.errors import InvalidRequestError
from puna.messages import Message
from puna.prompt import media_markers
from puna.prompt.go_template.thinking import ThinkingParser


def assemble(model_messages: Sequence[Message], system: str, request_messages: Sequence[Message]) -> list[Message]:
    """Return the conversation: the model's messages, then the request's.

    The model's system message goes to the front unless the request's first message is a system message.
    """
    messages = [*model_messages, *request_messages]
    # A request without messages only loads the model, so nothing is put in front.
    if system and request_messages and request_messages[0].role != "system":
        messages.insert(0, Message(role="system", content=system))
    return messages


def strip_old_thinking(messages: Sequence[Message]) -> list[Message]:
    """Return messages without the `<think>` block at the start of assistant messages before the last user message.

    Ollama does this for models of the family "qwen3" and those called "deepseek-r1".
    """
    # Without a user message nothing is removed.
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=0)
    return [
        _without_thinking(message) if message.role == "assistant" and i < last else message
        for i, message in enumerate(messages)
    ]


def _without_thinking(message: Message) -> Message:
    # The parser that reads answers also cuts them: both know the tags and the white space around them.
    content = ThinkingParser("<think>", "</think>").feed(message.content).content
    return message.with_content(content, len(message.content) - len(content))


def mark_media(messages: Sequence[Message], first: int = 0) -> list[Message]:
    """Return messages with a marker `[img-N]` for each image, N counting from `first`.

    puna.prompt.media_markers says where.
    """
    marked: list[Message] = []
    number = first
    for message in messages:
        if message.media:
            message = replace(message, content="".join(media_markers.marked(message, number)), media_at=())
            number += len(message.media)
        marked.append(message)
    return marked


def refuse_several_images(messages: Sequence[Message]) -> None:
    """Raise InvalidRequestError for a message with several images. Models of the family "mllama" take only one."""
    if any(len(message.media) > 1 for message in messages):
        raise InvalidRequestError("this model only supports one image while more than one image requested")
