"""How the families with parsers of their own write calls, as far as a grammar can demand it."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from puna.prompt.builtin import deepseek, glimmer_answer
from puna.prompt.builtin.notation.gemma4_call import QUOTE
from puna.prompt.layout import CallLayout, Form, JsonCall, Literals, TaggedCall

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
_HARMONY: Final = Form(
    name="harmony",
    layout=CallLayout.TAGGED_JSON,
    tagged=TaggedCall(
        before_name="<|channel|>commentary to=functions.", after_name=" <|constrain|>json", separator="<|message|>"
    ),
)
_DEEPSEEK: Final = Form(
    name="deepseek",
    layout=CallLayout.TAGGED_JSON,
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
_GEMMA4: Final = Form(
    name="gemma4",
    layout=CallLayout.LOOSE,
    call_start="<|tool_call>",
    call_end="<tool_call|>",
    tagged=TaggedCall(before_name="call:"),
    literals=Literals(quote=QUOTE, text=r"[^<]|<+[^<|]"),
)
_FUNCTIONGEMMA: Final = Form(
    name="functiongemma",
    layout=CallLayout.LOOSE,
    call_start="<start_function_call>",
    call_end="<end_function_call>",
    tagged=TaggedCall(before_name="call:"),
    literals=Literals(quote="<escape>", text=r"[^<\n]|<+[^<\ne]", null=""),
)
_LFM2: Final = Form(
    name="lfm2",
    layout=CallLayout.PYTHON,
    section_start="<|tool_call_start|>[",
    section_end="]<|tool_call_end|>",
    literals=Literals(quote='"', text=r'[^"\\]', inner=r'[^"\\\x00-\x1f]', bare_keys=False, spaced=True),
)
_OLMO3: Final = Form(
    name="olmo3",
    layout=CallLayout.PYTHON,
    section_start="<function_calls>",
    section_end="</function_calls>",
    literals=Literals(quote='"', text=r"""[^"\\\n]|\\[ntr\\"']""", bare_keys=False, spaced=True),
)
_GLIMMER: Final = Form(
    name="glimmer",
    layout=CallLayout.TAGGED,
    addressee=" to=",
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

FORMS: Final[Mapping[str, Form]] = MappingProxyType(
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
"""By the names of parsers."""
