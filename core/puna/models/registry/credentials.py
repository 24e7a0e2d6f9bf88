"""The credentials of a user for registries, from the settings and from docker's configuration with its helpers.

Credentials belong to an origin: scheme, host and port. A client that may ask this server to pull could otherwise have
them sent to a host of its own, or in clear. An entry that names a registry without a scheme is for https, as docker
means it. Only an entry that begins with http:// is sent in clear, and that one only in clear.
"""

import asyncio
import base64
import binascii
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from puna.models.registry.origin import Origin, credentials_origin
from puna.process import exit as process_exit

log = logging.getLogger(__name__)

_HELPER: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_HELPER_SECONDS: Final = 15.0
_TOKEN_USER: Final = "<token>"  # what helpers and docker call the user of an identity token
_HUB_KEY: Final = "https://index.docker.io/v1/"
"""The name of Docker Hub in docker's configuration."""
HUB: Final = ("index.docker.io", "docker.io", "registry-1.docker.io")
"""The names of Docker Hub. The first stands in docker's configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A user name and password, or a token. Empty fields are not known."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """The registry's token server exchanges it for tokens."""
    token: str = field(default="", repr=False)
    """A token for the registry itself."""

    @property
    def basic(self) -> str:
        """The header of basic authentication."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The places where credentials are looked up, in the order of the fields."""

    host: str = ""
    """The registry that `own` belongs to: a host with an optional port."""
    own: Credential = field(default_factory=Credential)
    docker_text: str = field(default="", repr=False)
    """The text of docker's configuration."""
    docker_file: Path | None = None
    """The path of docker's configuration."""

    async def find(self, registry: Origin) -> Credential | None:
        """Return the credentials for a registry, None if there are none. A bad configuration is logged and skipped."""
        own = credentials_origin(self.host) if self.host else None
        if own == registry:
            return self.own
        if own is not None and (own.scheme, own.netloc) == ("https", registry.netloc):
            log.warning("the credentials of %s are for https and are not sent by http", self.host)
        for config in await asyncio.to_thread(self._configurations):
            found = await _from_docker(config, _of_hub(registry))
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
            except (ValueError, RecursionError):
                log.warning("docker's configuration is not JSON")
                continue
            if isinstance(value, dict):
                found.append(value)
        return found


async def _from_docker(config: Mapping[str, Any], registry: Origin) -> Credential | None:
    for key, helper in _table(config, "credHelpers"):
        if registry_of(key) == registry and isinstance(helper, str):
            return await _ask(helper, key)
    in_clear = None
    for key, entry in _table(config, "auths"):
        origin = registry_of(key)
        if origin is None or not isinstance(entry, dict):
            continue
        if origin == registry and (found := entry_credential(entry)) is not None:
            return found
        # The entry is for https. The user is told why it is not used, since the registry will answer 401.
        if registry.scheme == "http" and (origin.host, origin.netloc) == (registry.host, registry.netloc):
            in_clear = key
    if in_clear is not None:
        log.warning("docker's credentials of %s are for https and are not sent by http", in_clear)
    store = config.get("credsStore")
    # A helper of all registries says nothing about http, so it is asked for https only.
    if not isinstance(store, str) or not store or registry.scheme != "https":
        return None
    return await _ask(store, _HUB_KEY if registry.host == HUB[0] else registry.netloc)


def _table(config: Mapping[str, Any], name: str) -> Iterable[tuple[str, Any]]:
    value = config.get(name)
    return value.items() if isinstance(value, dict) else ()


def _of_hub(registry: Origin) -> Origin:
    """Return the key that docker's configuration has for a registry. Only Docker Hub's differs from its name."""
    return replace(registry, host=HUB[0]) if registry in {replace(registry, host=each) for each in HUB} else registry


def registry_of(key: str) -> Origin | None:
    """Return the origin of a key of docker's configuration, which may be an address with a path."""
    origin = credentials_origin(key)
    return _of_hub(origin) if origin is not None else None


def entry_credential(entry: Mapping[str, Any]) -> Credential | None:
    """Read an entry of docker's `auths`; None if it is empty."""
    values = {key: value for key, value in entry.items() if isinstance(value, str) and value}
    # The most specific credential counts first.
    if "registrytoken" in values:
        return Credential(token=values["registrytoken"])
    if "identitytoken" in values:
        return Credential(identity_token=values["identitytoken"])
    username, password = values.get("username", ""), values.get("password", "")
    if "auth" in values:
        try:
            # A password may contain colons, a user name may not.
            username, _, password = base64.b64decode(values["auth"]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            log.warning("docker's configuration has credentials that are not base64")
            return None
    return Credential(username=username, password=password.rstrip("\0")) if username else None


async def _ask(helper: str, host: str) -> Credential | None:
    """Run docker-credential-<helper>. None if it does not know the host or cannot be run."""
    # The name becomes part of a program's name. A slash in it would run any program.
    if not _HELPER.fullmatch(helper):
        log.warning("docker's configuration names a helper that is none")
        return None
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            f"docker-credential-{helper}",
            "get",
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,
            # A group of its own, so that a helper that starts further programs can be killed with them.
            process_group=0,
        )
    except OSError as error:
        log.warning("cannot run docker-credential-%s: %s", helper, error)
        return None
    process_exit.GROUPS.add(process.pid)
    try:
        async with asyncio.timeout(_HELPER_SECONDS):
            text, _ = await process.communicate(host.encode())
    except TimeoutError:
        log.warning("docker-credential-%s gave no answer", helper)
        return None
    finally:
        if process.returncode is None:
            process_exit.kill_group(process.pid)
            await process.wait()
        process_exit.GROUPS.discard(process.pid)
    # A helper that does not know the registry exits with an error, which is no fault.
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
