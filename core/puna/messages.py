"""The parts of a conversation, independent of any wire format. Prompts, serving and rpc share them."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call."""

    name: str
    # Text and not an object: the order of keys and the spelling of numbers reach templates and clients unchanged.
    arguments: str
    """Raw text of a JSON object, with its keys in the order in which the model wrote them."""
    index: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A part of the arguments of a tool call that the model is writing."""

    index: int
    id: str = ""
    """With `name`, in the first delta of a call alone."""
    name: str = ""
    arguments: str = ""
    """The next part of the JSON text of the arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that a model may call."""

    name: str
    description: str = ""
    parameters: str = ""
    """Raw text of a JSON Schema object; empty: none given."""
    type: str = "function"
    items: str = ""
    """Raw JSON text; empty: none given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: str
    """In lower case: "system", "user", "assistant", "tool", or another one that a template knows."""
    content: str = ""
    thinking: str = ""
    media: tuple[bytes, ...] = ()
    """Images and sounds."""
    media_at: tuple[int, ...] = ()
    """The place of each of the media: an offset in `content`, in ascending order. Empty: the prompt's format places
    them."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""

    def __post_init__(self) -> None:
        """Lower-case the role, as Ollama does wherever it reads a message."""
        if not self.role.islower():
            # The only way to set a field of a frozen dataclass.
            object.__setattr__(self, "role", self.role.lower())

    def with_content(self, content: str, removed: int = 0) -> "Message":
        """Return the message with other text: its own, without the first `removed` characters and some of its end."""
        places = tuple([min(max(at - removed, 0), len(content)) for at in self.media_at])
        return replace(self, content=content, media_at=places)


@dataclass(frozen=True, slots=True)
class Think:
    """The thinking that a request demands, with its effort. Fields that may be unset are of type `Think | None`."""

    on: bool
    level: str = ""
    """"low", "medium", "high", "max", or empty where the request sets only on or off."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The rule for tool calls: allowed, forbidden or required."""

    mode: str = "auto"
    """"auto", "none" or "required"."""
    name: str = ""
    """The one tool that must be called, with mode "required"; empty: any."""
