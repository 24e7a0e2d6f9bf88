"""The installed backends as the store of models asks for them, since `puna.models` knows no plugin."""

import json
from collections.abc import Mapping
from typing import Any

from puna.models.backends import BackendFacts
from puna.plugins import Manifest, Registry
from puna.runtime import backend_options
from puna.settings import Settings


class InstalledBackends:
    """Answers from the registry of plugins."""

    def __init__(self, registry: Registry, settings: Settings | None = None) -> None:
        """`settings` has the server's choice for models that name no backend, and the names of secrets."""
        self._registry = registry
        self._settings = settings or Settings()

    def facts(self, name: str) -> BackendFacts:
        """Return the facts about a backend. Raises BackendNotFoundError if it is missing or broken. May block."""
        manifest = self._registry.get(name).usable

        def check_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
            checked = backend_options.of_model(manifest, typed(manifest, options))
            backend_options.check_secrets(manifest, checked, self._settings)
            return checked

        flags = manifest.capabilities
        return BackendFacts(
            name=name,
            formats=manifest.formats,
            capabilities=flags.of_models,
            is_chat_level=flags.chat,
            check_options=check_options,
        )

    def configured(self, name: str) -> str:
        """Return the backend that the configuration names for a model, given its shortest name; empty for none."""
        return self._settings.model_settings.of(name).backend

    def serving(self, format: str, wanted: str) -> str:  # noqa: A002 (the domain's word)
        """Return the backend that serves a model. Raises BackendNotFoundError. May block."""
        return self._registry.for_model(format, wanted, self._settings.default_backend)


def typed(manifest: Manifest, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with texts read as JSON where the backend declares another type than a text.

    Modelfiles and command lines have texts only. A text that is no JSON is left for the check, which names the type.
    """
    return {key: _typed(manifest, key, value) for key, value in options.items()}


def _typed(manifest: Manifest, key: str, value: object) -> object:
    option = manifest.options.get(key)
    if not isinstance(value, str) or option is None or option.schema.get("type") in (None, "string"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
