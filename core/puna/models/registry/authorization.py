"""Answering a registry's challenge: with basic authentication, or with a token from the server that it names."""

import asyncio
import base64
import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from puna.models.registry import challenge as challenges
from puna.models.registry.challenge import Challenge
from puna.models.registry.credentials import HUB, Credential, Keyring
from puna.models.registry.failures import RegistryError, UnauthorizedError, one_line, shown_url
from puna.models.registry.origin import Origin, credentials_origin
from puna.models.registry.ssh_key import Key, KeyFileError, load_or_make
from puna.settings import Settings

log = logging.getLogger(__name__)

_CLIENT: Final = "puna"
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
"""Characters of a token that fit in a header."""
_REALMS: Final = (*((registry, "auth.docker.io") for registry in HUB), ("registry.gitlab.com", "gitlab.com"))


_KNOWN_REALMS: Final = frozenset((Origin("https", a, 443), Origin("https", b, 443)) for a, b in _REALMS)
"""Pairs of a registry and its token server on another host that may see its credentials."""


class Fetch(Protocol):
    """Sends a request to a token server."""

    async def __call__(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return status and body. Raises RegistryError if the server cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The credentials and the key that this server has for registries."""

    keyring: Keyring = field(default_factory=Keyring)
    key_file: Path | None = None
    """OpenSSH key for token servers like Ollama's, created when it is first needed. None means: never sign."""
    realms: frozenset[tuple[Origin, Origin]] = frozenset()
    """Further pairs of a registry and a token server on another host, from the settings."""

    def shares(self, registry: Origin, realm: Origin) -> bool:
        """Return whether a token server may see the credentials of a registry."""
        return realm == registry or (registry, realm) in _KNOWN_REALMS or (registry, realm) in self.realms


def identity_of(settings: Settings) -> Identity:
    """Return the identity that the settings describe. The key is Ollama's, in the user's home folder."""
    own = Credential(
        username=settings.registry_username, password=settings.registry_password, token=settings.registry_token
    )
    if not settings.registry_host and (own.username or own.token):
        log.warning("PUNA_REGISTRY_HOST does not say which registry the credentials are for: they are not used")
    keyring = Keyring(
        host=settings.registry_host, own=own, docker_text=settings.docker_auth, docker_file=settings.docker_config
    )
    realms = frozenset(pair for text in settings.registry_realms if (pair := _pair(text)) is not None)
    return Identity(keyring=keyring, key_file=Path.home() / ".ollama" / "id_ed25519", realms=realms)


def _pair(text: str) -> tuple[Origin, Origin] | None:
    """Read an entry of PUNA_REGISTRY_REALMS: registry=host. An invalid entry is logged and ignored."""
    registry, _, realm = text.partition("=")
    found = credentials_origin(registry), credentials_origin(realm)
    if found[0] is None or found[1] is None or found[1].scheme != "https":
        log.warning("PUNA_REGISTRY_REALMS: %r is not registry=host, where the host is asked by https", text)
        return None
    return found[0], found[1]


class Authorization:
    """The authorization of all requests of one operation. It is empty until the registry asks for one."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._asking = asyncio.Lock()
        self.header = ""
        """The value of the Authorization header; empty for none."""

    async def answer(self, asked: Sequence[str], url: str, used: str, fetch: Fetch) -> None:
        """Find what the registry asks for in `asked`, its WWW-Authenticate headers, when it refused `url`.

        `used` is the header that was refused; if another request has found a new one meanwhile, that is taken.
        Raises UnauthorizedError when there is nothing to answer with, RegistryError when a token server fails.
        """
        async with self._asking:
            # Several parts are refused at once. The first one fetches a token, and the others use it.
            if self.header != used:
                return
            self.header = await self._found(challenges.parse(asked), url, fetch)

    async def _found(self, asked: Sequence[Challenge], url: str, fetch: Fetch) -> str:
        registry = Origin.of(url)
        credential = await self._identity.keyring.find(registry)
        for challenge in asked:
            # The first scheme that can be answered counts, in the registry's order.
            if challenge.scheme == "bearer":
                if credential is not None and credential.token:
                    return f"Bearer {credential.token}"
                return "Bearer " + await self._token(challenge, registry, credential, fetch)
            if challenge.scheme == "basic" and credential is not None and credential.username:
                return credential.basic
        raise UnauthorizedError

    async def _token(self, challenge: Challenge, registry: Origin, credential: Credential | None, fetch: Fetch) -> str:
        """Fetch a token. The credentials go only to a token server that may see them."""
        try:
            realm, address = Origin.of(challenge.realm), challenges.token_url(challenge)
        except ValueError:
            raise RegistryError(f"realm {one_line(challenge.realm)} is no address", status=401) from None
        # A token asked for in clear could be read by anyone on the way.
        if realm.scheme not in ("https", registry.scheme):
            shown = shown_url(challenge.realm)
            raise RegistryError(f"realm {shown} is not safe to ask from {registry}", status=401)
        if credential is not None and not self._identity.shares(registry, realm):
            log.warning(
                "%s names the token server %s, which PUNA_REGISTRY_REALMS does not: it is asked without credentials",
                registry,
                realm,
            )
            credential = None
        # An identity token is exchanged by POST, as docker does.
        if credential is not None and credential.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credential.identity_token,
                "service": challenge.service,
                "scope": challenge.scope,
                "client_id": _CLIENT,
            }
            return _token_in(*await fetch("POST", challenge.realm, {}, form))
        if credential is not None and credential.username:
            return _token_in(*await fetch("GET", address, {"Authorization": credential.basic}))
        # The signature identifies the user, so only the registry's own token server gets it.
        key = await self._key() if realm == registry else None
        if key is not None:
            # The nonce and the time differ in each request, so that an overheard signature cannot be used again.
            nonce = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
            signed = challenges.token_url(challenge, [("nonce", nonce), ("ts", str(int(time.time())))])
            headers = {"Authorization": await asyncio.to_thread(key.authorization, challenges.signed_text(signed))}
            status, body = await fetch("GET", signed, headers)
            if status < 400:
                return _token_in(status, body)
        # A token server that refuses the signature may still give anonymous tokens.
        return _token_in(*await fetch("GET", address, {}))

    async def _key(self) -> Key | None:
        if self._identity.key_file is None:
            return None
        try:
            return await asyncio.to_thread(load_or_make, self._identity.key_file)
        except (OSError, KeyFileError) as error:
            log.warning("requests of tokens are not signed: %s: %s", self._identity.key_file, error)
            return None


def _token_in(status: int, body: bytes) -> str:
    if status in (401, 403):
        raise UnauthorizedError
    text = body.decode(errors="replace").strip()
    if status >= 300:
        raise RegistryError(f"{status}: {one_line(text)}", status=status)
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RegistryError("the token server's answer is not JSON") from error
    token = (value.get("token") or value.get("access_token")) if isinstance(value, dict) else None
    # A line end in a token would add headers to every request.
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise UnauthorizedError
    return token
