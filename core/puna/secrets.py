"""The secrets of the configuration: the table [secrets], from which backends get the keys of their upstreams.

    [secrets]
    openai = { env = "OPENAI_API_KEY" }
    vllm = { file = "/run/secrets/vllm" }
    test = "a value that stands here"

A model or a table of the configuration holds only the name of an entry. The value is read when a model is loaded, so
that a file may be replaced while the server runs. No error and no repr here shows a value.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 64 << 10
"""Bytes of a secret in a file."""
SOURCES: Final = ("file", "env")


class SecretError(Exception):
    """A secret cannot be read. The text names the place and not the value."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Where the value of one secret comes from."""

    source: str
    """One of SOURCES; empty: the text is the value."""
    text: str = field(repr=False)
    """The value itself, the path of the file, or the name of the environment variable."""

    def read(self, environ: Mapping[str, str] = os.environ) -> str:
        """Return the value. Blocks if it is in a file. Raises SecretError."""
        if not self.source:
            return self.text
        if self.source == "env":
            if self.text not in environ:
                raise SecretError(f"the environment variable {self.text} is not set")
            return environ[self.text]
        return self._from_file()

    def _from_file(self) -> str:
        try:
            with Path(self.text).expanduser().open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
            if len(raw) > MAX_BYTES:
                raise SecretError(f"the file {self.text} has more than {MAX_BYTES} bytes")
            # Editors end a file with a line break, which no key contains.
            return raw.decode().strip()
        except OSError as error:
            raise SecretError(f"the file {self.text} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError:
            # Without the cause, which holds the bytes.
            raise SecretError(f"the file {self.text} is not UTF-8") from None


class Secrets(Mapping[str, Secret]):
    """The secrets by name. Its repr shows the names only."""

    def __init__(self, entries: Mapping[str, Secret] | None = None) -> None:
        self._entries = dict(entries or {})

    def __getitem__(self, name: str) -> Secret:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Secrets({sorted(self._entries)})"


def read_secrets(table: object) -> Secrets:
    """Return the secrets of the configuration's table. Raises ValueError, which names an entry and not its value."""
    if not isinstance(table, Mapping):
        raise ValueError("secrets in the configuration file is a table")
    return Secrets({str(name): _secret(str(name), value) for name, value in table.items()})


def _secret(name: str, value: object) -> Secret:
    if isinstance(value, str):
        return Secret("", value)
    if isinstance(value, Mapping) and len(value) == 1:
        (source, text), *_ = value.items()
        if source in SOURCES and isinstance(text, str) and text:
            return Secret(source, text)
    raise ValueError(
        f"the configuration's [secrets] {name} must be a text, or a table with a text under either file or env"
    )
