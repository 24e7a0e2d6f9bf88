"""The answer of `show`: everything about a model."""

import json
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from puna.errors import ModelNotFoundError
from puna.gguf import reader as gguf
from puna.gguf.reader import GGUF, Array, Tensor
from puna.gguf.types import F32, STRING, U8
from puna.go import json as gojson
from puna.messages import Message
from puna.model_name import ModelName
from puna.model_settings import ModelSettings
from puna.models import modelfile
from puna.models.facts.details import Details
from puna.models.facts.selection import DEFAULT_TEMPLATE
from puna.models.layout import media_types
from puna.models.layout.config import Config
from puna.models.layout.manifest import Layer
from puna.models.storage.linked import InPlace
from puna.models.stored import StoredModel

AT_ONCE: Final = 8192
"""Elements of an array that are encoded in one call."""
HIDDEN: Final = frozenset(("general.name", "tokenizer.chat_template"))
"""Keys of metadata that are not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowResult:
    """The answer of `show`. Texts are empty where Ollama leaves the field out."""

    name: ModelName
    digest: str
    size: int
    modified_ns: int
    details: Details
    capabilities: tuple[str, ...]
    license: str
    modelfile: str
    parameters: str
    template: str
    """The template in use: the GGUF's Jinja template or the Go template."""
    system: str
    messages: tuple[Message, ...]
    model_info_json: str
    """A JSON object with sorted keys."""
    projector_info_json: str
    """Likewise; empty if there is no projector."""
    tensors: tuple[Tensor, ...]
    requires: str
    remote_host: str
    remote_model: str
    backend: str
    """The backend that the model names; empty: the server chooses one by the format."""
    serving_backend: str
    """The backend that would serve the model now; empty: none does."""
    backend_format: str
    """The format of opaque files."""
    backend_options: Mapping[str, Any]
    upstream: str
    files: tuple[Layer, ...]
    """The opaque files."""
    in_place: tuple[InPlace, ...]
    """Files that were imported in place."""
    settings: ModelSettings | None = None
    """The settings that the configuration has for the model; None if it does not name the model."""
    sets: Sequence[str] = ()
    """The sets of the configuration that the model belongs to."""


def show(
    model: StoredModel, *, verbose: bool = False, system: str = "", options: Mapping[str, Any] | None = None
) -> ShowResult:
    """Return everything about a model. `system` replaces the model's own; `options` change only the Modelfile.

    Raises ModelNotFoundError if there is neither a model file nor a remote model and the model is no opaque one,
    GGUFError if the file is unreadable, and UnreadableModelError for opaque files with unsafe names.
    """
    config = model.config
    path = model.model_path
    header: GGUF | None = None
    if config.is_opaque:
        _ = model.files  # checks their names
    elif not config.is_remote:
        if path is None or not path.exists():
            # The client learns which of its own files is missing.
            gone = next((f": {each.origin} is gone" for each in model.in_place if each.state is None), "")
            name = model.name.shortest
            raise ModelNotFoundError(name, f"model '{name}' not found{gone}")
        # The cached header has no arrays: only a verbose answer wants vocabularies.
        header = gguf.read(path, arrays=True) if verbose else model.gguf
    # A model has at most one encoder in use, so only the first projector is shown.
    projector = next(iter(model.projector_paths), None)
    projector_header = gguf.read(projector, arrays=verbose) if projector and projector.exists() else None
    go_template = model.template if model.template is not None else DEFAULT_TEMPLATE
    template = model.chat_template if model.uses_jinja else go_template
    if config.is_opaque and (facts := model.backend_facts) is not None and facts.is_chat_level:
        template = ""
    shown_system = system or model.system
    return ShowResult(
        name=model.name,
        digest=model.digest,
        size=model.size,
        modified_ns=model.modified_ns,
        details=model.details,
        capabilities=model.capabilities,
        license="\n".join(model.licenses),
        modelfile=modelfile.modelfile(
            model.name,
            config,
            model=path,
            adapters=model.adapter_paths,
            draft=model.draft_path,
            projectors=model.projector_paths,
            template=(model.template or "") if config.is_opaque else go_template,
            system=shown_system,
            # As in Ollama: options of the request change the Modelfile, not the list of parameters.
            parameters={**model.parameters, **(options or {})},
            licenses=model.licenses,
            messages=model.messages,
        ),
        parameters=modelfile.parameters_text(model.parameters),
        template=template,
        system=shown_system,
        messages=model.messages,
        model_info_json=metadata_json(header) if header else _remote_info(config),
        projector_info_json=metadata_json(projector_header) if projector_header else "",
        tensors=header.tensors if header else (),
        requires=config.requires,
        remote_host=config.remote_host,
        remote_model=config.remote_model,
        backend=config.backend,
        serving_backend=model.serving_backend,
        backend_format=config.backend_format,
        backend_options=config.backend_options,
        upstream=config.upstream,
        files=model.manifest.of(media_types.FILE),
        in_place=model.in_place,
    )


def metadata_json(header: GGUF) -> str:
    """Write metadata as Go does: sorted keys, null for arrays that were not read, bytes in base64."""
    pairs = {key: _json(value) for key, value in header.metadata.items() if key not in HIDDEN}
    pairs["general.parameter_count"] = str(header.parameter_count)
    # Go's maps print with sorted keys. parameter_count is counted from the tensors, whatever the file says.
    return "{" + ",".join(f"{_string(key)}:{pairs[key]}" for key in sorted(pairs)) + "}"


def _json(value: object) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Array):
        return _array(value)
    try:
        return gojson.dumps(value)
    except ValueError:  # NaN and infinities, over which Ollama fails
        return "null"


def _array(array: Array) -> str:
    # Ollama writes null for arrays unless the answer is verbose.
    if array.values is None:
        return "null"
    if array.kind == U8:
        return f'"{b64encode(bytes(array.values)).decode()}"'
    if array.kind == STRING:
        return "[" + ",".join(_slices(array.values, _strings)) + "]"
    if array.kind == F32:
        return "[" + ",".join(_slices(array.values, _floats)) + "]"
    return "[" + ",".join(_slices(array.values, _numbers)) + "]"


def _slices(values: Sequence[Any], encode: Callable[[Sequence[Any]], str]) -> Iterator[str]:
    """Encode values in slices, since native code must not hold the interpreter lock for long."""
    return (encode(values[start : start + AT_ONCE]) for start in range(0, len(values), AT_ONCE))


def _strings(values: Sequence[str]) -> str:
    """Write strings as `_string` does, in one call and a fortieth of the time."""
    text = gojson.html_escaped(json.dumps(values, ensure_ascii=False, separators=(",", ":")))[1:-1]
    # Bytes that are not UTF-8 are lone surrogates here; Go writes them as an escape and not as the character.
    return text if text.isascii() else gojson.SURROGATE.sub(r"\\ufffd", text)


def _floats(values: Sequence[float]) -> str:
    try:
        return gojson.floats32(struct.pack(f"<{len(values)}f", *values))[1:-1]
    # floats32 refuses NaN; the slow way writes null for it.
    except ValueError:
        return _numbers(values)


def _numbers(values: Sequence[float]) -> str:
    if values and not isinstance(values[0], float):
        return json.dumps(values, separators=(",", ":"))[1:-1]
    return ",".join(map(_json, values))


def _string(text: str) -> str:
    """Write a string. A byte that is not UTF-8 becomes an escaped U+FFFD, as in Go."""
    if text.isascii() or not gojson.SURROGATE.search(text):
        return gojson.string(text)
    return '"' + "\\ufffd".join(gojson.string(part)[1:-1] for part in gojson.SURROGATE.split(text)) + '"'


def _remote_info(config: Config) -> str:
    """Write the metadata that a stub's configuration holds."""
    family = config.model_family
    pairs: dict[str, Any] = {
        "general.architecture": family,
        "general.basename": config.base_name,
        f"{family}.context_length": config.context_length,
        f"{family}.embedding_length": config.embedding_length,
    }
    return gojson.dumps({key: value for key, value in pairs.items() if value}, sort_keys=True)
