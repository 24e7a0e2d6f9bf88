"""Paths that clients name files by."""


def is_plain(name: str) -> bool:
    """Whether a path is relative, has no empty part, and names no parent folder. Such a path stays below its folder."""
    return name == "." or all(part not in ("", ".", "..") for part in name.split("/"))
