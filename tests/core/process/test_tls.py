"""The certificate of a server follows its files."""

import os
import ssl

import pytest
from tests.certificates import Certificates

from puna.process.tls import Files, ServerContext


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path)


def offered(context, authority):
    """Return the certificate that a server with this context offers, by a handshake in memory."""
    client = ssl.create_default_context(cafile=authority)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    theirs = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.getpeercert(binary_form=True)


def renew(certificates, files):
    """Replace the files as certbot does, and make their times differ even on a coarse clock."""
    certificates.issue("server")
    for path in (files.certificate, files.key):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10_000_000))


def test_a_renewed_certificate_is_offered_to_the_next_connection(certificates):
    files = Files(*certificates.issue("server"))
    server = ServerContext(files)
    before = offered(server.current(), certificates.ca)
    assert offered(server.current(), certificates.ca) == before
    renew(certificates, files)
    assert offered(server.current(), certificates.ca) != before


@pytest.mark.parametrize("spoil", ["cut", "missing", "other key"])
def test_bad_files_leave_the_old_certificate_and_are_reported_once(certificates, spoil, caplog):
    files = Files(*certificates.issue("server"))
    server = ServerContext(files)
    before = offered(server.current(), certificates.ca)
    if spoil == "cut":
        files.certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    elif spoil == "other key":
        files.key.write_bytes(certificates.issue("other")[1].read_bytes())
    else:
        files.key.unlink()
    for _ in range(3):
        assert offered(server.current(), certificates.ca) == before
    assert caplog.text.count("the certificate stays as it was") == (3 if spoil == "missing" else 1)
    renew(certificates, files)
    assert offered(server.current(), certificates.ca) != before


def test_bad_files_at_the_start_are_an_error(tmp_path, certificates):
    pem, key = certificates.issue("server")
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        ServerContext(Files(tmp_path / "none.pem", key))
    other = certificates.issue("other")[1]
    with pytest.raises(ssl.SSLError):
        ServerContext(Files(pem, other))


def test_old_versions_of_tls_are_refused(certificates):
    context = Files(*certificates.issue("server")).context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
