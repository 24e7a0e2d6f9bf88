import pytest
from aiohttp.test_utils import make_mocked_request

from puna_rest import answers
from puna_rest.routing import Route, Table, not_allowed, not_found
from puna_rest.table import TABLE


async def handler(_request):
    return answers.empty()


ITEMS = Route("/items/{}", {"GET": handler, "POST": handler}, answers.native_error)
FIXED = Route("/items/fixed", {"GET": handler}, answers.native_error)
PARTS = Route("/items/{}/parts", {"GET": handler}, answers.native_error)
SMALL = Table([ITEMS, FIXED, PARTS])


def redirect(method, path, table=SMALL):
    response = table.redirect(make_mocked_request(method, path))
    return (response.status, response.headers["Location"]) if response is not None else None


@pytest.mark.parametrize(
    ("path", "route", "segment"),
    [
        ("/items/a b", ITEMS, "a b"),
        ("/items/fixed", FIXED, ""),
        ("/items/", None, ""),
        ("/items", None, "items"),
        ("/items/a/b", None, "b"),
        ("/items/a b/parts", PARTS, "a b"),
        ("/items//parts", None, "parts"),
        ("/items/a/b/parts", None, "parts"),
        ("/items/parts", ITEMS, "parts"),
        ("/other/a/parts", None, "parts"),
        ("/", None, ""),
        ("", None, ""),
    ],
)
def test_an_exact_path_wins_and_a_segment_is_never_empty(path, route, segment):
    assert SMALL.find(path) == (route, segment)


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/items/fixed", None),
        ("GET", "/items//a", (307, "/items/a")),
        ("GET", "/x/../items/a?q=1&r=%20", (307, "/items/a?q=1&r=%20")),
        ("POST", "//items/a", (307, "/items/a")),
        ("GET", "/items/a/", (301, "/items/a")),
        ("POST", "/items/a/?q=1", (307, "/items/a?q=1")),
        ("PUT", "/items/a/", None),
        ("GET", "/nothing/", None),
        ("GET", "/", None),
    ],
)
def test_redirects(method, path, found):
    assert redirect(method, path) == found


@pytest.mark.parametrize(("method", "body"), [("GET", True), ("HEAD", False), ("POST", False)])
def test_only_a_get_has_a_page_in_its_redirect(method, body):
    response = SMALL.redirect(make_mocked_request(method, '/items//a&"b'))
    text = (response.body or b"").decode()
    assert ('">Temporary Redirect</a>.\n\n' in text) is body
    assert ("&amp;" in text) is body
    assert ("Content-Type" in response.headers and response.headers["Content-Type"].startswith("text/html")) is (
        method != "POST"
    )


def test_refusals_are_plain_text():
    assert (not_found().status, not_found().body) == (404, b"404 page not found")
    assert (not_allowed().status, not_allowed().body) == (405, b"405 method not allowed")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/chat", ["POST"]),
        ("/api/tags", ["HEAD", "GET"]),
        ("/api/blobs/sha256:1", ["HEAD", "POST"]),
        ("/api/delete", ["DELETE"]),
        ("/v1/models/m", ["GET"]),
        ("/v1/messages", ["POST"]),
    ],
)
def test_the_bridge_s_own_table(path, methods):
    route, _ = TABLE.find(path)
    assert list(route.handlers) == methods
