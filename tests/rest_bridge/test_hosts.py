import pytest

from puna_rest import cors, hosts

BROWSER = {"User-Agent": "Mozilla/5.0"}
PROGRAM = {"User-Agent": "ollama-python/0.6"}
PAGE = {"Origin": "https://chat.example"}


def judged(host, headers, *, allowed=(), origins=(), local=False):
    return hosts.Rules(cors.policy(origins), hosts.names(allowed)).judge(host, headers, local=local)


@pytest.mark.parametrize("host", ["192.168.1.7:11434", "[2001:db8::1]", "myserver", "gpu.local", "localhost.", ""])
@pytest.mark.parametrize("headers", [BROWSER, PROGRAM])
def test_names_that_no_stranger_can_own_are_served(host, headers):
    assert judged(host, headers) == "address"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:11434", "EVIL.example.", "127.0.0.1.evil.example"])
def test_other_names_are_refused_to_browsers_only(host):
    assert judged(host, PROGRAM) == "address"
    for headers in (BROWSER, {"Sec-Fetch-Site": "none"}, {"Referer": "http://evil.example/"}, PAGE):
        assert judged(host, headers) == "unlisted"


def test_an_origin_that_is_allowed_may_come_by_any_name():
    assert judged("models.example", PAGE | BROWSER, origins=["https://chat.example"]) == "address"
    assert judged("models.example", BROWSER, origins=["https://chat.example"]) == "unlisted"


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        ("models.example", "address"),
        ("MODELS.example:80", "address"),
        ("a.trusted.example", "address"),
        ("trusted.example", "unlisted"),
        ("evil.example", "unlisted"),
        ("10.0.0.1", "address"),
    ],
)
@pytest.mark.parametrize("headers", [BROWSER, PROGRAM])
def test_a_list_of_names_is_strict(host, verdict, headers):
    assert judged(host, headers, allowed=["models.example", "*.trusted.example"]) == verdict


def test_over_loopback_ollamas_rule_holds_and_listed_names_join_it():
    assert judged("evil.example", PROGRAM, local=True) == "refused"
    assert judged("models.example", BROWSER, allowed=["models.example"], local=True) == "name"
    assert judged("127.0.0.1", BROWSER, local=True) != "refused"
