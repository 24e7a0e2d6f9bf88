"""A prompt as every way of rendering returns it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt. `[img-N]` in the text stands for media[N]."""

    text: str
    media: tuple[bytes, ...] = ()
    answer_prefix: str = ""
    """The beginning of the answer that the text already holds, where the template of the model file wrote it: the
    parser of the answer reads it first."""
