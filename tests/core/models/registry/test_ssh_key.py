"""Keys of Ollama's registry: one that Ollama made and used, files that are no such key, and what is written."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from puna.models.registry.challenge import signed_text
from puna.models.registry.ssh_key import KeyFileError, dumps, load_or_make, loads

# Ollama made this key for a store that is gone, and sent this with it.
OLLAMA_KEY = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtz
c2gtZWQyNTUxOQAAACCysGPqeUBuhcn0segwvk0RhC+g+XiUr5+qbrHL+twrpwAA
AIixBRIWsQUSFgAAAAtzc2gtZWQyNTUxOQAAACCysGPqeUBuhcn0segwvk0RhC+g
+XiUr5+qbrHL+twrpwAAAEAHcu94O+3geU4KB0PqM9dIkEHpOuvxz2U+/pBamhKS
LLKwY+p5QG6FyfSx6DC+TRGEL6D5eJSvn6puscv63CunAAAAAAECAwQF
-----END OPENSSH PRIVATE KEY-----
"""
# Made by `ssh-keygen -t ed25519` with a passphrase, for this test alone.
ENCRYPTED = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABCptgBGaA
34wXnSvYullYsZAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIO0KGL6oVnWQZNPV
yhQjb/W2uZU00sgm0CWoZddAJCQMAAAAkOy/u3/CAby1VxsKeoMWebALVlCI4ypPim7W/4
Snd7warf4wIhKxoeqlzj5+GW4ZaD0atSxb64kcn3bsnj45EQVzP2l0Ms7R3My3aJLjupPP
HLgkxFNZv9Sztvg/ueZlIOFYrSYWpgnlxLQo2wfwrKvmesT2DH5ghkLPEbDOIpbAjrMULc
7YlcXRYDqXV3tAFg==
-----END OPENSSH PRIVATE KEY-----
"""
URL = (
    "http://127.0.0.1:5982/token?nonce=zADFZ3Db1Qnta5RDk_TUaA&scope=repository%3Aown%2Fbase%3Apull"
    "&service=tests&ts=1795265085"
)
SENT = (
    "AAAAC3NzaC1lZDI1NTE5AAAAILKwY+p5QG6FyfSx6DC+TRGEL6D5eJSvn6puscv63Cun:"
    "8KIE1i3wXrEYDJgWn6zKdHXhucq/CI+w5QZMDx2ovdMIXU158bmeRSLWR0LIml4n+WyDQk5bGC5W+Wb1a8E3BQ=="
)


def test_a_request_is_signed_as_ollama_signs_it():
    assert loads(OLLAMA_KEY).authorization(signed_text(URL)) == SENT


def test_a_key_is_made_once(tmp_path):
    path = tmp_path / "home/.ollama/id_ed25519"
    key = load_or_make(path)
    assert load_or_make(path).public_text == key.public_text
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_suffix(".pub").read_text() == f"ssh-ed25519 {key.public_text}\n"


def test_a_written_key_is_the_one_that_was_read():
    key = loads(OLLAMA_KEY)
    written = dumps(key)
    assert loads(written).authorization(b"x") == key.authorization(b"x")
    assert [len(line) for line in written.splitlines()] == [len(line) for line in OLLAMA_KEY.splitlines()]


def openssh(key):
    form, nothing = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, nothing).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an OpenSSH private key"),
        ("nonsense", "not an OpenSSH private key"),
        (OLLAMA_KEY.replace("b3Bl", "AAAA"), "the key file is damaged"),
        (OLLAMA_KEY[:120] + "\n-----END OPENSSH PRIVATE KEY-----", "the key file is damaged"),
        (OLLAMA_KEY[:120], "the key file is damaged"),
        (ENCRYPTED, "the key is behind a passphrase"),
        (openssh(ec.generate_private_key(ec.SECP256R1())), "not an Ed25519 key"),
    ],
)
def test_a_file_without_a_usable_key_is_refused(text, reason):
    with pytest.raises(KeyFileError, match=reason):
        loads(text)


def test_a_key_does_not_print_its_secret():
    assert repr(loads(OLLAMA_KEY)) == "Key()"


def test_a_failure_leaves_no_half_of_a_key(tmp_path, monkeypatch):
    path = tmp_path / "id_ed25519"

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            load_or_make(path)
    assert list(tmp_path.iterdir()) == []
    assert load_or_make(path).public_text
