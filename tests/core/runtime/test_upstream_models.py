import asyncio
import logging
from types import SimpleNamespace

import pytest

from puna.backend import BackendError, UpstreamModel
from puna.runtime import upstream_models
from puna.runtime.upstream_models import Offer, UpstreamModels


class Upstream:
    """Plays a backend: each question gets the next answer, an error is raised, a number is waited for."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, backend):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return []
        if isinstance(answer, Exception):
            raise answer
        return [UpstreamModel(name=each) for each in answer]


@pytest.fixture
async def listing():
    made = []

    def listing(upstream, backends=("up",), wait_seconds=5.0, most=100):
        made.append(UpstreamModels(lambda: backends, upstream, wait_seconds=wait_seconds, most=most))
        return made[-1]

    yield listing
    for each in made:
        await each.aclose()


def names(offers):
    return [each.name for each in offers]


async def settle():
    """Let a question that the upstream answers at once come to its end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_models_have_the_name_of_their_backend(listing):
    found = await listing(Upstream(["a", "org/b", "c:7b", "org:x/d"])).all()
    assert names(found) == ["up/a:latest", "up/org/b:latest", "up/c:7b", "up/org:x/d:latest"]


async def test_a_backend_that_was_installed_meanwhile_is_listed():
    installed = []

    def find():
        installed[:] = ["new"]

    models = UpstreamModels(lambda: installed, Upstream(["a"]), wait_seconds=5.0, most=9, find_backends=find)
    assert names(await models.all()) == ["new/a:latest"]
    await models.aclose()


async def test_a_fresh_answer_is_used_again(listing):
    upstream = Upstream(["a"])
    models = listing(upstream)
    for _ in range(5):
        assert names(await models.all()) == ["up/a:latest"]
    assert upstream.asked == 1


async def test_an_old_answer_is_shown_while_the_next_is_on_its_way(listing, monkeypatch):
    upstream = Upstream(["a"], ["b"])
    models = listing(upstream)
    await models.all()
    monkeypatch.setattr(upstream_models, "FRESH_SECONDS", 0.0)
    assert names(await models.all()) == ["up/a:latest"]
    await settle()
    assert names(await models.all()) == ["up/b:latest"]


async def test_an_upstream_that_does_not_answer_delays_nobody_for_long(listing):
    models = listing(Upstream(60.0), wait_seconds=0.05)
    async with asyncio.timeout(5):
        assert await models.all() == []
        assert await models.find("up/a") is None


async def test_requests_at_once_ask_once(listing):
    upstream = Upstream(0.05, ["a"])
    models = listing(upstream)
    await asyncio.gather(*(models.all() for _ in range(20)))
    assert upstream.asked == 1


async def test_a_failure_keeps_the_last_answer_and_is_logged_once(listing, caplog, monkeypatch):
    monkeypatch.setattr(upstream_models, "FRESH_SECONDS", 0.0)
    caplog.set_level(logging.WARNING)
    down = BackendError("it is down")
    models = listing(Upstream(["a"], down, down, BackendError("it is odd"), ["b"]))
    seen = []
    for _ in range(6):
        seen += names(await models.all())
        await settle()
    assert seen == ["up/a:latest"] * 5 + ["up/b:latest"]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ["it is down", "it is odd"]


async def test_a_backend_that_fails_is_not_asked_by_each_request(listing):
    upstream = Upstream(BackendError("down"))
    models = listing(upstream)
    for _ in range(10):
        await models.all()
    assert upstream.asked == 1


async def test_find(listing):
    models = listing(Upstream(["Org/B", "org/b", "c:7b"]))
    for name, found in [
        ("up/org/b", "up/org/b:latest"),
        ("up/org/b:latest", "up/org/b:latest"),
        ("UP/org/b", None),
        ("up/ORG/B", "up/Org/B:latest"),
        ("up/c:7b", "up/c:7b"),
        ("up/c", None),
        ("other/c:7b", None),
        ("up", None),
        ("", None),
    ]:
        offer = await models.find(name)
        assert (offer and offer.name) == found, name


async def test_a_model_that_is_new_at_the_upstream_is_found(listing, monkeypatch):
    monkeypatch.setattr(upstream_models, "UNKNOWN_FRESH_SECONDS", 0.0)
    models = listing(Upstream(["a"], ["a", "b"]))
    await models.all()
    assert await models.find("up/b") == Offer("up", UpstreamModel(name="b"))


async def test_a_backend_that_was_removed_lists_nothing(listing):
    backends = ["up"]
    models = listing(Upstream(["a"]), backends)
    assert await models.all()
    backends.clear()
    assert await models.all() == []
    assert await models.find("up/a") is None


async def test_the_number_of_models_is_bounded(listing):
    assert len(await listing(Upstream([str(number) for number in range(50)]), most=7).all()) == 7


async def test_the_wait_is_counted_from_the_question(listing, monkeypatch):
    monkeypatch.setattr(upstream_models, "time", SimpleNamespace(monotonic=lambda: now))
    now = 1000.0
    models = listing(Upstream(60.0), wait_seconds=600.0)
    models.prefetch()
    now += 600.0
    async with asyncio.timeout(60):
        assert await models.all() == []


async def test_models_are_asked_for_ahead(listing):
    upstream = Upstream(["a"])
    models = listing(upstream)
    models.prefetch()
    await settle()
    assert (names(await models.all()), upstream.asked) == (["up/a:latest"], 1)
