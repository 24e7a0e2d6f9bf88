"""A cache of GGUF headers, template facts and models, so that lists of large models read each file once.

Entries are keyed by the identity of a file: path, modification time, size and inode. A changed file has another
key, so no entry is ever stale, and the least recently used ones are dropped. Files that cannot be read are cached
as well, since clients ask for lists every few seconds.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, TypeVar

from puna.errors import TemplateError, TemplateLimitError
from puna.gguf import reader as gguf
from puna.gguf.reader import GGUF, GGUFError
from puna.go.template import facts
from puna.go.template.facts import Facts
from puna.go.template.parser import parse

T = TypeVar("T")

CAPACITY: Final = 1024
ReadTemplate = Callable[[str], Facts]
"""Returns the facts about a Go template. Raises TemplateError."""


def read_template(text: str) -> Facts:
    """Read a Go template in this process, without a limit on time. Raises TemplateError."""
    return facts.of(parse(text))


class HeaderCache:
    """The cache. Safe between threads; two threads may compute the same entry at once."""

    def __init__(self, capacity: int = CAPACITY, read: ReadTemplate = read_template) -> None:
        """`read` reads Go templates. It may take unbounded time."""
        self._read_template = read
        self._capacity = capacity
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, Any] = OrderedDict()

    def header(self, path: Path) -> GGUF:
        """Return the header of a file, without arrays. Raises GGUFError and OSError."""
        return self._of_file("head", path, gguf.read)

    def peek(self, path: Path) -> GGUF:
        """Return the metadata before the tokenizer's. Raises GGUFError and OSError."""
        return self._of_file("peek", path, gguf.peek)

    def _of_file(self, what: str, path: Path, read: Callable[[Path], GGUF]) -> GGUF:
        """Read a file once, even if it cannot be read."""

        def tried() -> GGUF | GGUFError:
            try:
                return read(path)
            except GGUFError as error:
                # A traceback would keep all frames and their buffers alive for as long as the entry.
                return error.with_traceback(None)

        found = self.get_or_make((what, *file_identity(path)), tried)
        if isinstance(found, GGUFError):
            raise GGUFError(str(found))
        return found

    def template(self, text: str) -> Facts:
        """Return the facts about a Go template. Raises TemplateError, which is cached too unless a limit caused it."""
        found = self.get_or_make(("template", text), lambda: self._try(text))
        if isinstance(found, str):
            raise TemplateError(found)
        return found

    def _try(self, text: str) -> Facts | str:
        try:
            return self._read_template(text)
        # The same template may pass when the machine is less busy, so this failure is not remembered.
        except TemplateLimitError:
            raise
        except TemplateError as error:
            return str(error)

    def get_or_make(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the cached value of a key, or make it."""
        with self._lock:
            if key in self._known:
                # The order of the dict is the order of use, so the first entry is the one to drop.
                self._known.move_to_end(key)
                found: T = self._known[key]
                return found
        # Made without the lock: reading a header may take a second, and other entries must stay available.
        made = make()
        with self._lock:
            self._known[key] = made
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return made


def file_identity(path: Path) -> tuple[str, int, int, int]:
    """Return a key that changes whenever the file does. Raises OSError."""
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino
