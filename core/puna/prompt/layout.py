"""The layout of a model's answers: the markers around thinking, content and calls, and the syntax of calls.

An OutputLayout is plain data. puna.prompt.jinja.derive finds it by rendering the model's chat template, known_layouts
holds those of templates that show too little, and puna.prompt.builtin.call_layouts those of the builtin parsers. Two
readers use it: puna.prompt.jinja.parser takes answers apart, and puna.prompt.tool_grammar writes the grammar of a call
that the client demands. Markers keep the white space that the template writes around them; parsers do not insist on it.
"""

from dataclasses import dataclass
from enum import Enum


class CallSyntax(Enum):
    """The syntax of a tool call."""

    NONE = "none"
    """There are no calls: everything is content."""
    JSON = "json"
    """One JSON object: `{"name": …, "arguments": {…}}`."""
    TAGGED_JSON = "tagged json"
    """The name between markers, the arguments as JSON: `<function=NAME>{…}</function>`."""
    TAGGED = "tagged"
    """The name and every argument between markers: `<function=NAME><parameter=KEY>VALUE</parameter></function>`."""
    NESTED = "nested"
    """As TAGGED, with the members of an argument as elements within it, down to texts and numbers."""
    BARE_KEYS = "loose"
    """The name and an object with bare keys. A special token quotes texts: `NAME{KEY:<|"|>TEXT<|"|>}`."""
    PYTHON = "python"
    """A list of Python calls: `[NAME(KEY=VALUE)]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCall:
    """The members of a call that is a JSON object."""

    name: str = "name"
    """The member with the function's name; "OUTER.INNER" for a nested one; empty: the name itself is the member."""
    arguments: str = "arguments"
    """The member with the arguments, as for `name`. Empty with an empty `name`: the value of that member."""
    id: str = ""
    """The member with the call's id; empty: a call has none."""
    in_array: bool = False
    """Calls stand in a JSON array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedCall:
    """The markers of a call that is not a JSON object. White space around markers is not significant."""

    before_name: str = ""
    after_name: str = ""
    after_attributes: str = ""
    """Ends the attributes after a name or a key, which are passed over; empty: there are none."""
    separator: str = ""
    """Stands between the name and the arguments."""
    before_id: str = ""
    """Stands before the call's id, which comes between name and arguments. Empty: a call has no id."""
    after_id: str = ""
    id_template: str = "{id}"
    """The id that clients get: a template over the call's {name} and the {id} that the model writes."""
    id_first: bool = False
    """The id comes before the name instead."""
    before_arguments: str = ""
    after_arguments: str = ""
    before_key: str = ""
    after_key: str = ""
    before_value: str = ""
    after_value: str = ""
    before_json: str = ""
    """Stands in place of `before_value` where the value is JSON whatever the schema says; empty: it never is."""
    cdata: bool = False
    """A value may stand in <![CDATA[…]]>."""
    close: str = ""
    """Ends a call, before the layout's `call_end`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Literals:
    """The notation of values in the syntaxes BARE_KEYS and PYTHON."""

    quote: str
    """Stands on both sides of a text."""
    text: str
    """A regular expression of one character in a text, with the characters that must follow so that no quote begins."""
    inner: str = ""
    """The same for texts in lists and objects; empty: there is no difference."""
    bare_keys: bool = True
    spaced: bool = False
    """A space may follow the comma between arguments."""
    null: str = "null"
    """The word for null; empty: the notation has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLayout:
    """The layout of an answer: optional thinking, then content, then optional calls."""

    name: str
    thinks: bool = False
    thinking_start: str = ""
    """Empty with `thinks`: an answer begins within thinking."""
    thinking_end: str = ""
    calls_end_thinking: bool = False
    """The start of a call ends thinking that is not closed."""
    content_ends_thinking: bool = False
    """The start of content ends thinking that is not closed."""
    thinks_again: bool = False
    """Thinking may begin anew after content."""
    stray_markers: tuple[str, ...] = ()
    """Markers that models also write where they have no meaning; they are dropped from content."""
    skips_space: bool = False
    """All white space after the markers of thinking is dropped, not only as much as the template writes there."""
    content_start: str = ""
    """Stands before content, with `content_end` after it; empty: content stands alone."""
    content_end: str = ""
    call_syntax: CallSyntax = CallSyntax.NONE
    section_start: str = ""
    """Stands before all calls, with `section_end` after them."""
    section_end: str = ""
    call_start: str = ""
    """Stands before every call, with `call_end` after it."""
    call_end: str = ""
    recipient_prefix: str = ""
    """Stands before `call_start`, followed by the tool's name, which is the recipient of the message; empty: there is
    no recipient."""
    json: JsonCall = JsonCall()
    tagged: TaggedCall = TaggedCall()
    literals: Literals | None = None
    """For BARE_KEYS and PYTHON. None: calls can be read, and a grammar cannot demand them."""
    unmarked_calls: tuple[str, ...] = ()
    """Further texts that begin a call, for models that leave the marker out; "NAME" stands for each tool's name."""
    before_prefill: str | None = None
    """Stands before an answer that the client has begun; None: both markers of thinking."""
    preserved_tokens: tuple[str, ...] = ()
    """Special tokens that must be visible in the output."""
    stops: tuple[str, ...] = ()
    """Texts that end the output."""

    @property
    def calls_marker(self) -> str:
        """The marker between content and calls; empty: there is none."""
        return (self.section_start or self.call_start).strip()
