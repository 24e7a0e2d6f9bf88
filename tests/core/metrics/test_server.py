import aiohttp
import pytest

from puna.auth.gate import Gate
from puna.auth.keys import KeyFile
from puna.metrics.collector import CONTENT_TYPE, Metrics
from puna.metrics.server import serving


@pytest.fixture
def metrics():
    found = Metrics(list, list)
    yield found
    found.close()


async def ask(url, **headers):
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_are_served(metrics):
    async with serving(metrics.text, "127.0.0.1:0") as url:
        status, kind, text = await ask(url)
        assert (await ask(url.removesuffix("metrics")))[0] == 404
    assert (status, kind) == (200, CONTENT_TYPE)
    assert "# TYPE puna:num_requests_running gauge" in text


async def test_with_keys_a_key_is_needed_that_may_read(metrics, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    _, text = keys.create(name="monitoring", allow=("read",))
    _, other = keys.create(name="shop", allow=("inference",))
    async with serving(metrics.text, "127.0.0.1:0", Gate(keys)) as url:
        assert (await ask(url))[0] == 401
        assert (await ask(url, Authorization="Bearer puna_no"))[0] == 401
        assert (await ask(url, Authorization=f"Bearer {text}"))[0] == 200
        assert (await ask(url, Authorization=f"Bearer {other}"))[0] == 403
