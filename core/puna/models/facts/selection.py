"""Selecting the template of a model: the Go template in its own layer, or the Jinja template in its GGUF file.

Ollama prefers the template that can do more. Of two with the same capabilities it prefers the one that renders both
tool calls and their results.
"""

from typing import Final, Literal

from puna.go.template.facts import Facts
from puna.models.facts import chat_template
from puna.models.layout.config import Config

Mode = Literal["rendered", "native"]
"""rendered: a builtin renderer or the Go template writes prompts. native: the GGUF's Jinja template, or a default."""

HARMONY_FAMILIES: Final = frozenset(("gptoss", "gpt-oss"))
DEFAULT_TEMPLATE: Final = "{{ .Prompt }}"


def template_capabilities(template: Facts) -> tuple[str, ...]:
    """Return those of "tools", "insert" and "thinking" that the Go template supports."""
    found = (
        ("tools", "tools" in template.uses),
        ("insert", "suffix" in template.uses),
        ("thinking", template.thinking_tags is not None),
    )
    return tuple(name for name, there in found if there)


def is_harmony(config: Config, template: str | None) -> bool:
    """Return whether the model speaks gpt-oss's own format."""
    if config.model_family not in HARMONY_FAMILIES or template is None:
        return False
    return "<|start|>" in template and "<|end|>" in template


def prefers_jinja(jinja: str, template: Facts) -> bool:
    """Return whether the Jinja template is preferred."""
    ours, theirs = set(template_capabilities(template)), set(chat_template.capabilities(jinja))
    go_trip, jinja_trip = template.full_tool_round_trip, chat_template.has_tool_round_trip(jinja)
    if len(theirs) > len(ours):
        return jinja_trip or not go_trip
    return ours == theirs and "tools" in ours and jinja_trip and not go_trip


def mode(config: Config, text: str | None, template: Facts | None, jinja: str, go_template: bool | None) -> Mode:
    """Choose how prompts are made.

    `text` is the model's own Go template, `template` the facts about it, `go_template` the setting.
    """
    # A named renderer or parser says how prompts are made, whatever templates there are.
    if config.model_format == "safetensors" or config.renderer or config.parser:
        return "rendered"
    if template is None:
        return "native"
    # gpt-oss has a parser of its own, which Ollama uses whatever the setting says.
    if is_harmony(config, text):
        return "rendered"
    if go_template is not None:
        return "rendered" if go_template else "native"
    return "native" if jinja and prefers_jinja(jinja, template) else "rendered"
