"""The layouts of calls that a grammar can demand of the families with builtin parsers (`tool_choice: required`).

Each describes the calls that the parser of its name reads. Parsers without a layout here read no calls, or calls whose
syntax no grammar can describe.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from puna.prompt.builtin import glimmer_answer
from puna.prompt.builtin.format_texts import deepseek
from puna.prompt.builtin.notation.gemma4_call import QUOTE
from puna.prompt.layout import CallSyntax, JsonCall, Literals, OutputLayout, TaggedCall

_JSON: Final = OutputLayout(
    name="json", call_syntax=CallSyntax.JSON, call_start="<tool_call>\n", call_end="\n</tool_call>"
)
_XML: Final = OutputLayout(
    name="xml",
    call_syntax=CallSyntax.TAGGED,
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
_PAIRS: Final = OutputLayout(
    name="pairs",
    call_syntax=CallSyntax.TAGGED,
    call_start="<tool_call>",
    call_end="</tool_call>",
    tagged=TaggedCall(
        before_key="<arg_key>",
        after_key="</arg_key>",
        before_value="<arg_value>",
        after_value="</arg_value>",
    ),
)
_COHERE: Final = OutputLayout(
    name="cohere",
    call_syntax=CallSyntax.JSON,
    call_start="<|START_ACTION|>",
    call_end="<|END_ACTION|>",
    json=JsonCall(name="tool_name", arguments="parameters", id="tool_call_id", in_array=True),
)
_MINISTRAL: Final = OutputLayout(
    name="ministral",
    call_syntax=CallSyntax.TAGGED_JSON,
    tagged=TaggedCall(before_name="[TOOL_CALLS]", after_name="[ARGS]"),
)
# The prompt ends within a header, which the call completes.
_HARMONY: Final = OutputLayout(
    name="harmony",
    call_syntax=CallSyntax.TAGGED_JSON,
    tagged=TaggedCall(
        before_name="<|channel|>commentary to=functions.", after_name=" <|constrain|>json", separator="<|message|>"
    ),
)
_DEEPSEEK: Final = OutputLayout(
    name="deepseek",
    call_syntax=CallSyntax.TAGGED_JSON,
    section_start=deepseek.CALLS,
    call_start=deepseek.CALL,
    call_end=deepseek.END_OF_CALL,
    section_end=deepseek.END_OF_CALLS,
    tagged=TaggedCall(separator=deepseek.SEPARATOR),
)
_COGITO: Final = replace(
    _DEEPSEEK,
    name="cogito",
    tagged=TaggedCall(
        before_name=f"function{deepseek.SEPARATOR}", before_arguments="\n```json\n", after_arguments="\n```"
    ),
)
_GEMMA4: Final = OutputLayout(
    name="gemma4",
    call_syntax=CallSyntax.BARE_KEYS,
    call_start="<|tool_call>",
    call_end="<tool_call|>",
    tagged=TaggedCall(before_name="call:"),
    # A text may hold "<" but not "<|", with which the quote begins.
    literals=Literals(quote=QUOTE, text=r"[^<]|<+[^<|]"),
)
_FUNCTIONGEMMA: Final = OutputLayout(
    name="functiongemma",
    call_syntax=CallSyntax.BARE_KEYS,
    call_start="<start_function_call>",
    call_end="<end_function_call>",
    tagged=TaggedCall(before_name="call:"),
    # No line ends: the parser's expression does not match them. No "<e", with which the quote begins. The notation has
    # no null.
    literals=Literals(quote="<escape>", text=r"[^<\n]|<+[^<\ne]", null=""),
)
_LFM2: Final = OutputLayout(
    name="lfm2",
    call_syntax=CallSyntax.PYTHON,
    section_start="<|tool_call_start|>[",
    section_end="]<|tool_call_end|>",
    # The parser takes quoted texts as they stand, so a backslash could not escape anything. Inner texts become JSON,
    # which has no control characters.
    literals=Literals(quote='"', text=r'[^"\\]', inner=r'[^"\\\x00-\x1f]', bare_keys=False, spaced=True),
)
_OLMO3: Final = OutputLayout(
    name="olmo3",
    call_syntax=CallSyntax.PYTHON,
    section_start="<function_calls>",
    section_end="</function_calls>",
    literals=Literals(quote='"', text=r"""[^"\\\n]|\\[ntr\\"']""", bare_keys=False, spaced=True),
)
_GLIMMER: Final = OutputLayout(
    name="glimmer",
    call_syntax=CallSyntax.TAGGED,
    recipient_prefix=" to=",
    call_start=f"{glimmer_answer.MESSAGE}{glimmer_answer.CALLS}\n",
    call_end=glimmer_answer.END_OF_CALLS,
    tagged=TaggedCall(
        before_name='<atem:invoke name="',
        after_name='">\n',
        before_key='<atem:parameter name="',
        after_key='">',
        after_value="</atem:parameter>\n",
        close="</atem:invoke>\n",
    ),
)

CALL_LAYOUTS: Final[Mapping[str, OutputLayout]] = MappingProxyType(
    {
        **dict.fromkeys(("qwen3", "qwen3-thinking", "qwen3-vl-instruct", "qwen3-vl-thinking"), _JSON),
        **dict.fromkeys(("qwen3-coder", "qwen3.5", "ornith", "nemotron-3-nano", "nemotron-3.5-nano"), _XML),
        **dict.fromkeys(("glm-4.7", "glm-ocr", "laguna", "poolside-v1"), _PAIRS),
        "cohere": _COHERE,
        "ministral": _MINISTRAL,
        "harmony": _HARMONY,
        "deepseek3": _DEEPSEEK,
        "cogito": _COGITO,
        **dict.fromkeys(("gemma4", "gemma4-no-thinking"), _GEMMA4),
        "functiongemma": _FUNCTIONGEMMA,
        **dict.fromkeys(("lfm2", "lfm2-thinking"), _LFM2),
        "olmo3": _OLMO3,
        "glimmer": _GLIMMER,
    }
)
"""The layouts by the names of the parsers."""
