"""Which backend a new model names, in which format its files are, and what else the model tells the backend.

Everything is checked here, when the model is created, so that a misspelt name is no surprise at the first request. What
was checked may become wrong later, when a backend is removed or a model is pulled; a load checks again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from puna.errors import BackendNotFoundError, InvalidCreateError, InvalidRequestError
from puna.models.backends import BackendFacts, Backends
from puna.models.create.request import CreateRequest
from puna.models.layout.config import LONGEST_TEXT, Config
from puna.models.relative_names import check_names

GGUF: Final = "gguf"
_SHOWN: Final = 100
"""Characters of a client's text that an error repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """The part of a configuration that is about the backend."""

    backend: str = ""
    format: str = GGUF
    """The format of the files; empty for a model without files."""
    upstream: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_opaque(self) -> bool:
        """Whether the model's files, if it has any, are stored as they are."""
        return self.format != GGUF

    def applied(self, config: Config) -> Config:
        """Return the configuration with this choice."""
        # An opaque model is one that has a backend and no format of Ollama's, so that of the others is set at once.
        known = config.model_format or (GGUF if self.backend and not self.is_opaque else "")
        return replace(
            config,
            model_format=known,
            backend=self.backend,
            backend_format=self.format if self.is_opaque else "",
            backend_options=self.options,
            upstream=self.upstream,
        )


def of_files(request: CreateRequest, backends: Backends, is_gguf: Callable[[], bool]) -> BackendChoice:
    """Return the choice for a model of uploaded files, or of none.

    `is_gguf` says whether the files are GGUF by their content. Raises InvalidCreateError.
    """
    if not (request.backend or request.format or request.upstream or request.backend_options):
        return BackendChoice()  # chosen at each load, and nothing needs to be known of any backend
    facts = _facts(request.backend, backends) if request.backend else None
    if facts is None:
        _refuse_without_backend(request, backends)
    upstream = _upstream(request, facts)
    format_ = _format(request, facts, is_gguf)
    choice = BackendChoice(backend=request.backend, format=format_, upstream=upstream)
    if choice.is_opaque and choice.format and not request.files:
        raise InvalidCreateError(f"a model of format {format_!r} needs files")
    return _checked(choice, request, facts, {})


def format_to_import(backend: str, format_: str, backends: Backends) -> str:
    """Return the format of files that are imported for a backend: GGUF if it serves that and nothing else is asked for.

    Raises InvalidCreateError.
    """
    if not backend and not format_:
        return GGUF
    facts = _facts(backend, backends) if backend else None
    request = CreateRequest(name="", backend=backend, format=format_)
    if facts is None:
        _refuse_without_backend(request, backends)
    found = _format(request, facts, lambda: facts is not None and GGUF in facts.formats)
    if not found:
        raise InvalidCreateError(f"backend {backend!r} takes no files")
    return found


def of_base(request: CreateRequest, base: Config, backends: Backends) -> BackendChoice:
    """Return the choice for a model that is made from another one: the base's, but for what the request says.

    Raises InvalidCreateError.
    """
    backend = request.backend or base.backend
    given = request.backend or request.format or request.upstream or request.backend_options
    if not given and not base.is_opaque:
        return BackendChoice(backend=backend, options=base.backend_options)
    facts = _facts(backend, backends) if backend else None
    if facts is None:
        _refuse_without_backend(replace(request, format=request.format or base.format), backends)
    upstream = _upstream(request, facts)
    if upstream and not base.upstream:
        raise InvalidCreateError("the model to start from has files, so the new one cannot have an upstream")
    if request.format and request.format != base.format:
        raise InvalidCreateError(
            f"the model to start from has the format {base.format!r}, not {_shown(request.format)}"
        )
    if facts is not None and base.format:
        _check_served(base.format, facts)
    if facts is not None and facts.formats and not base.format:
        raise InvalidCreateError(f"backend {facts.name!r} needs files, and the model to start from has none")
    choice = BackendChoice(backend=backend, format=base.format, upstream=upstream or base.upstream)
    # Options belong to one backend. Another backend knows other ones.
    return _checked(choice, request, facts, base.backend_options if backend == base.backend else {})


def _checked(
    choice: BackendChoice, request: CreateRequest, facts: BackendFacts | None, inherited: Mapping[str, Any]
) -> BackendChoice:
    """Add the options to a choice, and check what goes with it."""
    if choice.is_opaque:
        _refuse_for_opaque(request)
    if facts is None:
        return choice
    if choice.is_opaque:
        _check_capabilities(request, facts)
    if facts.is_chat_level and (request.template or request.renderer or request.parser):
        raise InvalidCreateError(
            f"backend {facts.name!r} takes messages itself: a template, a renderer or a parser has no effect"
        )
    try:
        return replace(choice, options=facts.check_options({**inherited, **request.backend_options}))
    except InvalidRequestError as error:
        raise InvalidCreateError(str(error)) from error


def _facts(name: str, backends: Backends) -> BackendFacts:
    try:
        return backends.facts(name)
    except BackendNotFoundError as error:
        raise InvalidCreateError(str(error)) from error


def _refuse_without_backend(request: CreateRequest, backends: Backends) -> None:
    """Raise InvalidCreateError for what needs the name of a backend, and for a format that no backend serves."""
    for what, value in (("an upstream", request.upstream), ("options of a backend", request.backend_options)):
        if value:
            raise InvalidCreateError(f"{what} can be set only together with a backend")
    try:
        backends.serving(request.format, "")
    except BackendNotFoundError as error:
        raise InvalidCreateError(str(error)) from error


def _format(request: CreateRequest, facts: BackendFacts | None, is_gguf: Callable[[], bool]) -> str:
    """Return the format of the request's files; empty if the backend has none."""
    formats = facts.formats if facts is not None else (request.format,)
    if facts is not None and not formats:
        if request.files:
            raise InvalidCreateError(f"backend {facts.name!r} takes no files")
        if request.format:
            _check_served(request.format, facts)
        return ""
    if request.format:
        if facts is not None:
            _check_served(request.format, facts)
        return request.format
    assert facts is not None  # without a backend there is a format
    others = [each for each in formats if each != GGUF]
    if not others or (GGUF in formats and is_gguf()):
        return GGUF
    if len(others) > 1:
        raise InvalidCreateError(f"backend {facts.name!r} serves the formats {', '.join(formats)}: name one of them")
    if request.files and GGUF not in formats and is_gguf():
        _check_served(GGUF, facts)
    return others[0]


def _check_served(format_: str, facts: BackendFacts) -> None:
    if format_ not in facts.formats:
        served = ", ".join(facts.formats) or "no files"
        raise InvalidCreateError(f"backend {facts.name!r} does not serve format {_shown(format_)} (it serves {served})")


def _upstream(request: CreateRequest, facts: BackendFacts | None) -> str:
    if not request.upstream:
        return ""
    if facts is not None and facts.formats:
        raise InvalidCreateError(f"backend {facts.name!r} serves files and has no upstream")
    if request.files:
        raise InvalidCreateError("a model of an upstream has no files")
    # The name is shown on terminals and sent to the upstream.
    if len(request.upstream) > LONGEST_TEXT or not request.upstream.isprintable():
        raise InvalidCreateError(f"upstream must have at most {LONGEST_TEXT} characters, all printable")
    return request.upstream


def _refuse_for_opaque(request: CreateRequest) -> None:
    """Raise InvalidCreateError for what only GGUF models can have."""
    for what, given in (
        ("quantized", request.quantize),
        ("given an adapter", request.adapters),
        ("given a draft model", request.draft_files),
        ("on a remote server", request.remote_host),
    ):
        if given:
            raise InvalidCreateError(f"only a GGUF model can be {what}")
    try:
        check_names(request.files or {})
    except ValueError as error:
        raise InvalidCreateError(str(error)) from error


def _check_capabilities(request: CreateRequest, facts: BackendFacts) -> None:
    """Raise InvalidCreateError for a stated capability that the backend's models cannot have."""
    stated = request.info.get("capabilities")
    for each in stated if isinstance(stated, list) else ():
        if each not in facts.capabilities:
            raise InvalidCreateError(
                f"backend {facts.name!r} has no capability {_shown(str(each))} (it has {', '.join(facts.capabilities)})"
            )


def _shown(text: str) -> str:
    return repr(text[:_SHOWN])
