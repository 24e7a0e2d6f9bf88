import json

import grpc
import pytest

from puna_client.v1 import generate_pb2, rank_pb2, tokenize_pb2, usage_pb2


def entry(text, token, logprob, *top):
    return usage_pb2.TokenLogprob(text=text, raw=text.encode(), token_id=token, logprob=logprob, top=top)


BEST = entry("b", 6, -0.25)
FINISH = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_LENGTH, usage=usage_pb2.Usage(output_tokens=1))


@pytest.fixture
def scored(core):
    core.script("Tokenize", tokenize_pb2.TokenizeResponse(token_ids=[1, 5, 6]))
    core.script("Detokenize", tokenize_pb2.DetokenizeResponse(text="<s>", raw=b"<s>"))
    result = rank_pb2.ScoreResponse.Result(
        tokens=[entry("é", 5, -1.5, BEST), entry(" x", 6, -0.5, entry(" x", 6, -0.5))]
    )
    core.script("Score", rank_pb2.ScoreResponse(results=[result]))
    core.script("Generate", generate_pb2.GenerateResponse(text="!", logprobs=[entry("!", 7, -0.125)], finish=FINISH))


async def asked(client, **body):
    body = {"model": "m", "prompt": "é x", "echo": True, "logprobs": 1, "max_tokens": 1} | body
    async with client.post("/v1/completions", data=json.dumps(body)) as response:
        return response.status, json.loads(await response.text())


async def test_a_prompt_comes_back_with_its_log_probabilities(core, client, scored):
    status, answer = await asked(client, temperature=0)
    assert status == 200
    assert answer["choices"] == [
        {
            "text": "é x!",
            "index": 0,
            "logprobs": {
                "tokens": ["<s>", "é", " x", "!"],
                "token_logprobs": [None, -1.5, -0.5, -0.125],
                "top_logprobs": [None, {"b": -0.25, "é": -1.5}, {" x": -0.5}, {"!": -0.125}],
                "text_offset": [0, 0, 1, 3],
            },
            "finish_reason": "length",
        }
    ]
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 1
    tokenized, score, generate, first = core.requests
    assert (tokenized.text, list(first.token_ids)) == ("é x", [1])
    assert score.WhichOneof("context") == "token_ids"
    assert [list(each.token_ids.ids) for each in score.continuations] == [[1, 5, 6]]
    assert (score.options.logprobs, score.options.top_logprobs) == (True, 1)
    assert (list(generate.token_ids.ids), generate.raw, generate.options.top_logprobs) == ([1, 5, 6], True, 1)
    assert json.loads(generate.options.options_json)["num_predict"] == 1


async def test_without_further_tokens_nothing_is_generated(core, client, scored):
    _, answer = await asked(client, max_tokens=0, logprobs=0)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"], len(choice["logprobs"]["tokens"])) == ("é x", "length", 3)
    assert [type(each) for each in core.requests].count(generate_pb2.GenerateRequest) == 0


async def test_several_prompts_of_token_ids(core, client, scored):
    core.script("Detokenize", tokenize_pb2.DetokenizeResponse(text="é x", raw="é x".encode()))
    core.script("Score", rank_pb2.ScoreResponse(results=[rank_pb2.ScoreResponse.Result()] * 2))
    _, answer = await asked(client, prompt=[[1, 5], [7]], max_tokens=0)
    assert [each["index"] for each in answer["choices"]] == [0, 1]
    assert answer["usage"]["prompt_tokens"] == 3
    score = next(each for each in core.requests if isinstance(each, rank_pb2.ScoreRequest))
    assert [list(each.token_ids.ids) for each in score.continuations] == [[1, 5], [7]]


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], "a", [[1], [2]], ["a", [2]]])
async def test_forms_of_prompts(core, client, scored, prompt):
    count = 1 if prompt in ("a", [1, 2]) else 2
    core.script("Score", rank_pb2.ScoreResponse(results=[rank_pb2.ScoreResponse.Result()] * count))
    status, answer = await asked(client, prompt=prompt)
    assert (status, len(answer["choices"])) == (200, count)


@pytest.mark.parametrize("prompt", ["", [], [[]], [""], [1, "a"], {"a": 1}, 5, None, [[1, "a"]], [1.5], [-1], [2**40]])
async def test_prompts_that_are_refused(core, client, prompt):
    status, answer = await asked(client, prompt=prompt)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert "prompt" in answer["error"]["message"]
    assert core.requests == []


@pytest.mark.parametrize("fields", [{"echo": False}, {"logprobs": None}, {"stream": True}])
async def test_otherwise_a_completion_is_ollamas(core, client, fields):
    core.script("Generate", generate_pb2.GenerateResponse(text="!", finish=FINISH))
    core.script("StreamGenerate", generate_pb2.StreamGenerateResponse(done=generate_pb2.GenerateDone(finish=FINISH)))
    body = {"model": "m", "prompt": "a", "echo": True, "logprobs": 1} | fields
    async with client.post("/v1/completions", data=json.dumps(body)) as response:
        assert '"logprobs"' not in await response.text()
    (request,) = core.requests
    assert (request.text, request.raw) == ("a", False)
    status, answer = await asked(client, prompt=["a"], **fields)
    assert (status, "cannot unmarshal array" in answer["error"]["message"]) == (400, True)


async def test_an_error_of_the_core(core, client, scored, fail):
    core.script("Score", fail(grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED_OPERATION", "no"))
    status, answer = await asked(client)
    assert (status, answer["error"]["message"]) == (501, "no")
