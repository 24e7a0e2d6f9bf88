"""Who a user is to a registry: from the settings, and from docker's configuration with its helpers.

Credentials belong to a host. Whoever may ask this server to pull could otherwise have them sent to a host of his own.
"""

import asyncio
import base64
import binascii
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

_HELPER: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_HELPER_SECONDS: Final = 15.0
_TOKEN_USER: Final = "<token>"  # what helpers and docker call the user of an identity token


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """How to show who asks; empty where there is nothing."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """Buys tokens from the registry's token server."""
    token: str = field(default="", repr=False)
    """Is itself what the registry wants."""

    @property
    def basic(self) -> str:
        """The header of basic authentication."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Where credentials are looked for, in this order."""

    host: str = ""
    """The registry that `own` is for: host, and port if it has one."""
    own: Credential = field(default_factory=Credential)
    docker_text: str = field(default="", repr=False)
    """Docker's configuration itself."""
    docker_file: Path | None = None
    """Docker's configuration on the disk."""

    async def find(self, host: str) -> Credential | None:
        """Return what is known for a registry, None if nothing is. A bad configuration is logged and passed over."""
        if self.host and self.host.lower() == host.lower():
            return self.own
        for config in await asyncio.to_thread(self._configurations):
            found = await _from_docker(config, host)
            if found is not None:
                return found
        return None

    def _configurations(self) -> list[Mapping[str, Any]]:
        texts = [self.docker_text] if self.docker_text else []
        if self.docker_file is not None:
            try:
                texts.append(self.docker_file.read_text())
            except FileNotFoundError:
                pass
            except (OSError, UnicodeDecodeError) as error:
                log.warning("cannot read docker's configuration: %s", error)
        found: list[Mapping[str, Any]] = []
        for text in texts:
            try:
                value = json.loads(text)
            except ValueError:
                log.warning("docker's configuration is not JSON")
                continue
            if isinstance(value, dict):
                found.append(value)
        return found


async def _from_docker(config: Mapping[str, Any], host: str) -> Credential | None:
    helpers = config.get("credHelpers")
    helper = helpers.get(host) if isinstance(helpers, dict) else None
    if isinstance(helper, str):
        return await _ask(helper, host)
    auths = config.get("auths")
    for key, entry in auths.items() if isinstance(auths, dict) else ():
        if registry_of(key) == host.lower() and isinstance(entry, dict):
            found = entry_credential(entry)
            if found is not None:
                return found
    store = config.get("credsStore")
    return await _ask(store, host) if isinstance(store, str) and store else None


def registry_of(key: str) -> str:
    """Return the host of a key of docker's `auths`, which may be an address with a path."""
    return key.lower().partition("://")[2].partition("/")[0] or key.lower().partition("/")[0]


def entry_credential(entry: Mapping[str, Any]) -> Credential | None:
    """Read an entry of docker's `auths`, None if there is nothing in it."""
    values = {key: value for key, value in entry.items() if isinstance(value, str) and value}
    if "registrytoken" in values:
        return Credential(token=values["registrytoken"])
    if "identitytoken" in values:
        return Credential(identity_token=values["identitytoken"])
    username, password = values.get("username", ""), values.get("password", "")
    if "auth" in values:
        try:
            username, _, password = base64.b64decode(values["auth"]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            log.warning("docker's configuration has credentials that are not base64")
            return None
    return Credential(username=username, password=password.rstrip("\0")) if username else None


async def _ask(helper: str, host: str) -> Credential | None:
    """Run docker-credential-<helper>. None if it does not know the host or cannot be run."""
    if not _HELPER.fullmatch(helper):
        log.warning("docker's configuration names a helper that is none")
        return None
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            f"docker-credential-{helper}", "get", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError as error:
        log.warning("cannot run docker-credential-%s: %s", helper, error)
        return None
    try:
        async with asyncio.timeout(_HELPER_SECONDS):
            text, _ = await process.communicate(host.encode())
    except TimeoutError:
        log.warning("docker-credential-%s gave no answer", helper)
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _answer(text) if process.returncode == 0 else None


def _answer(text: bytes) -> Credential | None:
    try:
        value = json.loads(text)
        username, secret = value["Username"], value["Secret"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(username, str) or not isinstance(secret, str):
        return None
    if username == _TOKEN_USER:
        return Credential(identity_token=secret)
    return Credential(username=username, password=secret)
