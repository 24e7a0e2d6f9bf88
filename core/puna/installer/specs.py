"""What a user may ask to install: a name on the package index, a path, a URL, or a plugin that Puna brings along."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import puna
from puna.installer.errors import PluginInstallError

ARCHIVES: Final = (".whl", ".tar.gz", ".zip")
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:[\[<>=!~@;].*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A requirement for uv or pip, and the text that repeats it later."""

    text: str
    """What `upgrade` reads again: the user's words, with an absolute path."""
    requirement: str
    changing: bool = False
    """Whether the content may change while name and version stay the same, so that it must be built again."""


def parse(text: str, folder: Path) -> Spec:
    """Read what the user has written. A relative path is one in `folder`. Raises PluginInstallError.

    As for pip, a path has a slash or the ending of an archive; a word without is a name on the package index.
    """
    text = text.strip()
    if "://" in text:
        return Spec(text=text, requirement=_url(text), changing=True)
    # The form that Git accepts on its command line, and no other program does.
    if ssh := re.fullmatch(r"([\w.-]+@[\w.-]+):(?!/)(\S+)", text):
        return Spec(text=text, requirement=f"git+ssh://{ssh[1]}/{ssh[2]}", changing=True)
    if "/" in text or text in (".", "..") or text.endswith(ARCHIVES):
        path = (folder / Path(text).expanduser()).resolve()
        if not path.exists():
            raise PluginInstallError(f"there is neither a file nor a folder {path}")
        return Spec(text=str(path), requirement=str(path), changing=True)
    matched = _REQUIREMENT.fullmatch(text)
    if not matched:
        raise PluginInstallError(f"{text!r} is neither a name on the package index, nor a path, nor a URL")
    if canonical(matched[1]) == "puna":
        raise PluginInstallError("puna itself is not a plugin")
    if matched[1] == text and (brought := bundled(text)):
        return Spec(text=canonical(text), requirement=str(brought), changing=True)
    return Spec(text=text, requirement=text)


def bundled(name: str) -> Path | None:
    """Return the sources of a plugin that Puna brings along, or None.

    They lie beside the package `puna`, or in the checkout's folder of plugins: a package with a pyproject.toml of its
    own, which nothing installs until the user asks for it.
    """
    module = canonical(name).replace("-", "_")
    package = Path(puna.__file__).resolve().parent
    for root in (package.parent, package.parents[1] / "plugins"):
        project = root / module / "pyproject.toml"
        if project.is_file() and canonical(tomllib.loads(project.read_text())["project"]["name"]) == canonical(name):
            return project.parent
    return None


def without_credentials(text: str) -> str:
    """Return a spec as it may be shown: user name, password and token of an HTTP URL are replaced."""
    return re.sub(r"(https?://)[^/@\s]+@", r"\1***@", text)


def canonical(name: str) -> str:
    """Return a distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _url(text: str) -> str:
    # "name @ URL" is a requirement as it stands.
    if re.match(r"[A-Za-z0-9._-]+(\[.*\])?\s*@\s", text) or text.partition("+")[0] in ("git", "hg", "svn", "bzr"):
        return text
    path = re.sub(r"[#?].*", "", text)
    scheme = text.partition("://")[0]
    if scheme in ("ssh", "git") or re.search(r"\.git(@[^/]*)?$", path):
        return f"git+{text}"
    return text
