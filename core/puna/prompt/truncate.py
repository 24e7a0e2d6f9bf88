"""Makes conversations and prompts fit the context.

A chat loses whole messages, the oldest first, and never its system messages or its last message. Removing messages
never adds tokens, so the first message that can stay is found by bisection, with one rendering and one tokenization a
step. A prompt that is still too long loses the middle of its tokens: see cut_tokens.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from puna.messages import Message
from puna.prompt.conversation import mark_media
from puna.prompt.rendered import RenderedPrompt

_PRECISION: Final = 64
"""A shortened result may be shorter than necessary by one part in this many of the longest result."""


class Render(Protocol):
    """Renders the prompt of a conversation."""

    async def __call__(self, messages: Sequence[Message], /) -> RenderedPrompt:
        """Return it. Raises TemplateError."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The messages that stay, their prompt, and the media for the markers `[img-N]` in it."""

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
    """Drop the oldest messages until the prompt has at most `limit` tokens. None: drop none.

    System messages and the last message always stay, however long they are. An image counts as `per_image` tokens.
    `mark`: put `[img-N]` into the contents; some renderers do that themselves.

    A tool's result at the end means nothing without the question and the call before it. Where these would be dropped,
    the results after the last question are shortened instead, if that is enough.
    """
    fitted, first = await _without_oldest(messages, render, count, limit, per_image=per_image, mark=mark)
    question = _question(messages)
    # The question survived, so the result still has its meaning.
    if limit is None or first <= question:
        return fitted
    # System messages before the question stay, as in every other case.
    systems = [message for message in messages[:question] if message.role == "system"]
    longest = max(len(message.content) for message in messages[question:] if message.role == "tool")
    # Bisect the common length of the results. Some slack saves renderings of long conversations.
    shorter = None
    # The results are shortened to a common length, so that short ones stay whole and the longest pay.
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
    """Return the place of the question for the tools' results at the end; the number of messages: there is none."""
    if not messages or messages[-1].role != "tool":
        return len(messages)
    return max((i for i, message in enumerate(messages) if message.role == "user"), default=len(messages))


def _shortened(message: Message, length: int) -> Message:
    """Return a tool's result with `length` characters, half of its beginning and half of its end; others unchanged."""
    text = message.content
    if message.role != "tool" or len(text) <= length:
        return message
    end = length // 2
    return message.with_content(f"{text[: length - end]}\n[…]\n{text[len(text) - end :]}")


async def _without_oldest(
    messages: Sequence[Message],
    render: Render,
    count: Callable[[str], Awaitable[int]],
    limit: int | None,
    *,
    per_image: int,
    mark: bool,
) -> tuple[Fitted, int]:
    """Drop the oldest messages as `fit` does; return the rest and the place of the first message that stays."""
    last = len(messages) - 1
    found: tuple[int, RenderedPrompt] | None = None

    def kept(first: int) -> list[Message]:
        return [message for i, message in enumerate(messages) if i >= first or message.role == "system"]

    async def fits(first: int) -> bool:
        nonlocal found
        if limit is None:
            return True
        # Only messages from `first` on carry their images.
        images = sum(len(message.media) for message in messages[first:])
        prompt = await render(kept(first))
        if await count(prompt.text) + per_image * images > limit:
            return False
        found = first, prompt
        return True

    low, high = 0, max(last, 0)
    # Invariant: dropping up to `low` does not fit; dropping up to `high` fits or leaves only the last message.
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
    # The last prompt that fitted is reused unless its media still lack their markers.
    if found is not None and found[0] == high and not (mark and media):
        return Fitted(tuple(final), found[1], media), high
    return Fitted(tuple(final), await render(final), media), high


def cut_tokens(tokens: Sequence[int], num_ctx: int, keep: int, adds_bos: bool) -> list[int]:
    """Return tokens that fit a context of `num_ctx` tokens: the middle is cut out, the first `keep` stay.

    A negative `keep` keeps as many as possible. `adds_bos`: the tokenizer puts a token in front, which counts too.
    """
    # One place stays free for the first token of the answer.
    if len(tokens) <= num_ctx - 1:
        return list(tokens)
    first, last = kept_ends(num_ctx, keep, adds_bos)
    return [*tokens[:first], *tokens[len(tokens) - last :]]


def kept_ends(num_ctx: int, keep: int, adds_bos: bool) -> tuple[int, int]:
    """Return the numbers of tokens that stay at the beginning and at the end of a prompt that does not fit."""
    most = num_ctx - 1
    # Half of the space behind the kept beginning stays free for the answer.
    first = min((most if keep < 0 else keep) + adds_bos, most)
    total = num_ctx - max((num_ctx - first) // 2, 1)
    return first, total - first
