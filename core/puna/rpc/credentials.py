"""TLS for the gRPC server and for channels to it."""

import logging

import grpc

from puna.process.tls import Files

log = logging.getLogger(__name__)


def server_credentials(files: Files) -> grpc.ServerCredentials:
    """Return credentials that follow the files. Raises OSError if a file is missing or not valid."""
    told = files.stamp()
    # gRPC accepts any bytes and fails at the first connection. The context checks the files now.
    files.context()

    def configuration() -> grpc.ServerCertificateConfiguration:
        ca = files.client_ca.read_bytes() if files.client_ca is not None else None
        pair = (files.key.read_bytes(), files.certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal told
        try:
            if (stamp := files.stamp()) == told:
                return None
            told = stamp
            files.context()
            return configuration()
        except OSError as error:
            log.error("the certificate stays as it was: %s", error)
            return None

    # gRPC takes None for "unchanged"; its types do not say so.
    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, files.client_ca is not None)  # type: ignore[arg-type]
