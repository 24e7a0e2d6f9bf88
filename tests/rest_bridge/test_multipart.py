import asyncio

import pytest
from tests.rest_bridge.routes.test_files import FILE, form, post

from puna_rest import multipart


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--B",
        b"no form at all",
        b"--B\r\n",
        b"--B\r\n\r\nx",
        b"--B--\r\n",
        form(purpose="batch")[:-20],
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nno end',
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--Bx\r\n',
        b"--B\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\nx\r\n--C--\r\n--B--\r\n",
        b"--B\r\n" + b"x: y\r\n" * 100_000,
    ],
)
@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader")
async def test_a_malformed_form_is_refused(core, client, body):
    core.script("CreateFile", FILE)
    async with asyncio.timeout(10):
        assert (await post(client, body))[0] == 400


async def test_another_content_type_is_refused(client):
    async with client.post("/v1/files", json={"purpose": "batch"}) as response:
        assert response.status == 400


async def test_fields_and_parts_are_bounded(core, client):
    core.script("CreateFile", FILE)
    status, answer = await post(client, form(long="x" * (multipart.LONGEST_FIELD + 1), file=b"x", purpose="batch"))
    assert (status, "'long' has more than" in answer["error"]["message"]) == (400, True)
    many = {f"f{number}": "x" for number in range(multipart.MOST_PARTS + 1)}
    assert (await post(client, form(**many, file=b"x", purpose="batch")))[0] == 400


async def test_fields_may_stand_on_both_sides_of_the_file(core, client):
    core.script("CreateFile", FILE)
    for body in (form(purpose="batch", file=b"x"), form(file=b"x", purpose="batch")):
        assert (await post(client, body))[0] == 200


async def test_a_boundary_within_the_file_is_content(core, client):
    data = b".--B--\n--B\r--B\r\n-B--\r\n--\r\n" * 5_000
    core.script("CreateFile", FILE)
    assert (await post(client, form(purpose="batch", file=data)))[0] == 200
    # Not ==: a failure would print both.
    assert data.startswith(sent := b"".join(part.chunk for part in core.requests[0]))
    assert len(sent) == len(data)
