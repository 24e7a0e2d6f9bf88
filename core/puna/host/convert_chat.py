"""Converts conversations between the contract's dataclasses and `puna.backend.v1`, in both directions."""

from puna import backend as contract
from puna.backend.v1 import backend_pb2 as wire


def chat_to_wire(chat: contract.ChatInput) -> wire.ChatInput:
    """Write a conversation."""
    return wire.ChatInput(
        messages=[
            wire.ChatMessage(
                role=each.role,
                content=each.content,
                thinking=each.thinking,
                media=each.media,
                media_at=each.media_at,
                tool_calls=map(call_to_wire, each.tool_calls),
                tool_name=each.tool_name,
                tool_call_id=each.tool_call_id,
            )
            for each in chat.messages
        ],
        tools=[
            wire.ChatTool(name=each.name, description=each.description, parameters_json=each.parameters_json)
            for each in chat.tools
        ],
        tool_choice=chat.tool_choice,
        thinking=chat.thinking,
        thinking_budget=chat.thinking_budget,
    )


def chat_from_wire(chat: wire.ChatInput) -> contract.ChatInput:
    """Read a conversation."""
    return contract.ChatInput(
        messages=tuple(
            contract.ChatMessage(
                role=each.role,
                content=each.content,
                thinking=each.thinking,
                media=tuple(each.media),
                media_at=tuple(each.media_at),
                tool_calls=tuple(map(call_from_wire, each.tool_calls)),
                tool_name=each.tool_name,
                tool_call_id=each.tool_call_id,
            )
            for each in chat.messages
        ),
        tools=tuple(
            contract.ChatTool(name=each.name, description=each.description, parameters_json=each.parameters_json)
            for each in chat.tools
        ),
        tool_choice=chat.tool_choice,
        thinking=chat.thinking,
        thinking_budget=chat.thinking_budget if chat.HasField("thinking_budget") else None,
    )


def call_to_wire(call: contract.ChatToolCall) -> wire.ChatToolCall:
    """Write a tool call."""
    return wire.ChatToolCall(name=call.name, arguments_json=call.arguments_json, id=call.id)


def call_from_wire(call: wire.ChatToolCall) -> contract.ChatToolCall:
    """Read a tool call."""
    return contract.ChatToolCall(name=call.name, arguments_json=call.arguments_json, id=call.id)
