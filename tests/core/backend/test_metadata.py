import asyncio

import pytest

from puna.backend.metadata import LONGEST, enter_request, request_metadata


async def test_a_task_has_the_metadata_of_the_task_that_made_it():
    async def seen():
        return dict(request_metadata())

    async def request(id_):
        enter_request({"x-request-id": id_})
        return await asyncio.create_task(seen())

    found = await asyncio.gather(*(asyncio.create_task(request(id_)) for id_ in "abc"))
    assert found == [{"x-request-id": id_} for id_ in "abc"]
    assert dict(request_metadata()) == {}


async def test_a_request_takes_nothing_from_the_one_before():
    enter_request({"traceparent": "00-1-2-01", "tracestate": "a=1"})
    enter_request({"x-request-id": "next"})
    assert dict(request_metadata()) == {"x-request-id": "next"}


@pytest.mark.parametrize("value", ["", "é", "a\nb", "x" * (LONGEST + 1), b"bytes", None, 7])
async def test_what_no_header_can_have_is_left_out(value):
    enter_request({"traceparent": value, "tracestate": "x" * LONGEST, "authorization": "secret"})
    assert dict(request_metadata()) == {"tracestate": "x" * LONGEST}
