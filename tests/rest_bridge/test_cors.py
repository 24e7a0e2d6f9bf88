import pytest

from puna_rest.cors import BadOriginError, policy


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ((), "http://localhost:1234", True),
        ((), "https://my.site", False),
        (("https://my.site",), "https://my.site", True),
        ((" HTTPS://My.Site ",), "https://my.site", True),
        (("https://*.site",), "https://my.site", True),
        (("https://*.site",), "https://site", False),
        (("chrome-extension://abc",), "chrome-extension://abc", True),
        (("*",), "null", True),
    ],
)
def test_origins(origins, origin, allowed):
    assert policy(origins).allows(origin) is allowed


@pytest.mark.parametrize("origin", ["my.site", "*.*", "ftp://x"])
def test_a_bad_origin_is_refused_at_start(origin):
    with pytest.raises(BadOriginError):
        policy((origin,))
