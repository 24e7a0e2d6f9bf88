"""Puts the markers `[img-N]` of images and sounds into the text of a message."""

from collections.abc import Sequence
from typing import Final

from puna.messages import Message

_PLACE: Final = "[img]"


def marked(message: Message, first: int) -> tuple[str, str]:
    """Return the markers in front of the text, and the text with the other markers. N counts from `first`.

    Media with places stand there. Others take the place of each `[img]` in the text, and the rest go in front of it, as
    in Ollama.
    """
    marks = [f"[img-{first + index}]" for index in range(len(message.media))]
    if message.media_at:
        return _placed(message.content, marks, message.media_at)
    prefix, content = "", message.content
    for mark in marks:
        # The client may have placed the image in its text. Each marker takes the next image.
        if _PLACE in content:
            content = content.replace(_PLACE, mark, 1)
        else:
            prefix += mark
    return prefix, content


def _placed(content: str, marks: Sequence[str], places: Sequence[int]) -> tuple[str, str]:
    prefix, out, start = "", [], 0
    for mark, place in zip(marks, places, strict=True):
        if place:
            out += [content[start:place], mark]
            start = place
        else:
            prefix += mark
    return prefix, "".join([*out, content[start:]])
