"""Bodies of /v1/chat/completions, /v1/completions and /v1/embeddings.

Fields that Ollama ignores and Puna honours accept any value, so that no request is refused for them.
"""

from typing import Final

from puna_rest.bodies.custom import TOOL
from puna_rest.gobody.decoder import Type
from puna_rest.gobody.kinds import Anything, Bool, Float, Int, Pointer, Raw, Slice, String, Struct, anonymous

_STREAM_OPTIONS: Final = Pointer(Struct("openai.StreamOptions", {"include_usage": Bool()}))

TOOL_CALL: Final = Struct(
    "openai.ToolCall",
    {
        "id": String(),
        "index": Int(),
        "type": String(),
        "function": Struct(anonymous(name="string", arguments="string"), {"name": String(), "arguments": String()}),
    },
)
MESSAGE: Final = Struct(
    "openai.Message",
    {
        "role": String(),
        "content": Anything(),
        "reasoning": String(),
        "tool_calls": Slice(TOOL_CALL),
        "name": String(),
        "tool_call_id": String(),
    },
)
CHAT_COMPLETION: Final = Struct(
    "openai.ChatCompletionRequest",
    {
        "model": String(),
        "messages": Slice(MESSAGE),
        "stream": Bool(),
        "stream_options": _STREAM_OPTIONS,
        "max_tokens": Pointer(Int()),
        "seed": Pointer(Int()),
        "stop": Anything(),
        "temperature": Pointer(Float()),
        "frequency_penalty": Pointer(Float()),
        "presence_penalty": Pointer(Float()),
        "top_p": Pointer(Float()),
        "response_format": Pointer(
            Struct(
                "openai.ResponseFormat",
                {"type": String(), "json_schema": Pointer(Struct("openai.JsonSchema", {"schema": Raw()}))},
            )
        ),
        "tools": Slice(TOOL),
        "reasoning": Pointer(Struct("openai.Reasoning", {"effort": String(), "max_tokens": Raw()})),
        "reasoning_effort": Pointer(String()),
        "logprobs": Pointer(Bool()),
        "top_logprobs": Int(),
        "_debug_render_only": Bool(),
        "tool_choice": Raw(),
        "max_completion_tokens": Raw(),
        "n": Raw(),
        "thinking_token_budget": Raw(),
    },
)
_COMPLETION: Final[dict[str, Type]] = {
    "model": String(),
    "prompt": String(),
    "frequency_penalty": Float(32),
    "max_tokens": Pointer(Int()),
    "presence_penalty": Float(32),
    "seed": Pointer(Int()),
    "stop": Anything(),
    "stream": Bool(),
    "stream_options": _STREAM_OPTIONS,
    "temperature": Pointer(Float(32)),
    "top_p": Float(32),
    "suffix": String(),
    "logprobs": Pointer(Int()),
    "_debug_render_only": Bool(),
    "n": Raw(),
}
COMPLETION: Final = Struct("openai.CompletionRequest", _COMPLETION)
ECHO: Final = Struct(COMPLETION.go, {**_COMPLETION, "prompt": Anything()})
"""A completion that returns the log-probabilities of its prompts, which may be several, and token ids."""
EMBEDDINGS: Final = Struct(
    "openai.EmbedRequest",
    {"input": Anything(), "model": String(), "dimensions": Int(), "encoding_format": String()},
)
