"""API keys in a file.

A key's text is `puna_ID_SECRET`. The secret has 256 random bits, so its SHA-256 suffices: no dictionary holds it, and a
slow hash would only slow each request down. The file holds the hashes, and its owner alone may read it.

The file's existence turns authentication on. A revoked key stays in it with a mark, so that revoking the last key
closes the server rather than opening it.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from puna import atomic_files, formats
from puna.auth.permissions import GRANTS, Permission

log = logging.getLogger(__name__)

PREFIX: Final = "puna"
_LOOK_SECONDS: Final = 1.0
"""How long a revoked key may still be accepted: the file's time is looked at once in as many seconds."""
_NOBODY: Final = "0" * 64
"""A digest that no secret has. Comparing with it makes an unknown id take as long as a wrong secret."""
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key, without its secret."""

    id: str
    name: str
    """For people: the service or the person that uses it."""
    digest: str
    """SHA-256 of the secret in hexadecimal digits."""
    allow: tuple[str, ...] = ("inference",)
    """Names in GRANTS."""
    models: tuple[str, ...] = ()
    """Names of models, with `*` and `?`; a name without tag stands for all tags. Empty: all models."""
    requests_per_minute: int = 0
    """0: no limit, here and below."""
    concurrent_requests: int = 0
    tokens_per_day: int = 0
    """Prompt and output tokens together, by days in UTC."""
    priority: bool = False
    """True if its requests may set their priority in the queue."""
    local: bool = False
    """True if its requests may name files on the server's disk."""
    created: str = ""
    """In UTC, as in RFC 3339."""
    revoked: bool = False

    @property
    def permissions(self) -> frozenset[Permission]:
        """The permissions that `allow` stands for."""
        return frozenset().union(*(GRANTS[each] for each in self.allow))

    def allows_model(self, name: str) -> bool:
        """Return whether the key may use a model, given its shortest name with tag."""
        folded = name.lower()
        return not self.models or any(fnmatchcase(folded, _pattern(each)) for each in self.models)


def _pattern(given: str) -> str:
    return given.lower() if ":" in given.rpartition("/")[2] else f"{given.lower()}:*"


class KeyFileError(Exception):
    """The file of keys cannot be used. The text names the file, and the key and field if one is wrong."""


class KeyFile:
    """The keys of a file. Another process may change it: it is read again when its time or size changes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises KeyFileError if there is a file that cannot be read. `clock` counts seconds."""
        self._path = path
        self._clock = clock
        self._looked = -_LOOK_SECONDS
        self._stamp: tuple[int, int, int] | None = None
        self._keys: Mapping[str, ApiKey] = {}
        self._content: Mapping[str, Any] = {}
        """The whole file. A newer version may have written more than keys."""
        self._enabled = False
        self._read()

    @property
    def enabled(self) -> bool:
        """True if callers need a key. It stays true until the process ends, even if the file is removed."""
        self._look()
        return self._enabled

    def find(self, text: str) -> ApiKey | None:
        """Return the key of this text; None if it is unknown, wrong or revoked. The comparison takes constant time."""
        self._look()
        prefix, _, rest = text.partition("_")
        id_, _, secret = rest.partition("_")
        key = self._keys.get(id_) if prefix == PREFIX else None
        same = hmac.compare_digest(digest_of(secret), key.digest if key else _NOBODY)
        return key if key is not None and same and not key.revoked else None

    def listed(self) -> tuple[ApiKey, ...]:
        """Return all keys, also revoked ones, in the order of their creation."""
        self._look()
        return tuple(self._keys.values())

    def create(self, **values: Any) -> tuple[ApiKey, str]:  # noqa: ANN401 - the fields of ApiKey
        """Add a key with these fields; return it with its text, which is kept nowhere.

        Raises KeyFileError for a bad value, and OSError if the file cannot be written.
        """
        secret = secrets.token_urlsafe(32)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        key = ApiKey(id=secrets.token_hex(6), digest=digest_of(secret), created=created, **values)
        _check(key, "the new key")
        with self._changing() as keys:
            keys[key.id] = key
        return key, f"{PREFIX}_{key.id}_{secret}"

    def revoke(self, id_: str) -> ApiKey:
        """Revoke a key by its id, or by its name if it is the only one of that name. Raises KeyFileError."""
        with self._changing() as keys:
            found = [each for each in keys.values() if id_ in (each.id, each.name) and not each.revoked]
            if len(found) != 1:
                raise KeyFileError(f"{len(found)} keys in use have the id or name {id_!r}")
            keys[found[0].id] = replace(found[0], revoked=True)
        return found[0]

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            try:
                self._read()
            except KeyFileError as error:
                # The keys that were read before stay in force. A server must not open because of a typing error.
                log.error("%s; the keys that were read before stay in force", error)

    def _read(self) -> None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            # The keys are gone, and with them every permission: `_enabled` stays as it is.
            self._keys, self._content, self._stamp = {}, {}, None
            return
        except OSError as error:
            raise KeyFileError(f"{self._path}: {error.strerror}") from error
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp == self._stamp:
            return
        self._enabled = True
        # Kept although the content may be bad, so that a bad file is reported once and not every second.
        self._stamp = stamp
        try:
            self._keys, self._content = _loads(self._path.read_bytes(), self._path)
        except OSError as error:
            raise KeyFileError(f"{self._path}: {error.strerror}") from error

    @contextmanager
    def _changing(self) -> Generator[dict[str, ApiKey]]:
        """Lock the file, yield its keys, and write them back."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A lock file of its own, since the file of keys is replaced.
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._stamp = None
            self._read()
            keys = dict(self._keys)
            yield keys
            atomic_files.write(self._path, _dumps(keys.values(), self._content))
            self._stamp = None
            self._read()


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _dumps(keys: Iterable[ApiKey], content: Mapping[str, Any]) -> bytes:
    """Return the content of the file with these keys. Fields other than the keys stay as they are."""
    changed = {**content, "keys": [asdict(each) for each in keys]}
    return json.dumps(formats.KEYS.versioned(changed), indent=1).encode() + b"\n"


def _loads(data: bytes, path: Path) -> tuple[dict[str, ApiKey], Mapping[str, Any]]:
    """Return the keys of a file, and its whole content."""
    try:
        content: dict[str, Any] = json.loads(data)
        listed = content["keys"]
        if formats.KEYS.check(path, content) < 1 or not isinstance(listed, list):
            raise ValueError
    except formats.NewerFormatError as error:
        raise KeyFileError(str(error.strerror)) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KeyFileError(f"{path} is not a file of keys, version 1") from None
    names = {each.name for each in fields(ApiKey)}
    keys: dict[str, ApiKey] = {}
    for number, each in enumerate(listed, 1):
        where = f"{path}: key {number}"
        if not isinstance(each, dict) or not {"id", "name", "digest"} <= each.keys():
            raise KeyFileError(f"{where} lacks a field")
        if unknown := sorted(each.keys() - names):
            # It may restrict the key, so the key cannot be used without it.
            raise KeyFileError(
                f"{where} has the unknown field {unknown[0]!r}: a newer version of Puna may have written it"
            )
        lists = {name: tuple(each[name]) for name in ("allow", "models") if isinstance(each.get(name), list)}
        key = ApiKey(**{**each, **lists})
        _check(key, where)
        keys[key.id] = key
    return keys, content


def _check(key: ApiKey, where: str) -> None:
    """Raise KeyFileError if a field has a bad value."""
    kinds = {"allow": tuple, "models": tuple}
    for each in fields(ApiKey):
        value = getattr(key, each.name)
        # Not isinstance: True is an int.
        if type(value) is not kinds.get(each.name, type(each.default) if each.default is not MISSING else str):
            raise KeyFileError(f"{where}: {each.name} has a value of the wrong type")
    if not _NAME.fullmatch(key.name):
        raise KeyFileError(f"{where}: the name must have 1 to 100 characters, without control characters")
    if not key.allow or not all(each in GRANTS for each in key.allow):
        raise KeyFileError(f"{where}: allow must be some of {', '.join(GRANTS)}")
    if not all(isinstance(each, str) and each for each in key.models):
        raise KeyFileError(f"{where}: models must be names of models")
    for name in ("requests_per_minute", "concurrent_requests", "tokens_per_day"):
        if not 0 <= getattr(key, name) < 1 << 62:
            raise KeyFileError(f"{where}: {name} must not be negative")
