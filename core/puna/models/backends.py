"""The facts about backends that the store of models needs. It imports no plugin, so its callers look them up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from puna.capabilities import COMPLETION
from puna.errors import BackendNotFoundError

CheckOptions = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Returns options for a model in the form that is stored. Raises InvalidRequestError, which names the wrong one."""


def _no_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return options


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """The facts about one installed backend."""

    name: str
    formats: tuple[str, ...] = ()
    """Formats that it serves; empty: its models have no files."""
    capabilities: tuple[str, ...] = (COMPLETION,)
    """Capabilities that its models can have, under Ollama's names."""
    is_chat_level: bool = False
    """Whether it takes messages and tools itself, so that no template of a model counts."""
    check_options: CheckOptions = _no_options


class Backends(Protocol):
    """The installed backends. All calls but `configured` may block."""

    def facts(self, name: str) -> BackendFacts:
        """Return the facts about a backend. Raises BackendNotFoundError if it is missing or broken."""

    def configured(self, name: str) -> str:
        """Return the backend that the configuration names for a model, given its shortest name; empty for none."""

    def serving(self, format: str, wanted: str) -> str:  # noqa: A002 (the domain's word)
        """Return the backend that serves a model of a format; `wanted` is the one that it names, empty for none.

        Raises BackendNotFoundError.
        """


class NoBackends:
    """Stands for the backends where none is known, as in a tool that only looks at the store."""

    def facts(self, name: str) -> BackendFacts:
        """Raise BackendNotFoundError."""
        raise BackendNotFoundError(f"backend {name!r} is not installed (installed: none)")

    def configured(self, name: str) -> str:  # noqa: ARG002
        """Return an empty text."""
        return ""

    def serving(self, format: str, wanted: str) -> str:  # noqa: A002
        """Raise BackendNotFoundError."""
        if wanted:
            self.facts(wanted)
        raise BackendNotFoundError(f"no installed backend serves models of format {format!r}")
