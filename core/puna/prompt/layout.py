"""How a model's output is laid out, as far as its chat template tells."""

from dataclasses import dataclass
from enum import Enum


class CallSyntax(Enum):
    """How a call of a tool is written."""

    NONE = "none"
    """No calls: everything is content."""
    JSON = "json"
    """One JSON object: `{"name": …, "arguments": {…}}`."""
    TAGGED_JSON = "tagged json"
    """The name within markers, the arguments as JSON: `<function=NAME>{…}</function>`."""
    TAGGED = "tagged"
    """Name and every argument within markers: `<function=NAME><parameter=KEY>VALUE</parameter></function>`."""
    NESTED = "nested"
    """Every member of an argument within markers that bear its name, down to texts and numbers."""
    BARE_KEYS = "loose"
    """Name and an object with bare keys; what quotes texts is a special token: `NAME{KEY:<|"|>TEXT<|"|>}`."""
    PYTHON = "python"
    """A list of Python calls: `[NAME(KEY=VALUE)]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCall:
    """Which members a call's JSON object has."""

    name: str = "name"
    """Member with the function's name; "OUTER.INNER" if it is inside another; empty: the name is the member."""
    arguments: str = "arguments"
    """Member with the arguments, likewise; empty with an empty `name`: they are that member's value."""
    id: str = ""
    """Member with the call's id; empty: it has none."""
    in_array: bool = False
    """Whether calls stand in a JSON array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedCall:
    """The markers of a call that is no JSON object. White space around markers is not significant."""

    before_name: str = ""
    after_name: str = ""
    after_attributes: str = ""
    """Ends what follows a name or a key and is not read; empty: nothing follows."""
    separator: str = ""
    """Between the name and the arguments."""
    before_id: str = ""
    """Before the call's id, which stands between name and arguments; empty: no id."""
    after_id: str = ""
    id_template: str = "{id}"
    """The id that clients get, of the call's {name} and the {id} that the model writes."""
    id_first: bool = False
    """Whether the id stands before the name instead."""
    before_arguments: str = ""
    after_arguments: str = ""
    before_key: str = ""
    after_key: str = ""
    before_value: str = ""
    after_value: str = ""
    before_json: str = ""
    """In place of `before_value`, if the value is JSON whatever the schema says."""
    cdata: bool = False
    """True if a value may stand in <![CDATA[…]]>."""
    close: str = ""
    """At the end of a call, before what closes it from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Literals:
    """How values are written in the layouts LOOSE and PYTHON."""

    quote: str
    """On both sides of a text."""
    text: str
    """Regular expression of one character in it, with what must follow so that it does not begin the quote."""
    inner: str = ""
    """The same for texts in lists and objects; empty: no difference."""
    bare_keys: bool = True
    spaced: bool = False
    """Whether a space may stand between arguments."""
    null: str = "null"
    """Empty: it cannot be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLayout:
    """A layout of output: optional thinking, then content, then optional calls."""

    name: str
    thinks: bool = False
    thinking_start: str = ""
    """With the white space that the template writes around it; empty: thinking starts at once."""
    thinking_end: str = ""
    calls_end_thinking: bool = False
    """Whether the start of a call ends thinking that is not closed."""
    content_ends_thinking: bool = False
    """True if the start of content ends thinking that is not closed."""
    thinks_again: bool = False
    """True if thinking may begin anew after content."""
    stray_markers: tuple[str, ...] = ()
    """Markers that models write where they mean nothing; they are dropped from content."""
    skips_space: bool = False
    """Whether all white space after the markers of thinking is dropped, not only what the template writes there."""
    content_start: str = ""
    """What wraps content, if anything."""
    content_end: str = ""
    call_syntax: CallSyntax = CallSyntax.NONE
    section_start: str = ""
    """Around all calls."""
    section_end: str = ""
    call_start: str = ""
    """Around every call."""
    call_end: str = ""
    recipient_prefix: str = ""
    """Before the call's start, with the tool's name behind it: for whom the message is; empty: it does not say."""
    json: JsonCall = JsonCall()
    tagged: TaggedCall = TaggedCall()
    literals: Literals | None = None
    """Of LOOSE and PYTHON; None: calls of this form are read and not demanded."""
    unmarked_calls: tuple[str, ...] = ()
    """Further texts that begin a call, for models that leave out the marker; "NAME" stands for a tool's name."""
    before_prefill: str | None = None
    """What stands before an answer that the client has begun; None: both markers of thinking."""
    preserved_tokens: tuple[str, ...] = ()
    """Special tokens that must be visible in the output."""
    stops: tuple[str, ...] = ()
    """Texts that end the output."""

    @property
    def calls_marker(self) -> str:
        """What separates content from calls; empty if nothing does."""
        return (self.section_start or self.call_start).strip()
