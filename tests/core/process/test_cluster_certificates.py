import ssl

import pytest

from puna.process import cluster_certificates as certificates
from puna.process.cluster_tls import core_context, node_context


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The folder of a cluster's certificates."""
    folder = tmp_path_factory.mktemp("cluster")
    certificates.make(folder)
    return folder


def test_keys_are_for_their_owner_alone(cluster):
    keys = [cluster / "ca.key", cluster / "core/tls.key", cluster / "node/tls.key"]
    assert [each.stat().st_mode & 0o777 for each in keys] == [0o600] * 3


def test_a_second_authority_does_not_replace_the_first(cluster):
    before = (cluster / "ca.crt").read_bytes()
    with pytest.raises(FileExistsError):
        certificates.make(cluster)
    assert (cluster / "ca.crt").read_bytes() == before


def test_a_run_that_did_not_finish_is_made_good_by_the_next_one(tmp_path, monkeypatch):
    def fail(folder, files):
        if folder == tmp_path:
            raise OSError(28, "No space left on device")
        write(folder, files)

    write = certificates._write
    with monkeypatch.context() as patched:
        patched.setattr(certificates, "_write", fail)
        with pytest.raises(OSError, match="No space"):
            certificates.make(tmp_path)
    certificates.make(tmp_path)
    shake_hands(core_context(tmp_path / "core"), node_context(tmp_path / "node"))


def shake_hands(client, server):
    """Let two contexts shake hands in memory. Raises what OpenSSL raises on either side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="node.puna.internal"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(5):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_a_core_and_a_node_know_each_other(cluster):
    shake_hands(core_context(cluster / "core"), node_context(cluster / "node"))


@pytest.mark.parametrize(("client", "server"), [("node", "node"), ("core", "core")])
def test_a_node_cannot_connect_to_nodes_and_a_core_cannot_serve(cluster, client, server):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unsuitable certificate purpose|Hostname mismatch"):
        shake_hands(core_context(cluster / client), node_context(cluster / server))


def test_other_clusters_are_strangers(cluster, tmp_path):
    certificates.make(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(core_context(cluster / "core"), node_context(tmp_path / "node"))
