import re
from importlib import resources

import aiohttp
import pytest

from puna_rest.app import bridging
from puna_rest.dashboard import assets
from puna_rest.table import TABLE, served

STATIC = resources.files("puna_rest.dashboard") / "static"


@pytest.fixture
async def dashboard():
    """A client of a bridge with the dashboard, in front of no core."""
    async with (
        bridging("127.0.0.1:1", host="127.0.0.1", port=0, dashboard=True) as url,
        aiohttp.ClientSession(url) as client,
    ):
        yield client


def paths():
    return [route.path for route in assets.routes()]


async def test_each_file_is_served_with_its_type_and_the_policy(dashboard):
    assert "/dashboard/pages/models.js" in paths()
    for path in paths():
        async with dashboard.get(path) as answer:
            assert answer.status == 200
            content = await answer.read()
            name = answer.url.path.removeprefix("/dashboard/") or "index.html"
            assert content == (STATIC / name).read_bytes()
            assert answer.headers["Content-Type"] == assets.TYPES[f".{name.rpartition('.')[2]}"]
            assert answer.headers["Content-Security-Policy"] == assets.POLICY
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_browser_that_has_a_file_gets_it_once(dashboard):
    async with dashboard.get("/dashboard/style.css") as answer:
        tag = answer.headers["ETag"]
    async with dashboard.get("/dashboard/style.css", headers={"If-None-Match": f'"other", W/{tag}'}) as answer:
        assert (answer.status, answer.headers["ETag"], await answer.read()) == (304, tag, b"")
    async with dashboard.get("/dashboard/style.css", headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "path", ["/dashboard/nosuch.js", "/dashboard/../table.py", "/dashboard/%2e%2e/assets.py", "/dashboard/pages/"]
)
async def test_other_paths_name_nothing(dashboard, path):
    async with dashboard.get(path) as answer:
        assert answer.status == 404


async def test_the_address_without_a_slash_redirects_by_a_relative_address(dashboard):
    async with dashboard.get("/dashboard", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (308, "dashboard/")


async def test_files_can_only_be_read(dashboard):
    async with dashboard.post("/dashboard/") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "HEAD, GET")


def test_without_the_setting_there_is_no_dashboard_and_no_route_changes():
    for path in paths():
        assert served(metrics=False, dashboard=False).find(path)[0] is None
        assert TABLE.find(path)[0] is None


def test_modules_and_pages_name_files_that_exist():
    """Imports are relative, and nothing names another host."""
    files = {path.removeprefix("/dashboard/") for path in paths()}
    for name in files:
        if not name.endswith((".js", ".css")) and name:
            continue
        text = (STATIC / (name or "index.html")).read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        folder = name.rpartition("/")[0]
        for target in re.findall(r'(?:from |import\(|href=|src=)"([^"#]+\.\w+)"', text):
            parts = [*folder.split("/")] if folder else []
            for part in target.split("/"):
                if part == "..":
                    parts.pop()
                elif part != ".":
                    parts.append(part)
            assert "/".join(parts) in files, (name, target)
