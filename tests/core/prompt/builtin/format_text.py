"""Takes the format texts of model families out of recorded prompts.

A fixture names such a text instead of holding it: `⟪glm.TOOLS.0⟫` is the first part of glm.TOOLS, whose parts are what
stands between its placeholders. The SHA-256 of the recorded prompt says that the words are right.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator

from puna.prompt.builtin import format_texts

_SHORTEST = 40
"""Characters of a text that is worth a name."""
_PLACEHOLDER = re.compile(r"(?<!\{)\{[a-z]+\}(?!\})")


def _parts() -> Iterator[tuple[str, str]]:
    for module in pkgutil.iter_modules(format_texts.__path__):
        for name, value in vars(importlib.import_module(f"{format_texts.__name__}.{module.name}")).items():
            texts = {name: value} if isinstance(value, str) else dict(value) if name.isupper() else {}
            for key, text in texts.items():
                if not name.isupper():
                    continue
                for number, part in enumerate(_PLACEHOLDER.split(text)):
                    bare = (
                        part.replace("{{", "{").replace("}}", "}")
                        if "{" in part and _PLACEHOLDER.search(text)
                        else part
                    )
                    if len(bare) >= _SHORTEST:
                        yield f"⟪{module.name}.{key}.{number}⟫", bare


PARTS = sorted(_parts(), key=lambda named: len(named[1]), reverse=True)


def named(prompt: str) -> str:
    """Return a prompt with names in place of format texts, the longest first."""
    for name, text in PARTS:
        prompt = prompt.replace(text, name)
    return prompt
