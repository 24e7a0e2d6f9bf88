"""Detecting the capabilities of a model from its files: completely, and at less cost for lists."""

from collections.abc import Iterable

from puna.capabilities import AUDIO, COMPLETION, EMBEDDING, INSERT, PARSERS, THINKING, TOOLS, VISION
from puna.gguf.reader import GGUF
from puna.models.backends import BackendFacts
from puna.models.facts import chat_template
from puna.models.facts.selection import HARMONY_FAMILIES
from puna.models.layout.config import Config


def detect(
    config: Config, header: GGUF | None, projectors: Iterable[GGUF], *, jinja: str, template: tuple[str, ...]
) -> tuple[str, ...]:
    """Return all capabilities. `jinja` is the Jinja template if it is in use; `template` are the capabilities of
    the Go template if that is."""
    found = list(config.capabilities)
    if header is not None:
        found += chat_template.capabilities(jinja)
        found.append(EMBEDDING if header.has("pooling_type") else COMPLETION)
        found += [name for name in (VISION, AUDIO) if header.has(f"{name}.block_count")]
    for projector in projectors:
        found.append(VISION)
        if _hears(projector):
            found.append(AUDIO)
    found += template
    found += PARSERS.get(config.parser, ())
    if config.model_family in HARMONY_FAMILIES:
        found.append(THINKING)
    return _without(config, found)


def of_backend(config: Config, backend: BackendFacts | None, *, template: tuple[str, ...]) -> tuple[str, ...]:
    """Return the capabilities of an opaque model, whose files only its backend can read.

    They are those that its creator stated, and otherwise all that its backend can have. `template` are the capabilities
    of the model's own template. `backend` is None while the backend is not installed.
    """
    if config.capabilities:
        return tuple(dict.fromkeys(config.capabilities))
    if backend is None:
        # The backend may well complete text. A request must learn that it is missing, not that the model cannot chat.
        return (COMPLETION,)
    # A chat-level backend renders and parses by itself, so the model's own template and parser are not used.
    own = () if backend.is_chat_level else (*template, *PARSERS.get(config.parser, ()))
    return tuple(dict.fromkeys((*backend.capabilities, *own)))


def detect_for_list(
    config: Config, header: GGUF | None, *, has_projector: bool, template: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the capabilities in a list, which ignore the Jinja template. `header` may end before the tokenizer."""
    found: list[str] = []
    if header is not None:
        # Here the order is that of the keys in the file.
        blocks = {header.key(f"{name}.block_count"): name for name in (VISION, AUDIO)}
        found += [blocks[key] for key in header.metadata if key in blocks]
        found.append(EMBEDDING if header.has("pooling_type") else COMPLETION)
    found += config.capabilities
    parsed = PARSERS.get(config.parser, ())
    harmony = config.model_family in HARMONY_FAMILIES
    found += [TOOLS] if TOOLS in template or TOOLS in parsed else []
    found += [INSERT] if INSERT in template else []
    found += [THINKING] if THINKING in template or harmony or THINKING in parsed else []
    found += [VISION] if has_projector else []
    return _without(config, found)


def _hears(projector: GGUF) -> bool:
    has_encoder = any(
        value is True for key, value in projector.metadata.items() if key.rpartition(".")[2] == "has_audio_encoder"
    )
    return has_encoder and projector.get("vision.projector_type") != "gemma3nv"


def _without(config: Config, found: Iterable[str]) -> tuple[str, ...]:
    """Drop duplicates, and capabilities that Ollama excludes for an architecture."""
    dropped: set[str] = set()
    if config.model_family == "nemotron_h_omni":
        dropped.add(AUDIO)
    if config.model_format == "safetensors":
        if config.renderer.startswith("gemma4") or config.renderer == "nemotron-3-nano":
            dropped |= {VISION, AUDIO}
        if config.renderer == "glimmer":
            dropped.add(AUDIO)
    return tuple(dict.fromkeys(name for name in found if name not in dropped))
