"""Whether a server may start at an address that others can reach."""

from pathlib import Path

import pytest
from tests.core.serving.conftest import backend, registry, serving, settings, stocked

from puna.auth.gate import Gate
from puna.auth.keys import KeyFile
from puna.cli import access
from puna.settings import Settings

__all__ = ["backend", "registry", "serving", "settings", "stocked"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("no.such.host.invalid", False),
    ],
)
def test_loopback(host, loopback):
    assert access.is_loopback(host) is loopback


async def test_keys_or_words_open_an_address_to_others(tmp_path, caplog):
    keys = KeyFile(tmp_path / "keys.json")
    gate = Gate(keys)
    open_to_all = Settings(host="0.0.0.0", expose=("chat",))
    with pytest.raises(OSError, match=r"others can reach OLLAMA_HOST \(0.0.0.0\).* protects only chat"):
        await access.check(open_to_all, gate, core=True, rest=True, target=None)
    # The core alone listens on loopback.
    assert not await access.check(open_to_all, gate, core=True, rest=False, target=None)
    allowed = Settings(host="0.0.0.0", allow_anonymous=True)
    assert await access.check(allowed, gate, core=True, rest=True, target=None)
    assert "every operation on every model is open to them" in caplog.text
    keys.create(name="shop")
    assert await access.check(open_to_all, gate, core=True, rest=True, target=None)
    # The address of metrics takes no calls.
    metrics = Settings(metrics_host="0.0.0.0:0")
    assert not await access.check(metrics, gate, core=True, rest=True, target=None)


async def test_a_bridge_does_not_trust_a_core_that_does_not_answer():
    settings = Settings(host="0.0.0.0", grpc_host="127.0.0.1:1")
    with pytest.raises(OSError, match="OLLAMA_HOST"):
        await access.check(settings, None, core=False, rest=True, target=None)


async def test_a_core_is_asked_whether_it_has_keys(serving, tmp_path):
    from puna.rpc.server import serving as running

    keys = KeyFile(tmp_path / "keys.json")
    async with running(serving, "127.0.0.1:0", gate=Gate(keys)) as address:
        assert not await access.needs_key(Settings(), address)
        keys.create(name="shop")
        assert await access.needs_key(Settings(api_key="ignored"), address)


def test_half_of_a_certificate_is_an_error():
    assert access.tls_files(Settings()) is None
    with pytest.raises(OSError, match="needs both"):
        access.tls_files(Settings(tls_certificate=Path("a.pem")))
    with pytest.raises(OSError, match="needs both"):
        access.tls_files(Settings(tls_client_ca=Path("a.pem")))


def test_a_bad_file_of_keys_ends_the_start(tmp_path):
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(OSError, match=r"keys\.json is not a file of keys"):
        access.gate(Settings(keys=tmp_path / "keys.json"))
