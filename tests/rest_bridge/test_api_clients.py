import pytest

from puna_client.v1 import chat_pb2, usage_pb2

MESSAGES = [{"role": "user", "content": "a"}]
ROUTES = [
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9, "tools": [{"name": "f"}]}),
    ("/v1/responses", {"input": "a", "tools": [{"type": "function", "name": "f"}]}),
]
SEARCHES = {"/v1/messages": {"type": "web_search_20250305"}, "/v1/responses": {"type": "web_search"}}
DONE = chat_pb2.ChatDone(finish=usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_STOP))


async def asks_for_deltas(core, client, path, body, headers):
    core.script("StreamChat", chat_pb2.StreamChatResponse(done=DONE))
    async with client.post(path, json={"model": "m", "stream": True, **body}, headers=headers) as response:
        assert response.status == 200
        await response.text()
    return core.requests[-1].tool_call_deltas


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=[path for path, _ in ROUTES])
async def test_clients_of_other_apis_get_arguments_in_parts_and_others_ollamas_bytes(core, client, path, body):
    for headers in ({"Authorization": "Bearer x"}, {"anthropic-version": "2023-06-01"}, {"x-api-key": "x"}):
        assert await asks_for_deltas(core, client, path, body, headers)
    assert not await asks_for_deltas(core, client, path, body, {})
    without = {name: value for name, value in body.items() if name != "tools"}
    assert not await asks_for_deltas(core, client, path, without, {"x-api-key": "x"})


@pytest.mark.parametrize(("path", "tool"), SEARCHES.items())
async def test_a_call_of_the_built_in_search_has_no_parts(core, client, path, tool):
    body = {**dict(ROUTES)[path], "tools": [{"name": "web_search", **tool}]}
    assert not await asks_for_deltas(core, client, path, body, {"x-api-key": "x"})


async def test_ollamas_own_routes_have_complete_calls(core, client):
    headers = {"Authorization": "Bearer x"}
    assert not await asks_for_deltas(core, client, "/api/chat", {"messages": MESSAGES}, headers)
