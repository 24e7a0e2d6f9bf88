"""Derives the layout of a model's answers from its chat template.

Theory. A model was trained on the output of its template, which prints the answers, thoughts and calls of earlier turns
in the layout in which the model writes new ones. So the template is rendered on pairs of small conversations that
differ in one thing, and the difference between the two texts shows the markers around that thing. Needles that occur
nowhere else stand for content, thoughts, names and arguments.

Order of the steps: thinking first, from answers with and without a thought, then from the two ways in which a turn may
open, then from a call with a thought, since some templates show thoughts only there; then what wraps content; then
calls (derive_calls). Each step adds to the layout and leaves out what does not come out clearly: without a marker,
everything that the model writes is content.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from puna.prompt.jinja.comparison import Difference, compare, is_marker, segments
from puna.prompt.jinja.derive_calls import ANSWER, CALL, TOOLS, USER, calls
from puna.prompt.jinja.probe import Abilities
from puna.prompt.layout import CallSyntax, OutputLayout
from puna.prompt.value import Value

Attempt = Callable[..., str | None]
"""Renders messages with variables. None: the template fails."""

THOUGHT: Final = "Perhaps it is Quill, she sails."
_ANCHOR: Final = 64
_MARK: Final = r"(?:<[^>]*>|\[[^\]]*\])"


def derive(attempt: Attempt, abilities: Abilities) -> OutputLayout:
    """Return the layout that a template implies."""

    def pair(one: list[dict[str, Any]], other: list[dict[str, Any]], **variables: Value) -> Difference | None:
        # Thinking is on in both, so that no pair differs by an empty thought.
        texts = [attempt(messages, enable_thinking=True, **variables) for messages in (one, other)]
        return None if None in texts else compare(texts[0] or "", texts[1] or "")

    layout = _thinking(attempt, OutputLayout(name="derived"), scoped=abilities.tool_calls)
    layout = _content(pair, layout)
    if abilities.tool_calls:
        layout = calls(pair, layout, parallel=abilities.parallel_tool_calls)
    return replace(layout, preserved_tokens=_markers(layout))


def _said(content: str | None = ANSWER, **more: Value) -> list[dict[str, Any]]:
    return [USER, {"role": "assistant", "content": content, **more}]


def _thinking(attempt: Attempt, layout: OutputLayout, *, scoped: bool) -> OutputLayout:
    # A thought in an answer of the past. Templates that drop old thoughts show nothing here.
    plain = attempt(_said(), enable_thinking=True)
    thoughtful = attempt(_said(reasoning_content=THOUGHT), enable_thinking=True)
    if plain is not None and thoughtful is not None and THOUGHT in compare(plain, thoughtful).right:
        layout = _around_thought(layout, thoughtful)
    # The switch comes second, so that it adds only what earlier answers did not show.
    layout = _thinking_switch(attempt, layout)
    if scoped:
        # Some templates show a thought only beside a call, since a model goes on thinking after the call's result.
        without = attempt(_said(reasoning_content=THOUGHT), enable_thinking=True, tools=TOOLS)
        within = attempt(_said(None, reasoning_content=THOUGHT, tool_calls=[CALL]), enable_thinking=True, tools=TOOLS)
        if without is not None and within is not None and THOUGHT not in without and THOUGHT in within:
            layout = _around_thought(replace(layout, thinks=False, thinking_start="", thinking_end=""), within)
    return layout


def _around_thought(layout: OutputLayout, text: str) -> OutputLayout:
    thought = re.escape(THOUGHT)
    # Without a marker before the thought, the prompt opens the thinking, and only its end is in the answer.
    found = re.search(rf"({_MARK}\s*){thought}(\s*{_MARK}\s*)", text)
    # White space between thought and marker is kept: it is the template's, and the parser drops it where the model
    # repeats it.
    if found:
        return replace(layout, thinks=True, thinking_start=found[1], thinking_end=found[2])
    found = re.search(rf"{thought}\s*({_MARK}\s*)", text)
    return replace(layout, thinks=True, thinking_end=found[1]) if found else layout


def _thinking_switch(attempt: Attempt, layout: OutputLayout) -> OutputLayout:
    """Compare the openings of a turn with thinking off and on."""
    texts = [attempt([USER], enable_thinking=on, add_generation_prompt=True) for on in (False, True)]
    if texts[0] is None or texts[1] is None:
        return layout
    off, on = texts[0], texts[1]
    difference = compare(off, on)
    left, right = difference.left.strip(), difference.right.strip()
    # The opening with thinking has a marker more: it starts thinking.
    if not left and right:
        # A marker elsewhere would be an instruction about thinking in the system message and not the start of a
        # thought.
        if on.endswith(right) and not layout.thinking_start:
            layout = replace(layout, thinks=True, thinking_start=difference.right)
    # The opening without thinking has a marker more: it closes an empty thought, which the marker before it starts.
    elif left and not right:
        if off.endswith(left) and not layout.thinking_end:
            seen = [each for each in segments(off) if each.strip()]
            if len(seen) >= 2 and seen[-1] == left and is_marker(seen[-2]):
                layout = replace(layout, thinking_start=seen[-2])
            layout = replace(layout, thinks=True, thinking_end=difference.left)
    # Both differ: one may have an empty thought behind all that the other has.
    elif left and right:
        layout = _thinking_tail(layout, off, on)
    return layout


def _thinking_tail(layout: OutputLayout, off: str, on: str) -> OutputLayout:
    """Find two markers that one opening has after the end of the other: an empty thought where thinking is off."""
    for base, extended in ((on, off), (off, on)):
        # The end of the shorter opening is looked for in the longer one, whose text before it may differ.
        anchor = base[-_ANCHOR:]
        position = extended.rfind(anchor)
        if position < 0 or position + len(anchor) >= len(extended):
            continue
        extra = [each for each in segments(extended[position + len(anchor) :].strip()) if each.strip()]
        # Exactly two markers are an empty thought. Anything else is an instruction or an example.
        if len(extra) == 2 and is_marker(extra[0]) and is_marker(extra[1]):
            return replace(
                layout,
                thinks=True,
                thinking_start=layout.thinking_start or extra[0],
                thinking_end=layout.thinking_end or extra[1],
            )
    return layout


def _content(pair: Callable[..., Difference | None], layout: OutputLayout) -> OutputLayout:
    """Find the markers around content."""
    # Two pairs, because one alone shares markers with the other text: a call may be wrapped as content is.
    tools = pair(_said(), _said("", tool_calls=[CALL]), tools=TOOLS)
    thoughts = pair(_said(), _said("", reasoning_content=THOUGHT), tools=TOOLS)
    if tools is None or thoughts is None:
        return layout
    rest = thoughts.left
    # The markers of thinking are no part of what wraps content.
    if layout.thinking_end and layout.thinking_end in rest:
        if tools.left.strip() == ANSWER and rest.partition(layout.thinking_end)[2].lstrip().startswith(ANSWER):
            return layout
        rest = rest.partition(layout.thinking_end)[2]
    if tools.left.strip() == ANSWER and re.fullmatch(rf"\s*{re.escape(ANSWER)}\s*{_MARK}?\s*", rest):
        return layout
    # The longer difference has the markers around content; the shorter one lost those that both texts share.
    longer = rest if len(rest) > len(tools.left) else tools.left
    found = re.search(rf"({_MARK}\s*){re.escape(ANSWER)}\s*({_MARK}\s*)", longer)
    if not found:
        return layout
    return replace(layout, content_start=found[1], content_end=found[2])


def _markers(layout: OutputLayout) -> tuple[str, ...]:
    tagged = layout.tagged
    texts = [layout.thinking_start, layout.thinking_end, layout.content_start, layout.content_end]
    if layout.call_syntax is not CallSyntax.NONE:
        texts += [layout.section_start, layout.section_end, layout.call_start, layout.call_end]
        texts += [tagged.before_name, tagged.after_name, tagged.separator, tagged.close]
        texts += [tagged.before_arguments, tagged.after_arguments, tagged.before_key, tagged.after_key]
        texts += [tagged.before_value, tagged.after_value, tagged.before_id, tagged.after_id]
    return tuple(dict.fromkeys(each.strip() for each in texts if each.strip()))
