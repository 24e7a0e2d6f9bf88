"""What a conversation is made of, free of any wire format. Used by prompts, serving and the gRPC face alike."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool."""

    name: str
    arguments: str
    """Raw text of a JSON object, keys in the order in which they came."""
    index: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a model may call."""

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
    """Lower case. "system", "user", "assistant", "tool", or another that a template knows."""
    content: str = ""
    thinking: str = ""
    media: tuple[bytes, ...] = ()
    """Pictures and sounds."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Think:
    """Whether and how hard a model shall think. Unset is spelt None where one is optional."""

    on: bool
    level: str = ""
    """"low", "medium", "high", "max", or empty where only on or off was said."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools the model may or must call."""

    mode: str = "auto"
    """"auto", "none" or "required"."""
    name: str = ""
    """The one tool that must be called, with mode "required"; empty: any."""
