"""Bodies of /api/*."""

from typing import Final

from puna_rest.bodies.custom import IMAGES, KEEP_ALIVE, MESSAGE, OPTIONAL_BOOL, THINK, TOOL
from puna_rest.gobody.decoder import Type
from puna_rest.gobody.kinds import AnyMap, Anything, Bool, Int, Raw, Slice, String, StringMap, Struct

_HOW: Final[dict[str, Type]] = {
    "stream": OPTIONAL_BOOL,
    "format": Raw(),
    "keep_alive": KEEP_ALIVE,
    "options": AnyMap(),
    "think": THINK,
    "truncate": OPTIONAL_BOOL,
    "shift": OPTIONAL_BOOL,
    "_debug_render_only": Bool(),
    "logprobs": Bool(),
    "top_logprobs": Int(),
}
_TRANSFER: Final[dict[str, Type]] = {
    "model": String(),
    "insecure": Bool(),
    "username": String(),
    "password": String(),
    "stream": OPTIONAL_BOOL,
    "name": String(),
}

GENERATE: Final = Struct(
    "api.GenerateRequest",
    {
        "model": String(),
        "prompt": String(),
        "suffix": String(),
        "system": String(),
        "template": String(),
        "context": Slice(Int()),
        "raw": Bool(),
        "images": IMAGES,
        **_HOW,
    },
)
CHAT: Final = Struct(
    "api.ChatRequest",
    {"model": String(), "messages": Slice(MESSAGE), "tools": Slice(TOOL, go="api.Tools"), **_HOW},
)
EMBED: Final = Struct(
    "api.EmbedRequest",
    {
        "model": String(),
        "input": Anything(),
        "keep_alive": KEEP_ALIVE,
        "truncate": OPTIONAL_BOOL,
        "dimensions": Int(),
        "options": AnyMap(),
    },
)
EMBEDDINGS: Final = Struct(
    "api.EmbeddingRequest",
    {"model": String(), "prompt": String(), "keep_alive": KEEP_ALIVE, "options": AnyMap()},
)
TOKENIZE: Final = Struct(
    "api.TokenizeRequest",
    {
        "model": String(),
        # Three names of one field, since clients were written for several proposals.
        "content": String(),
        "text": String(),
        "prompt": String(),
        "add_special": OPTIONAL_BOOL,
        "parse_special": OPTIONAL_BOOL,
        "with_pieces": Bool(),
        "messages": Slice(MESSAGE),
        "tools": Slice(TOOL, go="api.Tools"),
        "think": THINK,
        "truncate": OPTIONAL_BOOL,
        "keep_alive": KEEP_ALIVE,
        "options": AnyMap(),
    },
)
DETOKENIZE: Final = Struct(
    "api.DetokenizeRequest",
    {
        "model": String(),
        "tokens": Slice(Int()),
        "skip_special": Bool(),
        "keep_alive": KEEP_ALIVE,
        "options": AnyMap(),
    },
)
SHOW: Final = Struct(
    "api.ShowRequest",
    {
        "model": String(),
        "system": String(),
        "template": String(),
        "verbose": Bool(),
        "options": AnyMap(),
        "name": String(),
    },
)
COPY: Final = Struct("api.CopyRequest", {"source": String(), "destination": String()})
DELETE: Final = Struct("api.DeleteRequest", {"model": String(), "name": String()})
PULL: Final = Struct("api.PullRequest", _TRANSFER)
PUSH: Final = Struct("api.PushRequest", _TRANSFER)
CREATE: Final = Struct(
    "api.CreateRequest",
    {
        "model": String(),
        "stream": OPTIONAL_BOOL,
        "quantize": String(),
        "draft_quantize": String(),
        "from": String(),
        "remote_host": String(),
        "files": StringMap(),
        "draft_files": StringMap(),
        "adapters": StringMap(),
        "template": String(),
        "license": Anything(),
        "system": String(),
        "parameters": AnyMap(),
        "messages": Slice(MESSAGE),
        "renderer": String(),
        "parser": String(),
        "requires": String(),
        "info": AnyMap(),
        "name": String(),
        "quantization": String(),
        # Puna's own: which backend runs the model, and what the model tells it.
        "backend": String(),
        "format": String(),
        "upstream": String(),
        "backend_options": AnyMap(),
    },
)
WEB_SEARCH: Final = Struct("api.WebSearchRequest", {"query": String(), "max_results": Int()})
WEB_FETCH: Final = Struct("api.WebFetchRequest", {"url": String()})
