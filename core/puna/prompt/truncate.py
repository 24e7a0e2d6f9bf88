"""Makes conversations and prompts fit the context: the oldest messages go first, then the middle of what is left."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from puna.messages import Message
from puna.prompt.conversation import mark_media
from puna.prompt.rendered import RenderedPrompt

_PRECISION: Final = 64
"""Shortened results may be shorter than they must be by this part of the longest one."""


class Render(Protocol):
    """Writes the prompt of a conversation."""

    async def __call__(self, messages: Sequence[Message], /) -> RenderedPrompt:
        """Return it. Raises TemplateError."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The rest of a conversation, its prompt, and the media that `[img-N]` in it stand for."""

    messages: tuple[Message, ...]
    prompt: RenderedPrompt
    media: tuple[bytes, ...]


async def fit(
    messages: Sequence[Message],
    render: Render,
    count: Callable[[str], Awaitable[int]],
    limit: int | None,
    *,
    per_image: int = 0,
    mark: bool = True,
) -> Fitted:
    """Drop the oldest messages until the prompt has at most `limit` tokens; None: drop none.

    System messages and the last message always stay, however long. `per_image` tokens are added for each image of the
    messages that are not yet dropped. `mark`: put `[img-N]` into the contents (some renderers do it themselves).
    Fewer messages are taken never to make more tokens, so that the first that fit are found by halving.

    A tool's result at the end means nothing without the question and the call before it. Where they would be dropped,
    the results behind the last question are shortened instead, if that is enough.
    """
    fitted, first = await _without_oldest(messages, render, count, limit, per_image=per_image, mark=mark)
    question = _question(messages)
    if limit is None or first <= question:
        return fitted
    systems = [message for message in messages[:question] if message.role == "system"]
    longest = max(len(message.content) for message in messages[question:] if message.role == "tool")
    shorter = None
    low, high = -1, longest
    while high - low > longest // _PRECISION + 1:
        middle = (low + high) // 2
        rest = [_shortened(message, middle) for message in messages[question:]]
        media = tuple(image for message in rest for image in message.media)
        final = [*systems, *(mark_media(rest) if mark else rest)]
        prompt = await render(final)
        if await count(prompt.text) + per_image * len(media) <= limit:
            low, shorter = middle, Fitted(tuple(final), prompt, media)
        else:
            high = middle
    return shorter or fitted


def _question(messages: Sequence[Message]) -> int:
    """Return the place of the question that the tools' results at the end belong to; behind the end: there is none."""
    if not messages or messages[-1].role != "tool":
        return len(messages)
    return max((i for i, message in enumerate(messages) if message.role == "user"), default=len(messages))


def _shortened(message: Message, length: int) -> Message:
    """Return a tool's result with so many characters of its beginning and its end; any other message as it is."""
    text = message.content
    if message.role != "tool" or len(text) <= length:
        return message
    end = length // 2
    return replace(message, content=f"{text[: length - end]}\n[…]\n{text[len(text) - end :]}")


async def _without_oldest(
    messages: Sequence[Message],
    render: Render,
    count: Callable[[str], Awaitable[int]],
    limit: int | None,
    *,
    per_image: int,
    mark: bool,
) -> tuple[Fitted, int]:
    """Drop the oldest messages as `fit` says; return what is left, and the place of the first message that stays."""
    last = len(messages) - 1
    found: tuple[int, RenderedPrompt] | None = None

    def kept(first: int) -> list[Message]:
        return [message for i, message in enumerate(messages) if i >= first or message.role == "system"]

    async def fits(first: int) -> bool:
        nonlocal found
        if limit is None:
            return True
        images = sum(len(message.media) for message in messages[first:])
        prompt = await render(kept(first))
        if await count(prompt.text) + per_image * images > limit:
            return False
        found = first, prompt
        return True

    low, high = 0, max(last, 0)
    if last < 1 or await fits(0):
        high = 0
    while low + 1 < high:
        middle = (low + high) // 2
        if await fits(middle):
            high = middle
        else:
            low = middle
    systems = [message for message in messages[:high] if message.role == "system"]
    rest = messages[high:]
    final = [*systems, *(mark_media(rest) if mark else rest)]
    media = tuple(image for message in rest for image in message.media)
    if found is not None and found[0] == high and not (mark and media):
        return Fitted(tuple(final), found[1], media), high
    return Fitted(tuple(final), await render(final), media), high


def cut_tokens(tokens: Sequence[int], num_ctx: int, keep: int, adds_bos: bool) -> list[int]:
    """Cut the middle out of tokens that do not fit a context of `num_ctx`; the first `keep` stay.

    A negative `keep` keeps all that can be kept. `adds_bos`: the tokenizer puts a token of its own in front.
    """
    if len(tokens) <= num_ctx - 1:
        return list(tokens)
    first, last = kept_ends(num_ctx, keep, adds_bos)
    return [*tokens[:first], *tokens[len(tokens) - last :]]


def kept_ends(num_ctx: int, keep: int, adds_bos: bool) -> tuple[int, int]:
    """Return how many tokens stay at the beginning and at the end of a prompt that does not fit: see cut_tokens."""
    most = num_ctx - 1
    first = min((most if keep < 0 else keep) + adds_bos, most)
    total = num_ctx - max((num_ctx - first) // 2, 1)
    return first, total - first
