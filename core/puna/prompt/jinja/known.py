"""Chat templates that need more than puna.prompt.jinja.derive finds: their output layouts, corrections and repairs.

A template is known by texts in its source, mostly special tokens of its family: templates have no other name that could
be trusted. `layout` returns the layout of a template from which nothing is derived at all; in its table the first row
counts whose texts all occur. `corrected` adds to a derived layout what the template does not show.
The other functions change what a known template is given: its source, variables, messages and the end of the prompt.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from puna.messages import Think
from puna.prompt.jinja import channels, known_layouts, recipients
from puna.prompt.layout import OutputLayout

_KIMI_3_MARK: Final = "<|end_of_msg|>"
_SOLAR_MARK: Final = "<|begin|>assistant<|think|>"
_DEEPSEEK_MARK: Final = "DSML"
_JOINED_CALL: Final = "'<tool_call><function=' ~"
"""Written by templates with the calls of Qwen3-Coder that show everything themselves."""

_DISTILLED_CALL: Final = "tool\u2581call\u2581begin\uff5c>' + tool['type']"

_KNOWN: Final[tuple[tuple[tuple[str, ...], tuple[str, ...], Callable[[str], OutputLayout]], ...]] = (
    # Mistral Small 3.2 has an id between name and arguments, and its layout is derived.
    (("[SYSTEM_PROMPT]", "[ARGS]"), ("[CALL_ID]",), lambda _: known_layouts.MINISTRAL),
    (("<|channel|>",), (), lambda _: channels.LAYOUT),
    ((">>>all",), (), lambda _: known_layouts.FUNCTIONARY),
    (("<|tool_calls_section_begin|>",), (), lambda _: known_layouts.KIMI),
    (("<|tool_list_start|>",), (), lambda _: known_layouts.LFM),
    (("List of tools: [",), (), lambda _: known_layouts.LFM),
    # V3.2 calls the block function_calls, V4 tool_calls; V3.2 mentions both words.
    ((_DEEPSEEK_MARK, "function_calls"), (), lambda _: known_layouts.deepseek_markup("function_calls")),
    ((_DEEPSEEK_MARK, "tool_calls"), (), lambda _: known_layouts.deepseek_markup("tool_calls")),
    (("<|tool_call>call:",), (), lambda _: known_layouts.GEMMA),
    ((_KIMI_3_MARK,), (), lambda _: known_layouts.KIMI_3),
    ((known_layouts.MINIMAX_MARK,), (), lambda _: known_layouts.MINIMAX_3),
    ((_SOLAR_MARK,), (), lambda _: known_layouts.SOLAR),
    (("<atem:function_calls>",), (), lambda _: recipients.LAYOUT),
    (
        ("<tool_call>", "<function=", "<parameter="),
        (_JOINED_CALL,),
        lambda source: known_layouts.qwen_coder(thinks="<think>" in source),
    ),
)
"""Texts that a source has, texts that it must not have, and its layout."""


def layout(source: str) -> OutputLayout | None:
    """Return the layout of a template from which nothing is derived; None for all others."""
    for present, absent, found in _KNOWN:
        if all(text in source for text in present) and not any(text in source for text in absent):
            return found(source)
    return None


def variables(source: str, think: Think | None) -> dict[str, Any]:
    """Return the variables by which known templates switch thinking on or off and set its effort."""
    if think is None:
        return {}
    if _KIMI_3_MARK in source:
        effort = {"thinking_effort": think.level} if think.level in ("low", "high", "max") else {}
        return {"thinking": think.on, **effort}
    if _SOLAR_MARK in source:
        return {} if think.on else {"reasoning_effort": "minimal"}
    if known_layouts.MINIMAX_MARK in source:
        return {"thinking_mode": "enabled" if think.on else "disabled"}
    return {}


def corrected(derived: OutputLayout, source: str) -> OutputLayout:
    """Return a derived layout with what the template does not show."""
    # The template cuts thoughts from earlier answers and shows none, so nothing can be derived from it.
    if "content.split('</think>')" in source and "reasoning_content" not in source and not derived.thinks:
        derived = _thinking(derived)
    # A replacement may return None, which means that the derived layout is complete already.
    for present, change in _REPLACEMENTS:
        if all(text in source for text in present) and (changed := change(derived)) is not None:
            return changed
    if derived.thinking_start.strip() == "<|begin_assistant|>":
        # The thoughts of Apriel begin right after the marker of the role. The prompt ends with a plain sentence there.
        opening = "Here are my reasoning steps:\n"
        derived = replace(derived, thinking_start=opening if opening.strip() in source else "")
    if "<![CDATA[" in source:
        derived = replace(derived, tagged=replace(derived.tagged, cdata=True))
    if "<|role_end|>" in source:
        derived = replace(derived, calls_end_thinking=True, stops=(*derived.stops, "<|role_end|>"))
    if "laguna_glm_thinking" in source:
        return _laguna(derived)
    return known_layouts.distilled_calls(derived) if _DISTILLED_CALL in source else derived


def _preserving(derived: OutputLayout, *more: str) -> OutputLayout:
    return replace(derived, preserved_tokens=tuple(dict.fromkeys((*derived.preserved_tokens, *more))))


def _thinking(derived: OutputLayout) -> OutputLayout:
    found = replace(derived, thinks=True, thinking_start="<think>", thinking_end="</think>")
    return _preserving(found, "<think>", "</think>")


def _granite(derived: OutputLayout) -> OutputLayout:
    """Granite 3.3 writes its answer in tags that only the instructions in the prompt mention."""
    found = replace(_thinking(derived), content_start="", content_end="")
    return _preserving(found, "<response>", "</response>")


def _command(derived: OutputLayout) -> OutputLayout | None:
    """Command R wraps content in the tokens of its turn. None: the template shows what wraps it."""
    if derived.content_start:
        return None
    found = replace(derived, content_start="<|CHATBOT_TOKEN|>", content_end="<|END_OF_TURN_TOKEN|>")
    return _preserving(found, found.content_start, found.content_end)


def _laguna(derived: OutputLayout) -> OutputLayout:
    """Laguna leaves out the line ends that its template writes."""
    tagged = replace(
        derived.tagged,
        before_value=derived.tagged.before_value.strip(),
        after_value=derived.tagged.after_value.strip(),
    )
    return replace(
        derived,
        thinking_start=derived.thinking_start.strip(),
        thinking_end=derived.thinking_end.strip(),
        tagged=tagged,
        stops=("</assistant>",),
    )


_REPLACEMENTS: Final[tuple[tuple[tuple[str, ...], Callable[[OutputLayout], OutputLayout | None]], ...]] = (
    (("<response></response>",), _granite),
    (("<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"), _command),
    (("has_code_interpreter =",), lambda _: known_layouts.FUNCTIONARY_3_1),
    (("<SPECIAL_12>", "<TOOL_RESPONSE>"), lambda _: known_layouts.NEMOTRON_2),
)
"""Texts that a source has, and what becomes of its layout. No other correction is needed then."""


_CHECK: Final = re.compile(r"\{%- if ([^%]*)%\}(?=\s*\{\{-? raise_exception\()")
"""A condition that refuses a conversation, with the condition itself as the group."""


def patched(source: str) -> str:
    """Return a source without two checks that refuse ordinary conversations.

    gpt-oss refuses an answer that quotes its special tokens, Ministral an answer without content and calls.
    """
    return _CHECK.sub(_without_refusal, source)


def _without_refusal(check: re.Match[str]) -> str:
    condition = check[1]
    quotes_channels = "<|channel|>analysis<|message|>" in condition
    is_empty = "message['content'] == ''" in condition and "message['tool_calls']" in condition
    return "{%- if false %}" if quotes_channels or is_empty else check[0]


def opened(prompt: str, source: str) -> str:
    """Return a prompt that ends with the opening of the model's turn, which the template of Gemma 4 may leave out.

    It does so after an answer with both content and calls. The model then does not think.
    """
    gemma = layout(source) is known_layouts.GEMMA
    return prompt + "<|turn>model\n" if gemma and prompt.endswith("<turn|>\n") else prompt


def adjusted(messages: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    """Return messages as two known templates want them: Step 3.5 trimmed, Ministral with parts as content."""
    if "access to the following functions in" in source:
        return [
            each | {"content": each["content"].strip()} if isinstance(each["content"], str) else each
            for each in messages
        ]
    if layout(source) is not known_layouts.MINISTRAL:
        return messages
    return [
        each | {"content": [{"type": "text", "text": each["content"]}]}
        if each["role"] in ("system", "assistant") and isinstance(each["content"], str)
        else each
        for each in messages
    ]
