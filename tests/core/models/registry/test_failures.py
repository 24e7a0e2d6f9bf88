import socket
from pathlib import Path

import pytest

from puna.models.registry.failures import RegistryError, connecting_text, of_system
from puna.models.registry.repository import Repository


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "x"), "dial tcp h:1: connect: connection refused"),
        (OSError(113, "x"), "dial tcp h:1: connect: no route to host"),
        (TimeoutError(110, "x"), "dial tcp h:1: i/o timeout"),
        (socket.gaierror(-2, "x"), "dial tcp: lookup h: no such host"),
    ],
)
def test_go_says_it_so(error, text):
    assert connecting_text(error, "h", 1) == text


def test_disks():
    error = OSError(28, "No space left on device")
    assert str(of_system(error, "write", Path("/a/b"))) == "write /a/b: no space left on device"


@pytest.mark.parametrize(("status", "passing"), [(0, True), (429, True), (503, True), (400, False), (403, False)])
def test_what_may_pass(status, passing):
    assert RegistryError("x", status=status).is_passing is passing


@pytest.mark.parametrize(
    ("base", "url", "trusted"),
    [
        ("https://r/v2/a/b", "https://r/v2/a/b/blobs/x", True),
        ("https://r/v2/a/b", "https://R:443/x", True),
        ("https://r/v2/a/b", "https://r:444/x", False),
        ("http://r/v2/a/b", "https://r/x", False),
        ("https://r/v2/a/b", "http://r/x", False),
        ("http://r:5000/v2/a/b", "http://r:5000/x", True),
        ("https://r/v2/a/b", "https://storage/x", False),
        ("https://r/v2/a/b", "https://r.evil/x", False),
    ],
)
def test_to_whom_it_is_shown_who_asks(base, url, trusted):
    assert Repository(base).is_trusted(url) is trusted
