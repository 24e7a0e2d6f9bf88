import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import generate_pb2, usage_pb2
from puna_rest.bodies import openai
from puna_rest.errors import RestError
from puna_rest.translate.openai import completions

FINISH = usage_pb2.Finish(
    reason=usage_pb2.FINISH_REASON_LENGTH, usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2)
)


def request(**body):
    return completions.request(*decoded(openai.COMPLETION, body), 0)


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({}, {"temperature": 1, "frequency_penalty": 0, "presence_penalty": 0, "top_p": 1}),
        ({"temperature": 0}, {"temperature": 0, "frequency_penalty": 0, "presence_penalty": 0, "top_p": 1}),
        (
            {"max_tokens": 0, "seed": 1, "stop": "a", "top_p": 0.5},
            {
                "stop": ["a"],
                "num_predict": 0,
                "temperature": 1,
                "seed": 1,
                "frequency_penalty": 0,
                "presence_penalty": 0,
                "top_p": 0.5,
            },
        ),
    ],
)
def test_options(body, options):
    assert json.loads(request(**body).options.options_json) == options


@pytest.mark.parametrize(
    ("stop", "kind"),
    [
        ([None], "<nil>"),
        (["a", True], "bool"),
        ([1], "float64"),
        ([["a"]], "[]interface {}"),
        ([{}], "map[string]interface {}"),
    ],
)
def test_a_stop_that_is_no_text_is_named_by_its_go_type(stop, kind):
    with pytest.raises(RestError) as caught:
        request(stop=stop)
    assert str(caught.value) == f"invalid type for 'stop' field: {kind}"


@pytest.mark.parametrize("stop", [None, [], 3, {}])
def test_other_stops_are_none(stop):
    assert "stop" not in json.loads(request(stop=stop).options.options_json)


@pytest.mark.parametrize(("given", "logprobs", "top"), [(None, False, 0), (0, False, 0), (3, True, 3), (-1, False, 0)])
def test_logprobs_is_a_number_here(given, logprobs, top):
    options = request(logprobs=given).options
    assert (options.logprobs, options.top_logprobs) == (logprobs, top)


def test_an_answer():
    found = completions.completion("m", generate_pb2.GenerateResponse(text="a", finish=FINISH))
    assert found["choices"] == [{"text": "a", "index": 0, "finish_reason": "length"}]
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream(include_usage):
    message = generate_pb2.StreamGenerateResponse(
        deltas=[generate_pb2.GenerateDelta(text="a"), generate_pb2.GenerateDelta(text="b")],
        done=generate_pb2.GenerateDone(completes_delta=True, finish=FINISH),
    )
    text = completions.Chunks("m", include_usage=include_usage).write(message)
    *data, end = [each.removeprefix("data: ") for each in text.strip().split("\n\n")]
    found = [json.loads(each) for each in data]
    assert end == "[DONE]"
    assert [each["choices"][0]["text"] for each in found if each["choices"]] == ["a", "b"]
    assert [each["choices"][0]["finish_reason"] for each in found if each["choices"]] == [None, "length"]
    totals = [each["usage"]["total_tokens"] for each in found if "usage" in each]
    assert totals == ([0, 0, 5] if include_usage else [])


def test_a_rendered_prompt_has_no_end_mark():
    done = generate_pb2.GenerateDone(rendered=usage_pb2.RenderedPrompt(text="p"))
    text = completions.Chunks("m", include_usage=True).write(generate_pb2.StreamGenerateResponse(done=done))
    assert "[DONE]" not in text
    assert json.loads(text.removeprefix("data: "))["choices"][0]["finish_reason"] is None
