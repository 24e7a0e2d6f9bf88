"""Chat templates that need more than what can be derived from them: their forms, corrections and repairs.

Such templates are known by texts in their source, as the reference knows them.
"""

from dataclasses import replace
from typing import Any, Final

from puna.messages import Think
from puna.prompt.jinja import channels, recipients
from puna.prompt.layout import CallSyntax, JsonCall, OutputLayout, TaggedCall

_REFUSES_CHANNELS: Final = (
    '{%- if "<|channel|>analysis<|message|>" in message.content or "<|channel|>final<|message|>" in message.content %}'
)
_REFUSES_EMPTY: Final = (
    "{%- if (message['content'] is none or message['content'] == '' or message['content']|length == 0) and "
    "(message['tool_calls'] is not defined or message['tool_calls'] is none or message['tool_calls']|length == 0) %}"
)

_QWEN_CODER: Final = OutputLayout(
    name="qwen3-coder",
    skips_space=True,
    call_syntax=CallSyntax.TAGGED,
    call_start="<tool_call>",
    call_end="</tool_call>",
    tagged=TaggedCall(
        before_name="<function=",
        after_name=">\n",
        before_key="<parameter=",
        after_key=">\n",
        after_value="\n</parameter>\n",
        close="</function>",
    ),
    preserved_tokens=("<tool_call>", "</tool_call>"),
)
_MINISTRAL: Final = OutputLayout(
    name="ministral",
    thinks=True,
    thinking_start="[THINK]",
    thinking_end="[/THINK]",
    skips_space=True,
    call_syntax=CallSyntax.TAGGED_JSON,
    call_start="[TOOL_CALLS]",
    tagged=TaggedCall(after_name="[ARGS]"),
    preserved_tokens=("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]"),
)
_FUNCTIONARY: Final = OutputLayout(
    name="functionary-3.2",
    content_start="all\n",
    content_end=">>>",
    before_prefill="all\n",
    call_syntax=CallSyntax.TAGGED_JSON,
    call_start=">>>",
    unmarked_calls=("NAME\n",),
    tagged=TaggedCall(after_name="\n"),
    preserved_tokens=(">>>all",),
)
_KIMI: Final = OutputLayout(
    name="kimi-k2",
    thinks=True,
    thinking_start="<think>",
    thinking_end="</think>",
    calls_end_thinking=True,
    call_syntax=CallSyntax.TAGGED_JSON,
    section_start="<|tool_calls_section_begin|>",
    section_end="<|tool_calls_section_end|>",
    call_start="<|tool_call_begin|>",
    call_end="<|tool_call_end|>",
    unmarked_calls=("<|tool_call_begin|>",),
    tagged=TaggedCall(
        before_name="functions.",
        before_id=":",
        after_id="<|tool_call_argument_begin|>",
        id_template="functions.{name}:{id}",
    ),
    preserved_tokens=(
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<think>",
        "</think>",
    ),
)
_GEMMA: Final = OutputLayout(
    name="gemma4",
    thinks=True,
    thinking_start="<|channel>thought\n",
    thinking_end="<channel|>",
    thinks_again=True,
    stray_markers=("<channel|>",),
    skips_space=True,
    call_syntax=CallSyntax.BARE_KEYS,
    call_start="<|tool_call>",
    call_end="<tool_call|>",
    tagged=TaggedCall(before_name="call:"),
    before_prefill="<|channel>thought\n<channel|>",
    preserved_tokens=("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|turn>"),
)
_KIMI_3: Final = OutputLayout(
    name="kimi-k3",
    thinks=True,
    thinking_start="<|open|>think<|sep|>",
    thinking_end="<|close|>think<|sep|>",
    calls_end_thinking=True,
    content_ends_thinking=True,
    content_start="<|open|>response<|sep|>",
    content_end="<|close|>response<|sep|>",
    stray_markers=("<|close|>message<|sep|>", "<|end_of_msg|>"),
    before_prefill="<|close|>think<|sep|><|open|>response<|sep|>",
    call_syntax=CallSyntax.TAGGED,
    section_start="<|open|>tools<|sep|>",
    section_end="<|close|>tools<|sep|>",
    call_end="<|close|>call<|sep|>",
    tagged=TaggedCall(
        before_name='<|open|>call tool="',
        after_name='"',
        after_attributes="<|sep|>",
        before_key='<|open|>argument key="',
        after_key='"',
        after_value="<|close|>argument<|sep|>",
    ),
    preserved_tokens=("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
)
_MINIMAX_MARK: Final = "]<]minimax[>["
_MINIMAX_3: Final = OutputLayout(
    name="minimax-m3",
    thinks=True,
    thinking_start="<mm:think>",
    thinking_end="</mm:think>",
    calls_end_thinking=True,
    stray_markers=("</mm:think>",),
    before_prefill="</mm:think>",
    call_syntax=CallSyntax.NESTED,
    section_start=f"{_MINIMAX_MARK}<tool_call>",
    section_end=f"{_MINIMAX_MARK}</tool_call>",
    tagged=TaggedCall(
        before_name=f'{_MINIMAX_MARK}<invoke name="',
        after_name='">',
        before_key=f"{_MINIMAX_MARK}<",
        close=f"{_MINIMAX_MARK}</invoke>",
    ),
    preserved_tokens=(_MINIMAX_MARK, "<tool_call>", "</tool_call>", "<mm:think>", "</mm:think>"),
)
_SOLAR_MARK: Final = "<|begin|>assistant<|think|>"
_SOLAR: Final = OutputLayout(
    name="solar-open",
    thinks=True,
    thinking_start="<|think|>",
    thinking_end="<|end|>",
    stray_markers=("<|begin|>assistant", "<|content|>", "<|end|>"),
    call_syntax=CallSyntax.TAGGED_JSON,
    section_start="<|tool_calls|>",
    section_end="<|calls|>",
    call_start="<|tool_call:begin|>",
    call_end="<|tool_call:end|>",
    tagged=TaggedCall(id_first=True, after_id="<|tool_call:name|>", after_name="<|tool_call:args|>"),
    preserved_tokens=(
        *("<|begin|>", "<|think|>", "<|content|>", "<|end|>", "<|tool_calls|>", "<|calls|>"),
        *("<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"),
    ),
)
_LFM: Final = OutputLayout(
    name="lfm2",
    thinks=True,
    thinking_start="<think>",
    thinking_end="</think>",
    call_syntax=CallSyntax.PYTHON,
    section_start="<|tool_call_start|>",
    section_end="<|tool_call_end|>",
    preserved_tokens=("<|tool_call_start|>", "<|tool_call_end|>", "<think>", "</think>"),
)


def layout(source: str) -> OutputLayout | None:
    """Return the form of a template that nothing is derived from; None for all others."""
    if "[SYSTEM_PROMPT]" in source and "[TOOL_CALLS]" in source and "[ARGS]" in source and "[CALL_ID]" not in source:
        return _MINISTRAL
    if "<|channel|>" in source:
        return channels.LAYOUT
    if ">>>all" in source and ">>>${recipient}" in source:
        return _FUNCTIONARY
    if "<|tool_calls_section_begin|>" in source and "<|tool_call_begin|>" in source:
        return _KIMI
    if ("<|tool_list_start|>" in source and "<|tool_list_end|>" in source) or "List of tools: [" in source:
        return _LFM
    if "dsml_token" in source and "DSML" in source and ("function_calls" in source or "tool_calls" in source):
        return _deepseek_markup("function_calls" if "function_calls" in source else "tool_calls")
    if "'<|tool_call>call:'" in source:
        return _GEMMA
    if _is_k3(source):
        return _KIMI_3
    if _MINIMAX_MARK in source:
        return _MINIMAX_3
    if _SOLAR_MARK in source:
        return _SOLAR
    if "<atem:function_calls>" in source:
        return recipients.LAYOUT
    tagged = "<tool_call>" in source and "<function=" in source and "<parameter=" in source
    if tagged and "'<tool_call><function=' ~ tool_call.name ~ '>'" not in source:
        return _qwen_coder(thinks="<think>" in source)
    return None


def _is_k3(source: str) -> bool:
    return "<|end_of_msg|>" in source


def variables(source: str, think: Think | None) -> dict[str, Any]:
    """Return the variables by which known templates learn whether and how hard to think."""
    if think is None:
        return {}
    if _is_k3(source):
        effort = {"thinking_effort": think.level} if think.level in ("low", "high", "max") else {}
        return {"thinking": think.on, **effort}
    if _SOLAR_MARK in source:
        return {} if think.on else {"reasoning_effort": "minimal"}
    return {"thinking_mode": "enabled" if think.on else "disabled"} if _MINIMAX_MARK in source else {}


def _qwen_coder(*, thinks: bool) -> OutputLayout:
    if not thinks:
        return replace(_QWEN_CODER, unmarked_calls=("<function=NAME>",))
    return replace(
        _QWEN_CODER,
        thinks=True,
        thinking_start="<think>",
        thinking_end="</think>",
        calls_end_thinking=True,
        before_prefill="<think>\n\n</think>\n\n",
        preserved_tokens=(*_QWEN_CODER.preserved_tokens, "<think>", "</think>"),
    )


def _deepseek_markup(block: str) -> OutputLayout:
    mark = "\uff5cDSML\uff5c"
    return OutputLayout(
        name="deepseek-v3.2",
        thinks=True,
        thinking_start="<think>",
        thinking_end="</think>",
        calls_end_thinking=True,
        before_prefill=None if block == "function_calls" else "</think>",
        call_syntax=CallSyntax.TAGGED,
        section_start=f"<{mark}{block}>",
        section_end=f"</{mark}{block}>",
        unmarked_calls=(f"\n\n<{mark}{block}>",),
        tagged=TaggedCall(
            before_name=f'<{mark}invoke name="',
            after_name='">',
            before_key=f'<{mark}parameter name="',
            after_key='"',
            before_value=' string="true">',
            before_json=' string="false">',
            after_value=f"</{mark}parameter>",
            close=f"</{mark}invoke>",
        ),
        preserved_tokens=(mark, "<think>", "</think>"),
    )


def _marked(derived: OutputLayout, *more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*derived.preserved_tokens, *more)))


def _thinking(derived: OutputLayout) -> OutputLayout:
    preserved = _marked(derived, "<think>", "</think>")
    return replace(derived, thinks=True, thinking_start="<think>", thinking_end="</think>", preserved_tokens=preserved)


def corrected(derived: OutputLayout, source: str) -> OutputLayout:
    """Return a derived form with what the template does not show."""
    if "content.split('</think>')" in source and "reasoning_content" not in source and not derived.thinks:
        derived = _thinking(derived)
    if "Write your thoughts between <think></think> and write your response between <response></response>" in source:
        derived = replace(_thinking(derived), content_start="", content_end="")
        return replace(derived, preserved_tokens=_marked(derived, "<response>", "</response>"))
    if "<|CHATBOT_TOKEN|>" in source and "<|END_OF_TURN_TOKEN|>" in source and not derived.content_start:
        derived = replace(derived, content_start="<|CHATBOT_TOKEN|>", content_end="<|END_OF_TURN_TOKEN|>")
        return replace(derived, preserved_tokens=_marked(derived, derived.content_start, derived.content_end))
    if 'set has_code_interpreter = tools | selectattr("type", "equalto", "code_interpreter")' in source:
        return OutputLayout(
            name="functionary-3.1",
            call_syntax=CallSyntax.TAGGED_JSON,
            call_start="<function=",
            call_end="</function>",
            tagged=TaggedCall(after_name=">"),
            preserved_tokens=("<|eot_id|>", "<|eom_id|>", "<function=", ">", "</function>"),
        )
    if "<SPECIAL_10>" in source and "<SPECIAL_12>" in source and "<TOOL_RESPONSE>" in source:
        return OutputLayout(
            name="nemotron-v2",
            thinks=True,
            thinking_start="<think>\n",
            thinking_end="</think>",
            call_syntax=CallSyntax.JSON,
            call_start="<TOOLCALL>",
            call_end="</TOOLCALL>",
            json=JsonCall(in_array=True),
            preserved_tokens=("<SPECIAL_11>", "</think>", "<TOOLCALL>", "</TOOLCALL>"),
        )
    if derived.thinking_start.strip() == "<|begin_assistant|>":
        # Thoughts of Apriel begin right behind the marker of the role, which the prompt goes on from in plain words.
        opening = "Here are my reasoning steps:\n"
        derived = replace(derived, thinking_start=opening if opening.strip() in source else "")
    if "<![CDATA[" in source:
        derived = replace(derived, tagged=replace(derived.tagged, cdata=True))
    if "<|role_end|>" in source:
        derived = replace(derived, calls_end_thinking=True, stops=(*derived.stops, "<|role_end|>"))
    if "laguna_glm_thinking" in source:
        tagged = replace(derived.tagged, before_value=derived.tagged.before_value.strip())
        return replace(
            derived,
            thinking_start=derived.thinking_start.strip(),
            thinking_end=derived.thinking_end.strip(),
            tagged=replace(tagged, after_value=tagged.after_value.strip()),
            stops=("</assistant>",),
        )
    bar, dash = "\uff5c", "\u2581"
    if f"<{bar}tool{dash}call{dash}begin{bar}>' + tool['type'] + '<{bar}tool{dash}sep{bar}>" in source:
        return replace(derived, **_distilled(bar, dash))
    return derived


def _distilled(bar: str, dash: str) -> dict[str, Any]:
    """Return the markers of DeepSeek R1's distillations, whose templates write calls of the past only."""

    def mark(text: str) -> str:
        return f"<{bar}{text.replace(' ', dash)}{bar}>"

    return {
        "call_syntax": CallSyntax.TAGGED_JSON,
        "section_start": mark("tool calls begin"),
        "section_end": mark("tool calls end"),
        "call_start": mark("tool call begin") + "function",
        "call_end": mark("tool call end"),
        "tagged": TaggedCall(before_name=mark("tool sep"), after_name="\n```json\n", close="```"),
    }


def patched(source: str) -> str:
    """Return a source without checks that refuse ordinary conversations."""
    return source.replace(_REFUSES_CHANNELS, "{%- if false %}").replace(_REFUSES_EMPTY, "{%- if false %}")


def opened(prompt: str, source: str) -> str:
    """Return a prompt that ends with the opening of the model's turn, which one known template may leave out.

    Gemma 4's template does so after an answer with both text and calls, and the model then does not think.
    """
    return prompt + "<|turn>model\n" if layout(source) is _GEMMA and prompt.endswith("<turn|>\n") else prompt


def adjusted(messages: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    """Return messages as one known template wants them."""
    if "You have access to the following functions in JSONSchema format" in source:
        return [
            each | {"content": each["content"].strip()} if isinstance(each["content"], str) else each
            for each in messages
        ]
    if layout(source) is not _MINISTRAL:
        return messages
    return [
        each | {"content": [{"type": "text", "text": each["content"]}]}
        if each["role"] in ("system", "assistant") and isinstance(each["content"], str)
        else each
        for each in messages
    ]
