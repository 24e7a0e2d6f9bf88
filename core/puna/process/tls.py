"""The TLS certificate of a server, read again when its files change."""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Files:
    """The PEM files of a server."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Return what changes when a file is replaced. Raises OSError."""
        stats = [path.stat() for path in (self.certificate, self.key, self.client_ca) if path is not None]
        return tuple((each.st_mtime_ns, each.st_ino) for each in stats)

    def context(self) -> ssl.SSLContext:
        """Return a server's context. Raises OSError, of which ssl.SSLError is a subclass, if a file is not valid."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.client_ca)
        return context


class ServerContext:
    """The context of new connections, made anew when a file changes. A bad file leaves the last good one in use."""

    def __init__(self, files: Files) -> None:
        """Raises OSError if a file is missing or not valid."""
        self._files = files
        self._stamp = files.stamp()
        self._context = files.context()

    def current(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        try:
            if (stamp := self._files.stamp()) != self._stamp:
                # Kept also if the files are bad, so that they are reported once.
                self._stamp = stamp
                self._context = self._files.context()
                log.info("the certificate %s was read again", self._files.certificate)
        except OSError as error:
            log.error("the certificate stays as it was: %s", error)
        return self._context
