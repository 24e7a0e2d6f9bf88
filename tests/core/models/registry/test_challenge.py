import pytest

from puna.models.registry import challenge
from puna.models.registry.challenge import Challenge

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"'


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([HUB], [Challenge("bearer", "https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull")]),
        (['Basic realm="here"'], [Challenge("basic", "here")]),
        (["Basic"], [Challenge("basic")]),
        (['Basic realm=here, Bearer realm="a"'], [Challenge("basic", "here"), Challenge("bearer", "a")]),
        (["Basic realm=here", 'BEARER Realm="a"'], [Challenge("basic", "here"), Challenge("bearer", "a")]),
        (['Bearer realm="a\\"b" , service = "c"'], [Challenge("bearer", 'a"b', "c")]),
        ([""], []),
        ([], []),
    ],
)
def test_reading(headers, found):
    assert list(challenge.parse(headers)) == found


def test_the_address_of_a_token_has_its_keys_in_order():
    asked = Challenge("bearer", "https://a/t?x=1", "s", "repository:a/b:pull,push repository:c:pull")
    assert challenge.token_url(asked, [("ts", "1"), ("nonce", "n")]) == (
        "https://a/t?nonce=n&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull&service=s&ts=1&x=1"
    )


def test_the_host_of_the_realm():
    assert challenge.parse([HUB])[0].host == "auth.docker.io"
