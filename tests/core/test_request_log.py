import asyncio
import logging

import pytest

from puna.request_log import FORMAT, RequestIdFilter, grpc_call, http_request, http_route, without_request

log = logging.getLogger("puna.somewhere")


@pytest.fixture
def lines(caplog):
    """What has been logged, formatted as in a server."""
    caplog.set_level(logging.DEBUG)
    filtering, formatter = RequestIdFilter(), logging.Formatter(FORMAT.removeprefix("%(asctime)s "))
    caplog.handler.addFilter(filtering)
    yield lambda: [formatter.format(record) for record in caplog.records]
    caplog.handler.removeFilter(filtering)


def test_a_line_outside_a_request_has_no_id(lines):
    log.info("hello")
    assert lines() == ["INFO puna.somewhere: hello"]


def test_a_call_within_an_http_request_has_both_ids(lines):
    with http_request("POST", "/api/chat") as ended:
        with grpc_call("r7", "StreamChat", "m"):
            log.info("hello")
        ended(200)
    begins, call_begins, hello, call_ends, ends = lines()
    outer = hello.partition("[")[2].partition("/")[0]
    assert hello == f"INFO puna.somewhere: [{outer}/r7] hello"
    assert begins == f"DEBUG puna.requests: [{outer}] POST /api/chat begins"
    assert call_begins == f"DEBUG puna.requests: [{outer}/r7] StreamChat 'm' begins"
    assert call_ends.startswith(f"DEBUG puna.requests: [{outer}/r7] StreamChat 'm' ends after ")
    assert ends.startswith(f"DEBUG puna.requests: [{outer}] POST /api/chat ends after ")
    assert ends.endswith(" s with status 200")


def test_an_error_is_named_by_its_kind_and_not_its_text(lines):
    with pytest.raises(ValueError, match="a prompt"), grpc_call("r1", "Generate", ""):
        raise ValueError("a prompt")
    assert "ends by ValueError" in lines()[-1]
    assert "a prompt" not in "".join(lines())


def test_the_name_of_a_model_cannot_forge_a_line(lines):
    with grpc_call("r1", "Generate", "m\n2026 INFO puna: [r2] forged" + "x" * 1000):
        pass
    assert all("\n" not in line and len(line) < 300 for line in lines())


async def test_a_task_inherits_the_id_unless_it_outlives_the_request(lines):
    async def say():
        log.info("hello")

    with grpc_call("r1", "Generate", "m"):
        await asyncio.create_task(say())
        await asyncio.create_task(say(), context=without_request())
    hellos = [line for line in lines() if "hello" in line]
    assert hellos == ["INFO puna.somewhere: [r1] hello", "INFO puna.somewhere: hello"]


async def test_a_call_within_an_http_request_knows_its_route():
    async def call():
        return http_route()

    async def handler():
        with http_request("POST", "/api/chat"):
            return await asyncio.create_task(call())

    assert await asyncio.create_task(handler()) == "POST /api/chat"
    assert http_route() == ""
