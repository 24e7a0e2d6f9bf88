import pytest

from puna.errors import InvalidCreateError
from puna.models.create.remote import remote_host


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ollama.com", "https://ollama.com:443"),
        ("http://ollama.com", "https://ollama.com:443"),
        ("https://ollama.com", "https://ollama.com:443"),
        ("http://ollama.com:80", "http://ollama.com:80"),
        ("x", "http://x:11434"),
        ("x:1", "http://x:1"),
        ("http://x/", "http://x:11434"),
        ("http://x/a/../b", "http://x:11434/b"),
        ("x/a", "http://x:11434/a"),
        ("/a", "http://localhost:11434/a"),
        ("/", "http://localhost:11434/"),
        ("//a/b", "http://localhost:11434/a/b"),
        ("http://", "http://localhost:11434"),
        ("https://x:1/a/", "https://x:1/a"),
        ("ollama.com/", "http://ollama.com:11434"),
        ("http://u:p@h/x?y=1", "http://u:p@h:11434/x?y=1"),
        ("http://x/%41", "http://x:11434/A"),
        ("é", "http://%C3%A9:11434"),
        ("[::1]", "http://[::1]:11434"),
    ],
)
def test_addresses_are_completed(text, address):
    assert remote_host(text) == address


@pytest.mark.parametrize("text", [" ", "x y", "::1", "x:y"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidCreateError, match=r"^bad remote$"):
        remote_host(text)
