import pytest

from puna.models.registry.client import joined
from puna.models.registry.reach import proxy_for


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2/x?_state=a%2Fb%3D", "http://r:5000/v2/x?_state=a%2Fb%3D"),
        ("https://storage/x?Signature=a%2Fb%2Bc&y=%20", "https://storage/x?Signature=a%2Fb%2Bc&y=%20"),
        ("other", "http://r:5000/v2/m/other"),
        ("?digest=1", "http://r:5000/v2/m/blobs?digest=1"),
    ],
)
def test_signed_addresses_stay_as_they_are(location, target):
    assert joined("http://r:5000/v2/m/blobs", location) == target


def test_proxies_of_the_environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("https://r/") is None
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("https://r/") == "http://proxy:3128"
    assert proxy_for("http://r/") is None
    for near in ("https://localhost:5000/", "https://127.0.0.1:5000/", "https://[::1]/", "https://a.inside.example/"):
        assert proxy_for(near) is None
