"""The values that typed fields of requests may have.

The comments of the .proto files state the same bounds, and tests/proto compares them. Options by their names in
Modelfiles (`options_json`) are not checked here: Ollama takes them as they are, and the REST API passes them on.
"""

import math
from typing import Final

from google.protobuf.message import Message

from puna.errors import InvalidRequestError

BOUNDS: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "puna.v1.SamplingOptions": {
        "temperature": (0, math.inf),
        "top_k": (0, math.inf),
        "top_p": (0, 1),
        "min_p": (0, 1),
        "typical_p": (0, 1),
        "repeat_penalty": (0, math.inf),
        "repeat_last_n": (-1, math.inf),
        "presence_penalty": (-math.inf, math.inf),
        "frequency_penalty": (-math.inf, math.inf),
    },
    "puna.v1.RuntimeOptions": {
        "context_length": (1, math.inf),
        "batch_size": (1, math.inf),
        "gpu_layers": (-1, math.inf),
        "main_gpu": (0, math.inf),
        "threads": (0, math.inf),
        "draft_tokens": (0, math.inf),
    },
    "puna.v1.RequestOptions": {"keep_tokens": (-1, math.inf), "thinking_budget": (0, math.inf)},
    "puna.v1.GenerateRequest": {"n": (1, math.inf)},
    "puna.v1.ChatRequest": {"n": (1, math.inf)},
    "puna.v1.EmbedRequest": {"dimensions": (0, math.inf)},
    "puna.v1.RerankRequest": {"top_n": (0, math.inf)},
}
"""The smallest and the largest value of each bounded field, by the full name of its message."""


def check(message: Message, path: str = "") -> None:
    """Check the bounded numbers and the enums of a message, and of the single messages in it.

    Raises InvalidRequestError, which names the field and the bound. Lists are not looked through: those of requests
    have neither numbers with bounds nor enums, and may be long.
    """
    bounds = BOUNDS.get(message.DESCRIPTOR.full_name, {})
    # ListFields has the set fields alone, so a request without options costs nothing.
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        # A list is neither a message nor a number.
        if isinstance(value, Message):
            check(value, f"{name}.")
        elif field.enum_type is not None and isinstance(value, int):
            # proto3 keeps numbers that the enum does not have.
            if value not in field.enum_type.values_by_number:
                raise InvalidRequestError(f"{name}: {field.enum_type.name} has no value {value}", field=name)
        elif field.name in bounds:
            _check_number(name, value, *bounds[field.name])


def _check_number(name: str, value: float, least: float, most: float) -> None:
    # NaN fails the first comparison, infinity the second check.
    if not least <= value <= most or math.isinf(value):
        limit = _range(least, most)
        raise InvalidRequestError(f"{name}: {value:g} is not {limit}", field=name, limit=limit)


def _range(least: float, most: float) -> str:
    if math.isinf(least):
        return "a finite number"
    return f"at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
