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

CONFIG: Final = "application/vnd.docker.container.image.v1+json"
MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
