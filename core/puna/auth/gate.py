"""The gate in front of every RPC: who calls, and whether the caller may call this method.

The gate is open until there is a file of keys. Then every method but the health check needs a key, except from callers
on the Unix socket: its folder belongs to the server's own account.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from puna.auth.caller import Caller
from puna.auth.errors import NotExposedError, PermissionDeniedError, UnauthenticatedError
from puna.auth.keys import ApiKey, KeyFile
from puna.auth.permissions import Permission, exposure, needed, needs_known_caller, runs_models
from puna.auth.usage import Ledger

REACHABLE = "puna-reachable"
"""Metadata of a bridge in a process of its own: "1" if other machines can reach the bridge. See Gate.reachable."""
_BEARER = "bearer "
_HEADERS = ("x-api-key", "api-key")
"""Other names of the header with the key: Anthropic's, and Azure's for OpenAI's API."""


class Gate:
    """Decides about calls."""

    def __init__(self, keys: KeyFile | None = None, ledger: Ledger | None = None, expose: Sequence[str] = ()) -> None:
        """`expose` names the groups of methods that the server offers; empty: all."""
        self._keys = keys
        self.ledger = ledger or Ledger()
        self.expose: frozenset[str] = frozenset(expose)
        """The groups of methods that the server offers; empty: all."""
        self.reachable = False
        """True if other machines can reach the server. Some methods then refuse callers without a key."""

    @property
    def closed(self) -> bool:
        """Whether callers need a key."""
        return self._keys is not None and self._keys.enabled

    def listed(self) -> tuple[ApiKey, ...]:
        """Return all keys, also revoked ones, oldest first."""
        return self._keys.listed() if self._keys is not None else ()

    def admit(self, method: str, metadata: Mapping[str, str | bytes], *, local: bool, bridge: bool) -> Caller:
        """Return the caller of a method, which is named as "/package.Service/Method".

        `local` and `bridge` are those of Caller. Raises NotExposedError, UnauthenticatedError, PermissionDeniedError.
        """
        group = exposure(method)
        if self.expose and group and group not in self.expose and not local:
            raise NotExposedError(group)
        permission = needed(method)
        if local or permission is None:
            return Caller(local=local, bridge=bridge, gate=self)
        if not self.closed:
            if needs_known_caller(method) and (self.reachable or metadata.get(REACHABLE) == "1"):
                raise PermissionDeniedError(
                    "other machines can reach this server, and it has no API keys, so it offers this method on its "
                    "Unix socket alone"
                )
            return Caller(local=local, bridge=bridge, gate=self)
        key = self._key(metadata)
        if permission not in key.permissions:
            raise PermissionDeniedError(f"the API key {key.name!r} lacks the permission {permission.value!r}")
        return Caller(key=key, bridge=bridge, gate=self)

    def counted(self, method: str, caller: Caller) -> AbstractContextManager[None]:
        """Return a context in which a call counts against the limits of its key.

        Entering raises RateLimitedError or QuotaExceededError. Only methods that run models count.
        """
        # Requests of a batch are counted when they run.
        if caller.key is None or needed(method) is not Permission.INFERENCE or not runs_models(method):
            return nullcontext()
        return self.ledger.running(caller.key)

    def resume(self, key_id: str, method: str, *, local: bool) -> Caller:
        """Return the caller of a request of a batch, which runs without the text of its key.

        `key_id` and `local` are those of the creator of the batch; an empty id stands for a creator without a key. The
        limits on the rate and on concurrent requests do not apply, because the server itself sets the pace. Raises
        UnauthenticatedError if the key is gone, NotExposedError, PermissionDeniedError, QuotaExceededError.
        """
        key = next((each for each in self.listed() if each.id == key_id and not each.revoked), None)
        if key is None and (key_id or (self.closed and not local)):
            raise UnauthenticatedError("the API key is not valid")
        group = exposure(method)
        if self.expose and group and group not in self.expose and not local:
            raise NotExposedError(group)
        if key is not None:
            if needed(method) not in key.permissions:
                raise PermissionDeniedError(f"the API key {key.name!r} lacks a permission that the request needs")
            self.ledger.check_quota(key)
        return Caller(key=key, local=local, background=True, gate=self)

    def key_of(self, metadata: Mapping[str, str | bytes]) -> ApiKey | None:
        """Return the key with which a call comes; None if it has none, or one that is unknown, wrong or revoked."""
        text = given_key(metadata)
        return self._keys.find(text) if self._keys is not None and text else None

    def _key(self, metadata: Mapping[str, str | bytes]) -> ApiKey:
        assert self._keys is not None
        text = given_key(metadata)
        if not text:
            raise UnauthenticatedError("this server needs an API key")
        key = self._keys.find(text)
        if key is None:
            raise UnauthenticatedError("the API key is not valid")
        return key


def given_key(headers: Mapping[str, str | bytes]) -> str:
    """Return the key that a caller sends, in metadata or HTTP headers of lower-case names; empty if there is none."""
    bearer = headers.get("authorization", "")
    if isinstance(bearer, str) and bearer[: len(_BEARER)].lower() == _BEARER:
        return bearer[len(_BEARER) :].strip()
    for name in _HEADERS:
        value = headers.get(name, "")
        if isinstance(value, str) and value:
            return value
    return ""
