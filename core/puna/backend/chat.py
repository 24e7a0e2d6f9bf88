"""Conversations for backends that take messages instead of a prompt."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatToolCall:
    """A call of a tool."""

    name: str
    arguments_json: str = "{}"
    """The arguments as the raw text of a JSON object."""
    id: str = ""
    """The call's id, which the message with its result repeats; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """A message of a conversation."""

    role: str
    """"system", "user", "assistant", "tool", or another role that the client sent."""
    content: str = ""
    thinking: str = ""
    media: tuple[bytes, ...] = ()
    """Images and sounds, as the content of their files."""
    media_at: tuple[int, ...] = ()
    """The place of each of the media: an offset in `content`, in ascending order. Empty: the backend places them."""
    tool_calls: tuple[ChatToolCall, ...] = ()
    tool_name: str = ""
    """The tool whose result this is, in a message of the role "tool"."""
    tool_call_id: str = ""
    """The id of the call whose result this is; empty if the client sent none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTool:
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters_json: str = ""
    """The parameters as raw JSON text of a JSON Schema object; empty: no parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatInput:
    """A conversation to be continued, for a backend that takes messages instead of a prompt."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[ChatTool, ...] = ()
    tool_choice: str = "auto"
    """"auto", "none", "required", or "tool:NAME" for one tool that must be called."""
    thinking: str = ""
    """"off", "on", "low", "medium", "high" or "max"; empty: the engine decides."""
    thinking_budget: int | None = None
    """Largest number of tokens that the model may think; None: no limit. Only for a backend whose manifest declares the
    capability `thinking_budget`. It raises UnsupportedError where its engine cannot enforce the limit."""
