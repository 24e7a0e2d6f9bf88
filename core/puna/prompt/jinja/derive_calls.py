"""Derives the syntax of tool calls from a chat template, by the method of puna.prompt.jinja.derive.

The needles in a rendered call show its syntax: a quoted name is a JSON call, a quoted key with a bare name has JSON
arguments between markers, and otherwise every argument stands between markers. Further pairs show which markers belong
to one call and which to all of them (one call against two), and where the name ends (no argument against one).
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from puna.prompt.jinja.comparison import Difference, compare
from puna.prompt.layout import CallSyntax, JsonCall, OutputLayout, TaggedCall
from puna.prompt.value import Value

USER: Final[dict[str, Any]] = {"role": "user", "content": "Whose boat is this?"}
# Needles are words that no template contains, without characters that JSON or HTML would escape.
ANSWER: Final = "Quill owns the boat."
FIRST: Final = "fetch_heron"
SECOND: Final = "paint_otter"
KEY: Final = "mossy_stone"
OTHER_KEY: Final = "dusty_lamp"
_VALUE: Final = "juniper"
_OTHER_VALUE: Final = "saffron"
# Nine letters and digits: the templates of Mistral refuse any other id.
_ID: Final = "heron0001"
_MARK: Final = r"(?:<[^>]*>|\[[^\]]*\])"

Pair = Callable[..., Difference | None]


def _tool(name: str, description: str) -> dict[str, Any]:
    properties = {
        KEY: {"type": "string", "description": "Where it lies"},
        OTHER_KEY: {"type": "string", "description": "How bright it is"},
    }
    schema = {"type": "object", "properties": properties, "required": []}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS: Final = [_tool(FIRST, "Fetches a bird"), _tool(SECOND, "Paints an animal")]


def _call(name: str, arguments: dict[str, str], number: str = _ID) -> dict[str, Any]:
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


_BOTH: Final = {KEY: _VALUE, OTHER_KEY: _OTHER_VALUE}
CALL: Final = _call(FIRST, _BOTH)
SECOND_CALL: Final = _call(SECOND, _BOTH, "heron0002")


def _calling(*made: dict[str, Any]) -> list[dict[str, Any]]:
    return [USER, {"role": "assistant", "content": "", "tool_calls": list(made)}]


def calls(pair: Pair, layout: OutputLayout, *, parallel: bool) -> OutputLayout:
    """Return the layout with the syntax of calls, unchanged if the template shows none."""
    found = pair([USER, {"role": "assistant", "content": ANSWER}], _calling(CALL), tools=TOOLS)
    if found is None or FIRST not in found.right:
        return layout
    text = found.right
    # A template may write an empty thought in front of a call.
    for marker in (layout.thinking_start, layout.thinking_end):
        if marker:
            text = text.replace(marker, "", 1)
    if re.search(rf'[{{:]\s*"{FIRST}"', text):
        return _json_calls(pair, layout, text, parallel=parallel)
    if re.search(rf'[{{:]\s*"{KEY}"', text):
        layout = replace(layout, call_syntax=CallSyntax.TAGGED_JSON)
    else:
        layout = replace(layout, call_syntax=CallSyntax.TAGGED)
    layout = _outer_markers(layout, text)
    if parallel:
        layout = _per_call(pair, layout)
    return _tagged_calls(pair, layout, text)


def _json_calls(pair: Pair, layout: OutputLayout, text: str, *, parallel: bool) -> OutputLayout:
    # The outermost braces, since the arguments are an object within the call.
    start, end = text.find("{"), text.rfind("}") + 1
    try:
        shape = json.loads(text[start:end])
    except ValueError:
        return layout
    members = _members(shape)
    # A template may print calls as a JSON array even if there is only one.
    before, after = text[:start].rstrip(), text[end:].lstrip()
    if before.endswith("[") and after.startswith("]"):
        members = replace(members, in_array=True)
        start, end = len(before) - 1, len(text) - len(after) + 1
    section_start, section_end = text[:start].lstrip(), text[end:].strip()
    layout = replace(
        layout, call_syntax=CallSyntax.JSON, json=members, section_start=section_start, section_end=section_end
    )
    if parallel:
        # A marker that comes again before the second call belongs to each call.
        two = pair(_calling(CALL), _calling(CALL, SECOND_CALL), tools=TOOLS)
        if two and section_start and section_start in two.right:
            layout = replace(layout, section_start="", section_end="", call_start=section_start, call_end=section_end)
    return layout


def _members(shape: dict[str, Any]) -> JsonCall:
    found = JsonCall()

    def register(prefix: str, key: str, value: Value) -> None:
        nonlocal found
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, str) and "heron000" in value:
            found = replace(found, id=path)
        elif value == FIRST:
            found = replace(found, name=path)
        elif KEY in json.dumps(value):
            found = replace(found, arguments=path)
        # A template may write an id of its own instead of the conversation's.
        elif "id" in key and not found.id:
            found = replace(found, id=path)

    for key, value in shape.items():
        # `{NAME: {…}}`: the name itself is the only member.
        if key == FIRST:
            return replace(found, name="", arguments="")
        if isinstance(value, dict) and FIRST in json.dumps(value):
            for inner, each in value.items():
                register(key, inner, each)
        else:
            register("", key, value)
    return found


def _outer_markers(layout: OutputLayout, text: str) -> OutputLayout:
    """Find the markers around calls: one or two before the marker with the name, and as many at the end."""
    # The marker that holds the name, such as <function=NAME>. In <function>NAME</function> the name stands outside.
    inside = re.search(rf"<[^<>]*?{FIRST}(?!\s*<)[^<>]*>\s*", text) or re.search(
        rf"\[[^\[\]]*?{FIRST}[^\[\]]*\]\s*", text
    )
    name = inside[0] if inside else FIRST
    double = re.search(rf"({_MARK}\s*)({_MARK}\s*)(.*?){re.escape(name)}(.*)", text, re.DOTALL)
    if double:
        closing = re.search(rf"({_MARK}\s*)({_MARK}\s*)$", double[4])
        return replace(
            layout,
            section_start=double[1],
            call_start=double[2],
            call_end=(closing[1] if closing else "").strip(),
            section_end=(closing[2] if closing else "").strip(),
        )
    single = re.search(rf"({_MARK}\s*){re.escape(name)}(.*)", text, re.DOTALL)
    if not single:
        return layout
    closing = re.search(rf"({_MARK}\s*)$", single[2])
    return replace(layout, section_start=single[1], section_end=(closing[1] if closing else "").strip())


def _per_call(pair: Pair, layout: OutputLayout) -> OutputLayout:
    """Compare one call with two, to separate the markers of each call from the markers around all calls."""
    two = pair(_calling(CALL), _calling(CALL, SECOND_CALL), tools=TOOLS)
    if two is None:
        return layout
    # The common end of both texts belongs to the last call. Cutting it off leaves what stands between the calls.
    second = compare(two.suffix, two.right).right.lstrip()
    if layout.section_start and second.startswith(layout.section_start):
        layout = replace(
            layout, call_start=layout.section_start, call_end=layout.section_end, section_start="", section_end=""
        )
    if layout.call_end:
        # As many end markers with two calls as with one: the marker closes the section, not the call.
        one_text = two.prefix + two.left + two.suffix
        two_text = two.prefix + two.right + two.suffix
        if 0 < one_text.count(layout.call_end) == two_text.count(layout.call_end):
            layout = replace(layout, section_end=layout.call_end, call_end="")
    return layout


def _tagged_calls(pair: Pair, layout: OutputLayout, text: str) -> OutputLayout:
    """Find the markers within one call by cutting it at the needles."""
    body = text
    if layout.calls_marker and layout.calls_marker in body:
        body = body.partition(layout.calls_marker)[2]
    # Both markers stand before the first call; the loop over calls starts behind the second one.
    if layout.section_start and layout.call_start.strip():
        body = body.partition(layout.call_start.strip())[2]
    before_name, _, rest = body.partition(FIRST)
    closing = layout.call_end or layout.section_end
    # The closing markers of the section are known already; what remains belongs to this call.
    if closing and closing in rest:
        rest = rest[: rest.rfind(closing)]
    tagged = TaggedCall(before_name=before_name.lstrip())
    # An id in front of the name, as Solar writes it.
    if _ID in before_name:
        before_id, _, after_id = before_name.partition(_ID)
        tagged = TaggedCall(before_id=before_id, after_id=after_id, id_first=True)
    if layout.call_syntax is CallSyntax.TAGGED_JSON:
        start, end = rest.find("{"), rest.rfind("}") + 1
        head, tail = rest[:start], rest[end:]
        if _ID in head:
            head, before_id, after_id = _id_markers(head)
            tagged = replace(tagged, before_id=before_id, after_id=after_id)
        return replace(layout, tagged=replace(tagged, after_name=head, close=tail.strip()))
    return replace(layout, tagged=_argument_markers(pair, tagged, rest))


def _id_markers(head: str) -> tuple[str, str, str]:
    """Cut the text between name and arguments at the id; return the text before its marker, the marker, the rest."""
    before, _, after = head.partition(_ID)
    marker = re.search(rf"{_MARK}\s*$", before)
    if not marker:
        return before, "", after
    return before[: marker.start()], marker[0], after


def _argument_markers(pair: Pair, tagged: TaggedCall, rest: str) -> TaggedCall:
    """Cut `rest`, the text after the name, at keys and values."""
    after_name, _, tail = rest.partition(KEY)
    between, _, tail = tail.partition(_VALUE)
    after_value, _, tail = tail.partition(OTHER_KEY)
    _, _, close = tail.partition(_OTHER_VALUE)
    opening = re.search(r"(.*?)((?:<[^<>]*|\[[^\[\]]*|\S*)$)", after_name, re.DOTALL)
    # The marker right before the key belongs to the key; text before that marker belongs to the name.
    full = re.search(rf"({_MARK}\s*)$", after_name)
    start = full.start() if full else opening.start(2) if opening else len(after_name)
    before_key = after_name[start:]
    head = after_name[:start]
    # The text between two arguments is the end of the first and the start of the second, which is known.
    if after_value.endswith(before_key) and before_key:
        after_value = after_value[: -len(before_key)]
    middle = re.match(rf"([^<\[]*(?:{_MARK})\s*|[^<\[]*)(.*)", between, re.DOTALL)
    after_key, before_value = (middle[1], middle[2]) if middle else (between, "")
    marker = re.match(rf"\s*{_MARK}\s*", close)
    close = close[marker.end() :] if marker else close
    # Text that a call without arguments lacks is no part of the name's marker: it separates name and arguments.
    none = pair(_calling(_call(FIRST, {})), _calling(_call(FIRST, {KEY: _VALUE})), tools=TOOLS)
    separator = ""
    if none is not None and none.left.strip() == "" and head.strip():
        name_end = re.match(r"[^<\[]*(?:\]|>)?\s*", head)
        separator = head[name_end.end() :].strip() if name_end else ""
        head = head[: name_end.end()] if name_end else head
    return replace(
        tagged,
        after_name=head,
        separator=separator,
        before_key=before_key,
        after_key=after_key,
        before_value=before_value,
        after_value=after_value,
        close=close.strip(),
    )
