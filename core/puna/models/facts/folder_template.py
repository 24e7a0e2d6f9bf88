"""The Jinja chat templates in a folder as model hubs have it, of a model whose files only its backend can read.

The core renders prompts for every backend that does not take messages itself, so the template is looked for here. A
model without one, or with one that cannot be read, has the default template, and its creator may give it another.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from puna.go import json_text
from puna.models.storage import bounded_files

TEMPLATE: Final = "chat_template.jinja"
TOOL_TEMPLATE: Final = "additional_chat_templates/tool_use.jinja"
SETTINGS: Final = ("chat_template.json", "tokenizer_config.json")
"""Files whose key `chat_template` has a template, or a list of templates with names."""


def chat_templates(files: Mapping[str, Path]) -> tuple[str, str]:
    """Return the chat template and the one for conversations with tools; empty for one that there is not.

    `files` has the paths by relative names. Raises OSError. A file that is damaged counts as missing.
    """
    found: dict[str, str] = {}
    for name in reversed(SETTINGS):
        if name in files:
            found |= _named(_settings(files[name]).get("chat_template"))
    # A file of its own is newer than the settings, as in the library that writes them.
    for name, key in ((TEMPLATE, "default"), (TOOL_TEMPLATE, "tool_use")):
        if name in files:
            found[key] = _read(files[name]).decode("utf-8", "replace")
    return found.get("default", ""), found.get("tool_use", "")


def _named(value: object) -> dict[str, str]:
    if isinstance(value, str):
        return {"default": value}
    entries = value if isinstance(value, list) else []
    return {
        each["name"]: each["template"]
        for each in entries
        if isinstance(each, dict) and isinstance(each.get("name"), str) and isinstance(each.get("template"), str)
    }


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        value = json_text.loads(_read(path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> bytes:
    try:
        return bounded_files.read(path, bounded_files.MANIFEST)
    except ValueError:  # too large for a template
        return b""
