import pytest
from aiohttp.test_utils import make_mocked_request

from puna_rest.errors import Failure
from puna_rest.table import TABLE


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", '{"error":"no"}'),
        ("/v1/models", '{"error":{"message":"no","type":"not_found_error","param":null,"code":null}}'),
        ("/v1/responses", '{"error":{"message":"no","type":"not_found_error","param":null,"code":null}}'),
        ("/v1/messages", '{"type":"error","error":{"type":"not_found_error","message":"no"},"request_id":"req_'),
    ],
)
def test_each_family_of_routes_has_its_shape_of_errors(path, body):
    route, _ = TABLE.find(path)
    response = route.error(make_mocked_request("POST", path), Failure(404, "no"))
    assert response.status == 404
    assert response.body.decode().startswith(body)
