"""The operator's rules for registries: which may be used, and which hosts they may refer to."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from puna.models.registry.origin import Origin, Pattern
from puna.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's lists of registries and hosts."""

    allowed: tuple[Pattern, ...] | None = None
    """Registries that may be used; None for all."""
    peers: tuple[Pattern, ...] = ()
    """Hosts without public addresses that registries may refer to."""

    def allows(self, registry: Origin) -> bool:
        """Return whether a registry may be used."""
        return self.allowed is None or any(each.covers(registry) for each in self.allowed)


def policy_of(settings: Settings) -> Policy:
    """Return the operator's lists. An invalid entry is logged and ignored."""
    allowed = _patterns("PUNA_ALLOWED_REGISTRIES", settings.allowed_registries)
    realms = [f"https://{each.partition('=')[2].removeprefix('https://')}" for each in settings.registry_realms]
    return Policy(
        # A list whose entries are all invalid allows nothing. Taking it for no list would open what the operator meant
        # to close.
        allowed=allowed if settings.allowed_registries else None,
        peers=_patterns("PUNA_REGISTRY_PEERS", settings.registry_peers) + _patterns("PUNA_REGISTRY_REALMS", realms),
    )


def _patterns(setting: str, texts: Sequence[str]) -> tuple[Pattern, ...]:
    found = []
    for text in texts:
        try:
            found.append(Pattern.parse(text))
        except ValueError:
            log.warning("%s: %r is not [scheme://]host[:port]", setting, text)
    return tuple(found)
