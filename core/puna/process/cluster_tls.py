"""Mutual TLS between cores and nodes.

Theory. A cluster has a certificate authority of its own. It signs two kinds of certificates: a node's may only serve,
and a core's may only connect. So a node that is taken over cannot start hosts on other nodes. Both sides check the
other's certificate by the authority, by its kind and by a fixed name, and not by addresses, which change.

A folder has the files under the names that Kubernetes gives them in a secret: ca.crt, tls.crt, tls.key.
"""

import os
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import platformdirs

AUTHORITY: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
NODE_NAME: Final = "node.puna.internal"
"""The name in a node's certificate."""
CORE_NAME: Final = "core.puna.internal"
"""The name in a core's certificate."""


def default_folder() -> Path:
    """Return the folder of the cluster's certificates if no setting names one: beside the configuration."""
    return platformdirs.user_config_path("puna", appauthor=False) / "cluster"


def node_context(folder: Path) -> ssl.SSLContext:
    """Return the context with which a node accepts cores. Raises OSError if a file is missing or not valid."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, folder)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def node_context_of(files: Mapping[str, str]) -> ssl.SSLContext:
    """Return the context of a node whose certificate is in memory. `files` has the texts of the folder's files by name.

    Raises OSError if a text is missing or not valid.
    """
    context = _context_of(ssl.PROTOCOL_TLS_SERVER, files)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def core_context_of(files: Mapping[str, str]) -> ssl.SSLContext:
    """Return the context of a core whose certificate is in memory; see `node_context_of`."""
    return _context_of(ssl.PROTOCOL_TLS_CLIENT, files)


def _context_of(protocol: int, files: Mapping[str, str]) -> ssl.SSLContext:
    context = _bare(protocol)
    # OpenSSL reads files only. A file without a name is on no disk, and is gone when it is closed.
    with ExitStack() as stack:
        paths = {}
        for name in (AUTHORITY, CERTIFICATE, KEY):
            file = stack.enter_context(os.fdopen(os.memfd_create(name), "w"))
            file.write(files.get(name, ""))
            file.flush()
            paths[name] = f"/proc/self/fd/{file.fileno()}"
        context.load_verify_locations(paths[AUTHORITY])
        context.load_cert_chain(paths[CERTIFICATE], paths[KEY])
    return context


def core_context(folder: Path) -> ssl.SSLContext:
    """Return the context with which a core connects to nodes. Raises OSError if a file is missing or not valid."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, folder)


def _context(protocol: int, folder: Path) -> ssl.SSLContext:
    context = _bare(protocol)
    for name in (AUTHORITY, CERTIFICATE, KEY):
        # ssl's own error would not name the file.
        with (folder / name).open("rb"):
            pass
    context.load_verify_locations(folder / AUTHORITY)
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    return context


def _bare(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
