"""The files of a folder that become a model as they are."""

from collections.abc import Iterator
from pathlib import Path


def files_of(path: Path) -> dict[str, Path]:
    """Return a file, or all files of a folder and its sub-folders, by their names relative to the folder.

    Hidden files and folders are left out: they belong to programs such as Git. Raises ValueError for a path that does
    not exist or has no files, for anything in the folder that is neither a file nor a folder, and for a link that leads
    out of the folder.
    """
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or directory")
    found = {each.relative_to(path).as_posix(): each for each in _walk(path)}
    if not found:
        raise ValueError(f"{path} has no files")
    root = path.resolve()
    roots = [root]
    # In the cache of Hugging Face the files of a snapshot are links to files beside the snapshots.
    if root.parent.name == "snapshots":
        roots.append(root.parents[1] / "blobs")
    for each in found.values():
        # A link in a downloaded folder must not take files from elsewhere on this disk.
        if not any(each.resolve().is_relative_to(each_root) for each_root in roots):
            raise ValueError(f"insecure path: {each}")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)
        else:
            raise ValueError(f"{entry} is neither a file nor a folder")
