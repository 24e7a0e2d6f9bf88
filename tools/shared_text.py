"""List passages that this tree shares with checkouts of other projects: `python tools/shared_text.py CHECKOUT...`.

Both sides are cut into tokens: words, identifiers and numbers, in lower case, without punctuation and white space. A
shingle is a run of twelve tokens, at least four of them different and longer than two characters, so that regular
expressions and rows of numbers do not count. The index holds the shingles of this tree, which is the smaller side; each
file of a checkout is then read once. Shingles that overlap in a file of this tree form one passage.

`shared_text_allowed.toml` names the passages that may be equal, with the reason: error texts that clients read, texts
of prompt formats that a model was trained on, constants of a binary interface. An entry holds for the files of this
tree that match a glob, and, if it has `containing`, for passages that contain these words. The exit status is 1 if any
other passage is found.
"""

import argparse
import fnmatch
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
ALLOWED = Path(__file__).parent / "shared_text_allowed.toml"
SHINGLE = 12
LARGEST = 4 << 20
"""Bytes of the largest file that is read. Larger files are data."""
_TOKEN = re.compile(r"[^\W_]+")
_OURS_PASSED_OVER = (
    "uv.lock",
    "proto/python/puna_client/v1/*",
    "proto/python/puna_client/interop/v1/*",
    "core/puna/backend/v1/*",
    "*/package-lock.json",
    "LICENSE",
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry of the allow list."""

    file: str
    reason: str
    containing: str = ""


@dataclass(slots=True)
class Tokens:
    """The tokens of one file with the line of each."""

    words: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def tokens(text: str) -> Tokens:
    """Cut a text into tokens."""
    found = Tokens()
    for number, line in enumerate(text.split("\n"), 1):
        for word in _TOKEN.findall(line.lower()):
            found.words.append(word)
            found.lines.append(number)
    return found


def shingles(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield each shingle's hash with the index of its first token."""
    for start in range(len(words) - SHINGLE + 1):
        if len({word for word in words[start : start + SHINGLE] if len(word) > 2}) < 4:
            continue
        # Hashes of strings differ from run to run, which does not matter for an index that lives for one.
        yield hash(tuple(words[start : start + SHINGLE])), start


def read(path: Path) -> str | None:
    """Return a file's text, or None for binary and large files."""
    try:
        # The target of a link is read under its own name.
        if path.is_symlink() or path.stat().st_size > LARGEST:
            return None
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return None


def listed(folder: Path) -> Iterator[str]:
    """Yield the names of a checkout's tracked files, or of all files where git tracks none."""
    tracked = ""
    # Builds and downloads in a checkout are no sources, so only tracked files are read.
    if (folder / ".git").exists():
        # Separated by NUL, since git quotes unusual file names otherwise.
        command = ["git", "-C", str(folder), "ls-files", "-z"]
        tracked = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if tracked:
        yield from filter(None, tracked.split("\0"))
    else:
        yield from (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())


def own_files() -> dict[str, Tokens]:
    """Return the tokens of each file of this tree, but for generated files and lock files."""
    found = {}
    for name in listed(ROOT):
        text = None if any(fnmatch.fnmatch(name, glob) for glob in _OURS_PASSED_OVER) else read(ROOT / name)
        if text is not None:
            found[name] = tokens(text)
    return found


def matches(own: dict[str, Tokens], checkouts: Sequence[Path]) -> dict[str, dict[int, str]]:
    """Return, for each file of this tree, the first tokens of shared shingles and the file that shares each."""
    index: dict[int, list[tuple[str, int]]] = {}
    for name, content in own.items():
        for value, start in shingles(content.words):
            index.setdefault(value, []).append((name, start))
    found: dict[str, dict[int, str]] = {}
    for folder in checkouts:
        for theirs in listed(folder):
            text = read(folder / theirs)
            for value, _ in shingles(tokens(text).words) if text is not None else ():
                # One origin for each place is enough; the last one found remains.
                for name, start in index.get(value, ()):
                    found.setdefault(name, {}).setdefault(start, f"{folder.name}/{theirs}")
    return found


def passages(starts: dict[int, str]) -> Iterator[tuple[int, int, str]]:
    """Yield the first token, the end and the other project's file of each passage of a file."""
    first = last = None
    for start in sorted(starts):
        # Shingles that overlap or touch belong to one passage.
        if first is None or last is None or start > last + SHINGLE:
            if first is not None and last is not None:
                yield first, last + SHINGLE, starts[first]
            first = start
        last = start
    if first is not None and last is not None:
        yield first, last + SHINGLE, starts[first]


def allowed(entries: Sequence[Allowed], name: str, passage: str) -> bool:
    """Return whether an entry of the allow list covers a passage."""
    return any(fnmatch.fnmatch(name, each.file) and each.containing.lower() in passage for each in entries)


def main() -> int:
    """Print the passages that no entry of the allow list covers."""
    parser = argparse.ArgumentParser(description="List passages that this tree shares with checkouts.")
    parser.add_argument("checkouts", nargs="+", type=Path, help="folders of other projects")
    parser.add_argument("--all", action="store_true", help="list the allowed passages too")
    arguments = parser.parse_args()
    entries = [Allowed(**entry) for entry in tomllib.loads(ALLOWED.read_text())["allowed"]]
    own = own_files()
    count = 0
    for name, starts in sorted(matches(own, arguments.checkouts).items()):
        content = own[name]
        for first, end, theirs in passages(starts):
            passage = " ".join(content.words[first:end])
            if arguments.all or not allowed(entries, name, passage):
                count += 1
                print(f"{name}:{content.lines[first]}: {end - first} tokens, also in {theirs}\n    {passage[:240]}")
    print(f"{count} passages")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
