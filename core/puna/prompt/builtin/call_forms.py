"""How the families with parsers of their own write calls, as far as a grammar can demand it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from puna.prompt.native.form import CallLayout, Form, JsonCall, TaggedCall

_JSON: Final = Form(name="json", layout=CallLayout.JSON, call_start="<tool_call>\n", call_end="\n</tool_call>")
_XML: Final = Form(
    name="xml",
    layout=CallLayout.TAGGED,
    call_start="<tool_call>\n",
    call_end="</tool_call>",
    tagged=TaggedCall(
        before_name="<function=",
        after_name=">\n",
        before_key="<parameter=",
        after_key=">\n",
        after_value="\n</parameter>\n",
        close="</function>\n",
    ),
)
_PAIRS: Final = Form(
    name="pairs",
    layout=CallLayout.TAGGED,
    call_start="<tool_call>",
    call_end="</tool_call>",
    tagged=TaggedCall(
        before_key="<arg_key>",
        after_key="</arg_key>",
        before_value="<arg_value>",
        after_value="</arg_value>",
    ),
)
_COHERE: Final = Form(
    name="cohere",
    layout=CallLayout.JSON,
    call_start="<|START_ACTION|>",
    call_end="<|END_ACTION|>",
    json=JsonCall(name="tool_name", arguments="parameters", id="tool_call_id", in_array=True),
)
_MINISTRAL: Final = Form(
    name="ministral",
    layout=CallLayout.TAGGED_JSON,
    tagged=TaggedCall(before_name="[TOOL_CALLS]", after_name="[ARGS]"),
)

FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        **dict.fromkeys(("qwen3", "qwen3-thinking", "qwen3-vl-instruct", "qwen3-vl-thinking"), _JSON),
        **dict.fromkeys(("qwen3-coder", "qwen3.5", "ornith", "nemotron-3-nano", "nemotron-3.5-nano"), _XML),
        **dict.fromkeys(("glm-4.7", "glm-ocr", "laguna", "poolside-v1"), _PAIRS),
        "cohere": _COHERE,
        "ministral": _MINISTRAL,
    }
)
"""By the names of parsers."""
