"""Go templates for well-known chat templates, found by how near a file's own Jinja template comes to one of them."""

from dataclasses import dataclass
from typing import Final

from puna.models.distance import distance

NEAR: Final = 100
"""Edits below which a template counts as the known one."""


@dataclass(frozen=True, slots=True)
class KnownTemplate:
    """A chat template that many models bring, and the Go template that writes the same prompts."""

    name: str
    jinja: str
    template: str
    stop: tuple[str, ...] = ()


def nearest(text: str) -> KnownTemplate | None:
    """Return the known template that is nearest to a Jinja template; None if none is near."""
    best: KnownTemplate | None = None
    limit = NEAR
    for known in KNOWN:
        edits = distance(known.jinja, text, limit)
        if edits < limit:
            best, limit = known, edits
    return best


KNOWN: Final[tuple[KnownTemplate, ...]] = (
    KnownTemplate(
        "chatml",
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
        "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        ("<|im_start|>", "<|im_end|>"),
    ),
)
