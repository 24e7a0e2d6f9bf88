"""Keys and signatures: RFC 8032's, OpenSSH's, and one that the reference made."""

import pytest

from puna.models.registry import ed25519
from puna.models.registry.challenge import signed_text
from puna.models.registry.ssh_key import Key, KeyFileError, dumps, load_or_make, loads

# A key that the reference made for a store that is gone, and what it sent with it.
REFERENCE = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtz
c2gtZWQyNTUxOQAAACCysGPqeUBuhcn0segwvk0RhC+g+XiUr5+qbrHL+twrpwAA
AIixBRIWsQUSFgAAAAtzc2gtZWQyNTUxOQAAACCysGPqeUBuhcn0segwvk0RhC+g
+XiUr5+qbrHL+twrpwAAAEAHcu94O+3geU4KB0PqM9dIkEHpOuvxz2U+/pBamhKS
LLKwY+p5QG6FyfSx6DC+TRGEL6D5eJSvn6puscv63CunAAAAAAECAwQF
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


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f"
            "0595bbe24655141438e7a100b",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e"
            "9716ed28dc027beceea1ec40a",
        ),
    ],
)
def test_signatures_of_the_standard(seed, public, message, signature):
    assert ed25519.public_key(bytes.fromhex(seed)).hex() == public
    assert ed25519.sign(bytes.fromhex(seed), bytes.fromhex(message)).hex() == signature


def test_what_the_reference_sends():
    assert loads(REFERENCE).authorization(signed_text(URL)) == SENT


def test_a_key_is_made_once(tmp_path):
    path = tmp_path / "home/.ollama/id_ed25519"
    key = load_or_make(path)
    assert load_or_make(path) == key
    assert loads(dumps(key, b"1234")) == key


@pytest.mark.parametrize(
    "text", ["", "nonsense", REFERENCE.replace("b3Bl", "AAAA"), REFERENCE[:120] + "\n-----END OPENSSH PRIVATE KEY-----"]
)
def test_what_is_no_key(text):
    with pytest.raises(KeyFileError):
        loads(text)


def test_a_key_does_not_print_its_secret():
    assert "seed" not in repr(Key(bytes(32), bytes(32)))
