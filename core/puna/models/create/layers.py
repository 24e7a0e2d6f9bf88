"""The layers of a model that is being created, among them the layers of text."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from puna.errors import InvalidCreateError, TemplateError
from puna.gguf.reader import GGUF
from puna.models.create import known_templates
from puna.models.create.request import CreateRequest
from puna.models.facts.header_cache import ReadTemplate
from puna.models.layout import media_types, parameters, preset_messages
from puna.models.layout.config import Config
from puna.models.layout.manifest import Layer
from puna.models.storage.blobs import digest_of

_GEMMA_STOP: Final = "<turn|>"
_DEFAULTS: Final = {
    "gemma4": "gemma4",
    "laguna": "laguna",
    "nemotron_h": "nemotron-3-nano",
    "nemotron_h_moe": "nemotron-3-nano",
    "nemotron_h_omni": "nemotron-3-nano",
}
"""Renderer and parser of architectures that need one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A layer, with its bytes if they are not stored yet."""

    layer: Layer
    data: bytes | None = None
    created: bool = False
    """Whether its blob is new."""
    status: str = ""
    """The status line; empty for the usual one."""

    @property
    def status_line(self) -> str:
        """The status line that clients see."""
        return self.status or f"{'creating new' if self.created else 'using existing'} layer {self.layer.digest}"


def of_text(media_type: str, data: bytes, status: str = "") -> Entry:
    """Make a layer of bytes."""
    return Entry(layer=Layer(media_type=media_type, digest=digest_of(data), size=len(data)), data=data, status=status)


def detected(header: GGUF) -> list[Entry]:
    """Return the layers of the known template that is nearest to the file's chat template; empty if none is near."""
    chat_template = header.text("tokenizer.chat_template")
    known = known_templates.nearest(chat_template) if chat_template else None
    if known is None:
        return []
    status = f"using autodetected template {known.name}"
    entries = [of_text(media_types.TEMPLATE, known.template.encode(), status)]
    if known.stop:
        entries.append(of_text(media_types.PARAMS, parameters.dumps({"stop": list(known.stop)})))
    return entries


def with_defaults(config: Config, request: CreateRequest) -> tuple[Config, CreateRequest]:
    """Fill in the renderer and the parser that some architectures need."""
    default = _DEFAULTS.get(config.model_family)
    if default is None or (config.renderer and config.parser):
        return config, request
    # A client's own stop strings are kept.
    if config.model_family == "gemma4" and "stop" not in request.parameters:
        request = replace(request, parameters={**request.parameters, "stop": [_GEMMA_STOP]})
    return replace(config, renderer=config.renderer or default, parser=config.parser or default), request


def with_texts(
    entries: list[Entry], request: CreateRequest, read: Callable[[str], bytes], read_template: ReadTemplate
) -> list[Entry]:
    """Add the request's layers. `read` returns a blob's bytes. Raises InvalidCreateError for an invalid template."""
    out = list(entries)
    if request.template:
        try:
            read_template(request.template)
        except TemplateError as error:
            raise InvalidCreateError(f"template error: {error}") from error
        # PROMPT is the old name of TEMPLATE: a model must not have both.
        out = _without(out, media_types.TEMPLATE, media_types.PROMPT)
        out.append(of_text(media_types.TEMPLATE, request.template.encode()))
    if request.system:
        out = [*_without(out, media_types.SYSTEM), of_text(media_types.SYSTEM, request.system.encode())]
    out += [of_text(media_types.LICENSE, text.encode()) for text in request.licenses]
    # Parameters merge key by key, so their layers become one. Other texts replace the inherited ones.
    merged = _parameters(out, request.parameters, read)
    out = _without(out, media_types.PARAMS)
    if merged:
        out.append(of_text(media_types.PARAMS, parameters.dumps(merged)))
    if request.messages:
        out = [
            *_without(out, media_types.MESSAGES),
            of_text(media_types.MESSAGES, preset_messages.dumps(request.messages)),
        ]
    return out


def _parameters(entries: Iterable[Entry], given: Mapping[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
    found = [
        parameters.loads(entry.data if entry.data is not None else read(entry.layer.digest))
        for entry in entries
        if entry.layer.media_type == media_types.PARAMS
    ]
    return parameters.merged([*found, given])


def _without(entries: Iterable[Entry], *kinds: str) -> list[Entry]:
    return [entry for entry in entries if entry.layer.media_type not in kinds]
