"""The differences between servers that speak OpenAI's API.

OpenAI's own parameters go to every upstream. Parameters beyond those have other names in each server, and a strict
server refuses a request with an unknown one. A dialect names those that its servers know.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from puna.backend import Constraint, InvalidRequestError, UnsupportedError

Fields: TypeAlias = dict[str, Any]

ANY_OBJECT: Final = {"type": "object"}
"""The schema that stands for "some JSON object", which OpenAI calls JSON mode."""
STANDARD: Final[Mapping[str, str]] = {
    name: name for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
}


def response_format(schema: Fields) -> Fields:
    """Return the fields for a JSON Schema in OpenAI's form."""
    if schema == ANY_OBJECT:
        return {"response_format": {"type": "json_object"}}
    described = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def json_object_with_schema(schema: Fields) -> Fields:
    """Return the fields for a JSON Schema in the older form of llama.cpp."""
    return {"response_format": {"type": "json_object", "schema": schema}}


def _no_switch(_on: bool, _level: str) -> Fields:
    return {}


def _effort(on: bool, level: str) -> Fields:
    # OpenAI has no word for "off" that all its models take, and none above "high".
    if not on:
        return {"reasoning_effort": "minimal"}
    return {"reasoning_effort": {"": "medium", "max": "high"}.get(level, level)}


def _effort_or_none(on: bool, level: str) -> Fields:
    return _effort(on, level) if on else {"reasoning_effort": "none"}


def _template_switch(on: bool, level: str) -> Fields:
    fields: Fields = {"chat_template_kwargs": {"enable_thinking": on, "thinking": on}}
    return fields | {"reasoning_effort": level} if on and level in ("low", "medium", "high") else fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The parameters that one kind of server knows."""

    sampling: Mapping[str, str] = field(default_factory=lambda: STANDARD)
    """Names at the upstream by the names in `puna.backend.Sampling`."""
    max_tokens: str = "max_tokens"
    schema: Callable[[Fields], Fields] = response_format
    constraints: Mapping[str, Callable[[str], Fields]] = field(default_factory=dict)
    """The other kinds of constraints that it enforces."""
    thinking: Callable[[bool, str], Fields] = _no_switch
    """The fields that turn thinking on or off, with its effort."""
    salts: bool = False
    """Whether prompts of different salts share no cache."""

    def constraint(self, constraint: Constraint) -> Fields:
        """Return the fields for a constraint. Raises UnsupportedError, InvalidRequestError."""
        if constraint.kind == "json_schema":
            return self.schema(_schema(constraint.text))
        written = self.constraints.get(constraint.kind)
        if written is None:
            raise UnsupportedError(f"this upstream does not enforce constraints of kind {constraint.kind}")
        return written(constraint.text)


def _schema(text: str) -> Fields:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the JSON Schema cannot be read: {error}") from None
    if not isinstance(schema, dict):
        raise InvalidRequestError("the JSON Schema must be an object")
    return schema


DIALECTS: Final[Mapping[str, Dialect]] = {
    "compatible": Dialect(),
    "openai": Dialect(max_tokens="max_completion_tokens", thinking=_effort),
    "ollama": Dialect(thinking=_effort_or_none),
    "vllm": Dialect(
        sampling={
            **STANDARD,
            "top_k": "top_k",
            "min_p": "min_p",
            "repeat_penalty": "repetition_penalty",
        },
        constraints={"regex": lambda text: {"structured_outputs": {"regex": text}}},
        thinking=_template_switch,
        salts=True,
    ),
    "sglang": Dialect(
        sampling={
            **STANDARD,
            "top_k": "top_k",
            "min_p": "min_p",
            "repeat_penalty": "repetition_penalty",
        },
        constraints={"regex": lambda text: {"regex": text}},
        thinking=_template_switch,
    ),
    "llama-server": Dialect(
        sampling={
            **STANDARD,
            "top_k": "top_k",
            "min_p": "min_p",
            "typical_p": "typical_p",
            "repeat_penalty": "repeat_penalty",
            "repeat_last_n": "repeat_last_n",
        },
        constraints={"gbnf": lambda text: {"grammar": text}},
        thinking=_template_switch,
    ),
    "llama-cpp-python": Dialect(
        sampling={**STANDARD, "top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repeat_penalty"},
        schema=json_object_with_schema,
        constraints={"gbnf": lambda text: {"grammar": text}},
    ),
}
"""The dialects by the names in the configuration."""
