import base64

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from puna.errors import InvalidRequestError
from puna.paging import read_pages
from puna.rpc.pages import DEFAULT_PAGE, page
from puna_client.v1 import models_pb2, server_pb2

MANY = [(-n // 3, f"m{n}") for n in range(250)]


def asked(size=0, token="", items=MANY, selection=("List", "")):
    request = models_pb2.ListModelsRequest(page_size=size, page_token=token)
    return page(items, lambda each: each, request, selection)


def test_pages_together_are_the_whole_list_in_order():
    found, token = asked(40)
    sizes = [len(found)]
    while token:
        some, token = asked(40, token)
        found, sizes = found + some, [*sizes, len(some)]
    assert found == sorted(MANY)
    assert sizes == [40] * 6 + [10]


def test_the_last_page_has_no_token_even_if_it_is_full():
    assert asked(250)[1] == ""
    assert asked(249)[1] != ""
    assert page([], lambda each: each, models_pb2.ListModelsRequest(), ["List"]) == ([], "")


@pytest.mark.parametrize(("size", "length"), [(0, DEFAULT_PAGE), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_sizes(size, length):
    assert len(asked(size, items=[(n,) for n in range(3000)])[0]) == length


def test_items_that_come_and_go_between_pages_hide_no_other():
    items = [(n, "") for n in range(10)]
    first, token = asked(5, items=items)
    # The item at which the first page ended is gone, one has come before it and one behind.
    changed = [*(each for each in items if each != (4, "")), (-1, ""), (7, "new")]
    second, _ = asked(10, token, items=changed)
    assert first + second == [*((n, "") for n in range(8)), (7, "new"), (8, ""), (9, "")]


def test_a_token_of_another_list_or_selection_is_refused():
    token = asked(1)[1]
    for selection in (("Other", ""), ("List", "filter")):
        with pytest.raises(InvalidRequestError):
            asked(1, token, selection=selection)


def test_a_token_does_not_show_what_it_is():
    assert not asked(1)[1].isdecimal()
    assert "m249" not in asked(1)[1]


VALID = asked(1)[1]
OTHERS = base64.urlsafe_b64encode(b"1234567[0]").decode()


@pytest.mark.parametrize(
    "token", ["x", "é", "1", "=", VALID[:-1], VALID + "A", VALID[1:], "A" + VALID[1:], "A" * 100_000, OTHERS, "\0"]
)
def test_a_bad_token_names_its_field(token):
    with pytest.raises(InvalidRequestError) as raised:
        asked(1, token)
    assert raised.value.info["field"] == "page_token"


def test_a_negative_size_names_its_field():
    with pytest.raises(InvalidRequestError) as raised:
        asked(-1)
    assert raised.value.info["field"] == "page_size"


async def test_all_pages_are_read_as_one_answer():
    names = [f"m{n:04}" for n in range(2500)]
    calls = []

    async def method(request):
        calls.append(request.page_size)
        found, token = page(names, lambda each: (each,), request, ["List"])
        return models_pb2.ListModelsResponse(
            models=[models_pb2.Model(name=each) for each in found], next_page_token=token
        )

    answer = await read_pages(method, models_pb2.ListModelsRequest())
    assert [each.name for each in answer.models] == names
    assert (answer.next_page_token, calls) == ("", [1000] * 3)


LISTS = {
    "ListModels": ("models", models_pb2.ListModelsRequest),
    "ListLoadedModels": ("models", models_pb2.ListLoadedModelsRequest),
    "ListRequests": ("server", server_pb2.ListRequestsRequest),
    "ListUsage": ("server", server_pb2.ListUsageRequest),
}


async def test_models_come_in_pages(stubs):
    whole = (await stubs.models.ListModels(models_pb2.ListModelsRequest())).models
    assert len(whole) > 2
    found, request = [], models_pb2.ListModelsRequest(page_size=1)
    while True:
        answer = await stubs.models.ListModels(request)
        found += answer.models
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
        assert len(answer.models) == 1
    assert found == list(whole)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(("field", "value"), [("page_size", -1), ("page_token", "bad")])
async def test_each_list_refuses_bad_pages(stubs, name, field, value):
    service, request = LISTS[name]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(getattr(stubs, service), name)(request(**{field: value}))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    found = BadRequest()
    assert status.details[1].Unpack(found)
    assert found.field_violations[0].field == field
