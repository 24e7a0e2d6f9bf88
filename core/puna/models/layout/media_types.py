"""Media types of a manifest's layers."""

from typing import Final

PREFIX: Final = "application/vnd.ollama.image."
MODEL: Final = PREFIX + "model"
PROJECTOR: Final = PREFIX + "projector"
ADAPTER: Final = PREFIX + "adapter"
DRAFT: Final = PREFIX + "draft"
TEMPLATE: Final = PREFIX + "template"
PROMPT: Final = PREFIX + "prompt"
SYSTEM: Final = PREFIX + "system"
PARAMS: Final = PREFIX + "params"
MESSAGES: Final = PREFIX + "messages"
LICENSE: Final = PREFIX + "license"

FILE: Final = "application/vnd.puna.image.file"
"""A file of a model that only its backend can read. The layer's `name` is the relative name of the file. The prefix is
Puna's, so that Ollama takes the layer for none of its own."""

CONFIG: Final = "application/vnd.docker.container.image.v1+json"
MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
