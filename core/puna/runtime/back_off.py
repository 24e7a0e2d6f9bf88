"""Pauses between attempts to load a model whose host dies, or hangs, each time.

Theory. Starting a host takes seconds of work, and a client may ask again at once when a load fails. So after several
failures in a row the model is not loaded for a pause that doubles with each further failure, and requests for it fail
at once with the reason of the last failure. A record belongs to one attempt as a whole: the model, its files as they
are on the disk, the options, the backend and the plugin's own files. Whatever is changed to repair the load is thus
tried at once. A load that succeeds ends the record.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from puna.plugins import Plugin
from puna.runtime.errors import HostFailedError
from puna.runtime.requirements import ModelRequirements

FIRST_PAUSE: Final = 1.0
"""Seconds of the pause after the second failure; there is none after the first."""
MAX_RECORDS: Final = 256


@dataclass(slots=True)
class _Record:
    reason: str = ""
    failures: int = 0
    until: float = 0.0


class LoadBackOff:
    """Remembers the attempts that have failed."""

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`longest` bounds a pause, in seconds."""
        self._longest = longest
        self._clock = clock
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether there is a record at all."""
        return bool(self._records)

    def check(self, attempt: Hashable) -> None:
        """Raise HostFailedError, with the last reason, during a pause of this attempt."""
        record = self._records.get(attempt)
        if record is not None and (left := record.until - self._clock()) > 0:
            raise HostFailedError(
                f"{record.reason} (it failed {record.failures} times in a row and is not tried again for {left:.0f} s)"
            )

    def failed(self, attempt: Hashable, reason: str) -> None:
        """Record a failure."""
        record = self._records.setdefault(attempt, _Record())
        self._records.move_to_end(attempt)
        if len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)
        record.reason, record.failures = reason, record.failures + 1
        if record.failures > 1:
            # The exponent is bounded, since a float is.
            pause = FIRST_PAUSE * 2.0 ** min(record.failures - 2, 64)
            record.until = self._clock() + min(pause, self._longest)

    def succeeded(self, attempt: Hashable) -> None:
        """Forget the failures."""
        self._records.pop(attempt, None)


def attempt_of(requirements: ModelRequirements, plugin: Plugin) -> Hashable:
    """Return what identifies an attempt to load a model. Looks at the files of the model and the plugin."""
    spec = requirements.spec
    paths = (spec.path, *spec.adapter_paths, *spec.projector_paths, spec.draft_path or "", *spec.files.values())
    return (
        requirements.key,
        requirements.digest,
        # ModelSpec has mappings, so it cannot be hashed; its text has every option. The model may have several names.
        repr(replace(spec, name="")),
        *(_state(path) for path in paths if path),
        plugin.name,
        plugin.version,
        plugin.command,
        *map(_state, _files_of(plugin)),
    )


def _files_of(plugin: Plugin) -> Iterator[str | os.PathLike[str]]:
    """Yield the files of a plugin that its author changes to repair it."""
    yield from plugin.command[:1]
    if plugin.manifest is not None:
        folder = plugin.manifest.path.parent
        yield plugin.manifest.path
        # A package has a folder of its own. A module that is one file may lie among thousands of others.
        if (folder / "__init__.py").exists():
            yield from sorted(folder.glob("*.py"))
        else:
            yield folder / f"{plugin.manifest.host.python_class.partition(':')[0].partition('.')[0]}.py"


def _state(path: str | os.PathLike[str]) -> Hashable:
    with suppress(OSError):
        status = Path(path).stat()
        return (os.fspath(path), status.st_size, status.st_mtime_ns, status.st_ino)
    return (os.fspath(path), None)
