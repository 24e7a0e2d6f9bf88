"""Addresses of servers that run remote models, in the form that stubs store."""

import posixpath
import re
from typing import Final
from urllib.parse import quote, unquote

from puna.errors import InvalidCreateError

CLOUD: Final = "https://ollama.com:443"
DEFAULT_PORT: Final = 11434
_CLOUD_FORMS: Final = frozenset(("ollama.com", "http://ollama.com", "https://ollama.com"))
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST: Final = re.compile(r"(?:[^@/]*@)?(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]*)(?P<port>:\d*)?")


def remote_host(text: str) -> str:
    """Complete an address. Missing parts become http, localhost and port 11434.

    Raises InvalidCreateError if the text is no address. Ollama gives https://ollama.com the port 11434; here it is 443.
    """
    if text in _CLOUD_FORMS:
        return CLOUD
    match = _SCHEME.match(text)
    scheme, rest = (match[1], text[match.end() :]) if match else ("http", text)
    authority, slash, path = rest.partition("/")
    found = _HOST.fullmatch(authority)
    if not text.strip() or found is None:
        raise InvalidCreateError("bad remote")
    # ":8080" means a port of this machine, as for Ollama's OLLAMA_HOST.
    if not authority or authority.startswith(":"):
        authority = f"localhost{authority}"
    if not found["port"]:
        authority = f"{authority.removesuffix(':')}:{DEFAULT_PORT}"
    # Go escapes a host as it prints it, and the printed text is stored in the stub.
    host = quote(authority, safe="[]:@%!$&'()*+,;=-._~")
    return f"{scheme}://{host}{_clean(slash + path, keep_root=not match and not rest.partition('/')[0])}"


def _clean(path: str, *, keep_root: bool) -> str:
    path, mark, query = path.partition("?")
    if not path:
        return mark + query
    cleaned = posixpath.normpath("/" + unquote(path).lstrip("/"))
    if cleaned == "/" and not keep_root:
        cleaned = ""
    return cleaned + mark + query
