"""The caller of the current request.

The gate sets it before a handler runs. Code that resolves a model's name, lists models or reads fields that only some
callers may set asks it. Without a gate, as in tests and scripts, the caller may do everything.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from puna.auth.errors import ModelNotAllowedError
from puna.auth.keys import ApiKey
from puna.auth.permissions import Permission
from puna.auth.usage import Counts

if TYPE_CHECKING:
    from puna.auth.gate import Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The sender of a request."""

    key: ApiKey | None = None
    """The caller's key; None for callers that need none."""
    local: bool = False
    """True for a program of the server's own account: it calls through the Unix socket."""
    bridge: bool = False
    """True for a request of this process's REST bridge, whose time of arrival is trusted."""
    background: bool = False
    """True for a request of a batch, which gives way to all others."""
    batch: str = ""
    """Id of the batch whose request it is; empty if it is none of a batch."""
    gate: "Gate | None" = None
    """The gate that admitted the caller."""

    @property
    def may_prioritise(self) -> bool:
        """Whether the caller may set the priority of a request."""
        return self.key is None or self.key.priority

    @property
    def may_name_files(self) -> bool:
        """Whether the caller may name files on the server's disk."""
        return self.local or (self.key is not None and self.key.local)

    def sees(self, name: str) -> bool:
        """Return whether the caller may use a model, given its shortest name with tag."""
        return self.key is None or self.key.allows_model(name)

    def sees_request_of(self, key_id: str) -> bool:
        """Return whether the caller may see the record of a request, given the id of the key that it came with."""
        return self.key is None or self.key.id == key_id or Permission.DIAGNOSTICS in self.key.permissions

    def check_model(self, name: str, shown: str = "") -> None:
        """Raise ModelNotAllowedError if the caller may not use a model, given its shortest name with tag.

        `shown` is the name that the error has, since an alias does not tell which model it stands for.
        """
        if not self.sees(name):
            raise ModelNotAllowedError(shown or name)

    def spend(self, prompt_tokens: int, output_tokens: int) -> None:
        """Charge tokens to the caller's key."""
        if self.key is not None and self.gate is not None:
            self.gate.ledger.spend(self.key, prompt_tokens, output_tokens)

    def usage(self) -> list[tuple[ApiKey, Counts]]:
        """Return the usage of the keys that the caller may see: its own, or all."""
        if self.gate is None:
            return []
        all_keys = self.key is None or Permission.ADMIN in self.key.permissions
        return [(each, self.gate.ledger.counts(each.id)) for each in self.gate.listed() if all_keys or each == self.key]


_UNRESTRICTED = Caller(local=True, bridge=True)
_CURRENT: ContextVar[Caller | None] = ContextVar("caller", default=None)


def current() -> Caller:
    """Return the caller of the current request."""
    return _CURRENT.get() or _UNRESTRICTED


def enter(caller: Caller) -> None:
    """Make `caller` the caller of the current task."""
    _CURRENT.set(caller)
