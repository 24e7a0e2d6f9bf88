"""The output layouts of templates that show too little, or nothing, of the answers of their models.

Each follows from the chat template and the published prompt format of its family. puna.prompt.jinja.known finds the
layout of a template.
"""

from dataclasses import replace
from typing import Final

from puna.prompt.layout import CallSyntax, JsonCall, OutputLayout, TaggedCall

QWEN_CODER: Final = OutputLayout(
    name="qwen3-coder",
    # Models of this family write line ends of their own around the markers.
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
MINISTRAL: Final = OutputLayout(
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
FUNCTIONARY: Final = OutputLayout(
    # Every message begins with its recipient: "all" is the user, every other word the name of a tool. The prompt ends
    # with ">>>", so the first message has no marker.
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
KIMI: Final = OutputLayout(
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
    # The model sometimes leaves out the marker of the section.
    unmarked_calls=("<|tool_call_begin|>",),
    tagged=TaggedCall(
        before_name="functions.",
        before_id=":",
        after_id="<|tool_call_argument_begin|>",
        # The model writes the parts of an id apart, and clients send the whole id back.
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
GEMMA: Final = OutputLayout(
    name="gemma4",
    thinks=True,
    thinking_start="<|channel>thought\n",
    thinking_end="<channel|>",
    # Gemma 4 goes on thinking between content and calls.
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
KIMI_3: Final = OutputLayout(
    name="kimi-k3",
    thinks=True,
    thinking_start="<|open|>think<|sep|>",
    thinking_end="<|close|>think<|sep|>",
    calls_end_thinking=True,
    # A model may forget to close its thought. Content has a marker of its own here, so it is recognised all the same.
    content_ends_thinking=True,
    content_start="<|open|>response<|sep|>",
    content_end="<|close|>response<|sep|>",
    # The end of the message comes as text, since the same tokens also close calls and must be visible.
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
MINIMAX_MARK: Final = "]<]minimax[>["
MINIMAX_3: Final = OutputLayout(
    name="minimax-m3",
    thinks=True,
    thinking_start="<mm:think>",
    thinking_end="</mm:think>",
    calls_end_thinking=True,
    stray_markers=("</mm:think>",),
    before_prefill="</mm:think>",
    call_syntax=CallSyntax.NESTED,
    section_start=f"{MINIMAX_MARK}<tool_call>",
    section_end=f"{MINIMAX_MARK}</tool_call>",
    tagged=TaggedCall(
        before_name=f'{MINIMAX_MARK}<invoke name="',
        after_name='">',
        before_key=f"{MINIMAX_MARK}<",
        close=f"{MINIMAX_MARK}</invoke>",
    ),
    preserved_tokens=(MINIMAX_MARK, "<tool_call>", "</tool_call>", "<mm:think>", "</mm:think>"),
)
SOLAR: Final = OutputLayout(
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
LFM: Final = OutputLayout(
    name="lfm2",
    thinks=True,
    thinking_start="<think>",
    thinking_end="</think>",
    call_syntax=CallSyntax.PYTHON,
    section_start="<|tool_call_start|>",
    section_end="<|tool_call_end|>",
    preserved_tokens=("<|tool_call_start|>", "<|tool_call_end|>", "<think>", "</think>"),
)
FUNCTIONARY_3_1: Final = OutputLayout(
    name="functionary-3.1",
    call_syntax=CallSyntax.TAGGED_JSON,
    call_start="<function=",
    call_end="</function>",
    tagged=TaggedCall(after_name=">"),
    preserved_tokens=("<|eot_id|>", "<|eom_id|>", "<function=", ">", "</function>"),
)
NEMOTRON_2: Final = OutputLayout(
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


def qwen_coder(*, thinks: bool) -> OutputLayout:
    """Return the layout of Qwen3-Coder, or of later models with the same calls that think first."""
    if not thinks:
        # Qwen3-Coder leaves out <tool_call> before some calls.
        return replace(QWEN_CODER, unmarked_calls=("<function=NAME>",))
    return replace(
        QWEN_CODER,
        thinks=True,
        thinking_start="<think>",
        thinking_end="</think>",
        calls_end_thinking=True,
        before_prefill="<think>\n\n</think>\n\n",
        preserved_tokens=(*QWEN_CODER.preserved_tokens, "<think>", "</think>"),
    )


def deepseek_markup(block: str) -> OutputLayout:
    """Return the layout of DeepSeek V3.2 (`block` is "function_calls") or V4 ("tool_calls")."""
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
            # The model says itself whether a value is a text or JSON.
            before_json=' string="false">',
            after_value=f"</{mark}parameter>",
            close=f"</{mark}invoke>",
        ),
        preserved_tokens=(mark, "<think>", "</think>"),
    )


def distilled_calls(derived: OutputLayout) -> OutputLayout:
    """Return a layout with the calls of DeepSeek R1's distillations, whose templates write calls of the past only."""

    def mark(text: str) -> str:
        return f"<\uff5c{text.replace(' ', chr(0x2581))}\uff5c>"

    return replace(
        derived,
        call_syntax=CallSyntax.TAGGED_JSON,
        section_start=mark("tool calls begin"),
        section_end=mark("tool calls end"),
        call_start=mark("tool call begin") + "function",
        call_end=mark("tool call end"),
        tagged=TaggedCall(before_name=mark("tool sep"), after_name="\n```json\n", close="```"),
    )
