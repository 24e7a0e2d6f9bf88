import pytest


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "answer"),
    [
        ("GET", "/api/status", "", 200, '{"cloud":{"disabled":true,"source":"env"}}'),
        ("GET", "/api/experimental/model-recommendations", "", 200, '{"recommendations":[]}'),
        ("POST", "/api/me", "", 503, '{"error":"account unavailable"}'),
        ("POST", "/api/signout", "", 500, '{"error":"there was an error signing out"}'),
        ("DELETE", "/api/user/keys/k", "", 500, '{"error":"there was an error signing out"}'),
        ("POST", "/api/experimental/web_search", " ", 400, '{"error":"missing request body"}'),
        (
            "POST",
            "/api/experimental/web_search",
            "{}",
            403,
            '{"error":"ollama cloud is disabled: web search is unavailable"}',
        ),
        (
            "POST",
            "/api/experimental/web_fetch",
            "{}",
            403,
            '{"error":"ollama cloud is disabled: web fetch is unavailable"}',
        ),
    ],
)
async def test_answers_are_those_of_a_cloud_that_is_switched_off(client, method, path, body, status, answer):
    async with client.request(method, path, data=body) as response:
        assert (response.status, await response.text()) == (status, answer)
