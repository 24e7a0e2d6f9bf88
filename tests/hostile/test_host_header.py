"""Names that an attacker points at the server: a page from such a name must not be answered."""

import os
import socket

import pytest
from tests.e2e.server import serving
from tests.hostile.wire import connect, head, status, until_closed

BROWSER = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
PROGRAM = "User-Agent: ollama-python/0.6"


def addresses():
    """Return this machine's addresses that are not loopback."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return found
        found.append(probe.getsockname()[0])
    return [each for each in found if not each.startswith("127.")]


# tests/rest_bridge/test_hosts.py asks the rules themselves, which needs no network.
pytestmark = pytest.mark.skipif(
    not addresses() and not os.environ.get("CI"), reason="this machine has no address but loopback"
)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory):
    """A server on all interfaces, reached by an address of the network where there is one."""
    home = tmp_path_factory.mktemp("home")
    with serving(home / "models", OLLAMA_HOST="0.0.0.0:0", PUNA_ALLOW_ANONYMOUS="1") as running:
        yield running


@pytest.fixture(scope="module")
def listed_server(tmp_path_factory):
    """The same with a setting of names."""
    with serving(
        tmp_path_factory.mktemp("home") / "models",
        OLLAMA_HOST="0.0.0.0:0",
        PUNA_ALLOW_ANONYMOUS="1",
        PUNA_ALLOWED_HOSTS="models.example, *.trusted.example",
        OLLAMA_ORIGINS="https://chat.example",
    ) as running:
        yield running


def ask(server, host, *headers, line="GET /api/tags HTTP/1.1", address=None):
    """Send a request over an interface that is not loopback, or over `address`; return its status."""
    port = server.url.rpartition(":")[2]
    with connect(f"{address or addresses()[0]}:{port}") as sock:
        sock.sendall(head(line, "Connection: close", *headers, host=host))
        return status(until_closed(sock))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "192.168.1.7:11434", "8.8.8.8", "[2001:db8::1]:80", "localhost", "myserver", "ollama:11434",
             "gpu.local", "host.docker.internal", "puna.default.svc.cluster.local", "", None]
)  # fmt: skip
@pytest.mark.parametrize("agent", [BROWSER, PROGRAM])
def test_hosts_that_no_stranger_can_own(open_server, host, agent):
    line = "GET /api/tags HTTP/1.1" if host is not None else "GET /api/tags HTTP/1.0"
    assert ask(open_server, host, agent, line=line) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "EVIL.example.:11434", "127.0.0.1.evil.example", "localhost.evil.example"]
)
@pytest.mark.parametrize(
    "mark",
    [BROWSER, "Origin: http://evil.example:11434", "Referer: http://evil.example/", "Sec-Fetch-Site: same-origin"],
)
def test_a_page_from_a_strange_name_is_refused(open_server, host, mark):
    if mark.startswith("Origin"):
        mark = f"Origin: http://{host}"  # a page asks its own host, which no policy of origins forbids
    assert ask(open_server, host, mark) == 403
    assert ask(open_server, host, mark, line="POST /api/generate HTTP/1.1") == 403


def test_a_program_may_use_any_name(open_server):
    assert ask(open_server, "gpu.company.example", PROGRAM) == 200
    assert ask(open_server, "gpu.company.example") == 200


def test_a_whole_url_in_the_request_line_counts(open_server):
    line = "GET http://evil.example/api/tags HTTP/1.1"
    assert ask(open_server, addresses()[0], BROWSER, line=line) == 403
    assert ask(open_server, "127.0.0.1", line=line, address="127.0.0.1") == 403
    good = "GET http://127.0.0.1/api/tags HTTP/1.1"
    assert ask(open_server, "evil.example", BROWSER, line=good) == 200
    assert ask(open_server, "127.0.0.1", "Origin: http://127.0.0.1", line=line, address="127.0.0.1") == 403


def test_loopback_is_judged_as_ollama_does(open_server):
    for agent in (BROWSER, PROGRAM):
        assert ask(open_server, "evil.example", agent, address="127.0.0.1") == 403
        assert ask(open_server, "myserver", agent, address="127.0.0.1") == 403
        assert ask(open_server, "localhost", agent, address="127.0.0.1") == 200


def test_the_setting_names_who_is_served(listed_server):
    for host in ("models.example", "Models.Example.:80", "a.trusted.example", "127.0.0.1", "localhost"):
        assert ask(listed_server, host, BROWSER) == 200
    for host in ("evil.example", "trusted.example", "xmodels.example", "models.example.evil.example"):
        assert ask(listed_server, host, BROWSER) == 403
        assert ask(listed_server, host, PROGRAM) == 403
    assert ask(listed_server, "models.example", PROGRAM, address="127.0.0.1") == 200
    assert ask(listed_server, "evil.example", PROGRAM, address="127.0.0.1") == 403


def test_an_allowed_origin_is_no_stranger(listed_server):
    assert ask(listed_server, "models.example", BROWSER, "Origin: https://chat.example") == 200
    assert ask(listed_server, "evil.example", BROWSER, "Origin: https://chat.example") == 403


def test_the_refusal_says_what_to_do(open_server):
    port = open_server.url.rpartition(":")[2]
    with connect(f"{addresses()[0]}:{port}") as sock:
        sock.sendall(head("GET /api/tags HTTP/1.1", "Connection: close", BROWSER, host="evil.example"))
        assert b"PUNA_ALLOWED_HOSTS" in until_closed(sock)
