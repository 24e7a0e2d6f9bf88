import json

import grpc
import pytest

from puna_client.v1 import rank_pb2, usage_pb2

RESULTS = [
    rank_pb2.RerankResponse.Result(index=1, score=0.75),
    rank_pb2.RerankResponse.Result(index=0, score=-1.5),
]


async def asked(client, **body):
    async with client.post("/v1/rerank", data=json.dumps({"model": "m", "query": "q", **body})) as response:
        return response.status, json.loads(await response.text())


@pytest.fixture
def ranked(core):
    core.script("Rerank", rank_pb2.RerankResponse(results=RESULTS, usage=usage_pb2.Usage(prompt_tokens=9)))


async def test_documents_as_texts_and_objects(core, client, ranked):
    assert await asked(client, documents=["a", {"text": "b", "title": "x"}], top_n=2) == (
        200,
        {
            "object": "list",
            "model": "m",
            "results": [{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": -1.5}],
            "usage": {"prompt_tokens": 9, "total_tokens": 9},
        },
    )
    (request,) = core.requests
    assert (request.model, request.query, list(request.documents), request.top_n) == ("m", "q", ["a", "b"], 2)
    assert request.truncate


async def test_documents_come_back_if_asked_for(client, ranked):
    _, answer = await asked(client, documents=["a", {"text": "b"}], return_documents=True)
    assert [each["document"] for each in answer["results"]] == [{"text": "b"}, {"text": "a"}]


async def test_all_documents_are_ranked_by_default(core, client, ranked):
    await asked(client, documents=["a", "b"])
    assert core.requests[0].top_n == 0


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"documents": ["a"], "model": ""}, "model is required"),
        ({"documents": ["a"], "query": ""}, "query is required"),
        ({"documents": []}, "documents is required"),
        ({}, "documents is required"),
        ({"documents": ["a"], "top_n": 0}, "top_n must be at least 1"),
        ({"documents": ["a"], "top_n": -3}, "top_n must be at least 1"),
        ({"documents": ["a", 5]}, "cannot unmarshal number"),
        ({"documents": "a"}, "cannot unmarshal string"),
        ({"documents": [{"text": []}]}, "cannot unmarshal array"),
    ],
)
async def test_bodies_that_are_refused(core, client, body, text):
    status, answer = await asked(client, **body)
    assert status == 400
    assert text in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
    assert core.requests == []


async def test_a_model_that_does_not_rank(core, client, fail):
    core.script("Rerank", fail(grpc.StatusCode.UNIMPLEMENTED, "RANKING_UNSUPPORTED", "no"))
    status, answer = await asked(client, documents=["a"])
    assert (status, answer["error"]["message"]) == (501, "no")
