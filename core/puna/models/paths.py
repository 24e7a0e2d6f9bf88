"""Paths that clients name files by."""


def is_plain(name: str) -> bool:
    """Return whether a path stays below its folder: it is relative, and no part is empty or a parent folder."""
    return name == "." or all(part not in ("", ".", "..") for part in name.split("/"))
