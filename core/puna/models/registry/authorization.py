"""Answering a registry's challenge: basic authentication, or a token from the place that it names."""

import asyncio
import base64
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from puna.models.registry import challenge as challenges
from puna.models.registry.challenge import Challenge
from puna.models.registry.credentials import Credential, Keyring
from puna.models.registry.failures import RegistryError, UnauthorizedError
from puna.models.registry.ssh_key import Key, KeyFileError, load_or_make
from puna.settings import Settings

log = logging.getLogger(__name__)

_CLIENT: Final = "puna"


class Fetch(Protocol):
    """Asks a token server."""

    async def __call__(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return status and body. RegistryError when it cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this server is to registries."""

    keyring: Keyring = field(default_factory=Keyring)
    key_file: Path | None = None
    """OpenSSH key for token servers like the reference's, made when it is first needed; None: never sign."""


def identity_of(settings: Settings) -> Identity:
    """Return who the settings say this server is. The key is the reference's, in the user's home."""
    own = Credential(
        username=settings.registry_username, password=settings.registry_password, token=settings.registry_token
    )
    if not settings.registry_host and (own.username or own.token):
        log.warning("PUNA_REGISTRY_HOST does not say which registry the credentials are for: they are not used")
    keyring = Keyring(
        host=settings.registry_host, own=own, docker_text=settings.docker_auth, docker_file=settings.docker_config
    )
    return Identity(keyring=keyring, key_file=Path.home() / ".ollama" / "id_ed25519")


class Authorization:
    """What the requests of one operation are authorized with. Nothing until the registry asks."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._asking = asyncio.Lock()
        self.header = ""
        """The value of Authorization; empty: none."""

    async def answer(self, asked: Sequence[str], url: str, used: str, fetch: Fetch) -> None:
        """Find what the registry asks for in `asked`, its WWW-Authenticate headers, when it refused `url`.

        `used` is the header that was refused; if another request has found a new one meanwhile, that is taken.
        Raises UnauthorizedError when there is nothing to answer with, RegistryError when a token server fails.
        """
        async with self._asking:
            if self.header != used:
                return
            self.header = await self._found(challenges.parse(asked), url, fetch)

    async def _found(self, asked: Sequence[Challenge], url: str, fetch: Fetch) -> str:
        host = urlsplit(url).netloc
        credential = await self._identity.keyring.find(host)
        for challenge in asked:
            if challenge.scheme == "bearer":
                if credential is not None and credential.token:
                    return f"Bearer {credential.token}"
                return "Bearer " + await self._token(challenge, url, credential, fetch)
            if challenge.scheme == "basic" and credential is not None and credential.username:
                return credential.basic
        raise UnauthorizedError

    async def _token(self, challenge: Challenge, url: str, credential: Credential | None, fetch: Fetch) -> str:
        realm = urlsplit(challenge.realm)
        if realm.scheme not in ("https", urlsplit(url).scheme):
            raise RegistryError(f"realm {challenge.realm} is not safe to ask from {url}", status=401)
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
            headers = {"Authorization": credential.basic}
            return _token_in(*await fetch("GET", challenges.token_url(challenge), headers))
        key = await self._key() if realm.netloc == urlsplit(url).netloc else None
        if key is not None:
            nonce = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
            signed = challenges.token_url(challenge, [("nonce", nonce), ("ts", str(int(time.time())))])
            headers = {"Authorization": await asyncio.to_thread(key.authorization, challenges.signed_text(signed))}
            status, body = await fetch("GET", signed, headers)
            if status < 400:
                return _token_in(status, body)
        # Whoever does not know such signatures may still have tokens for everybody.
        return _token_in(*await fetch("GET", challenges.token_url(challenge), {}))

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
    if status >= 400:
        raise RegistryError(f"{status}: {text}", status=status)
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise RegistryError("the token server's answer is not JSON") from error
    token = (value.get("token") or value.get("access_token")) if isinstance(value, dict) else None
    if not isinstance(token, str):
        raise UnauthorizedError
    return token
