import pytest
from tests.core.test_request_lines import ANSWER

from puna import events
from puna.auth.permissions import Permission, needed
from puna.serving.requests import ChatRequest, EmbedRequest, OutputConstraint, RequestOptions
from puna.tracing import attributes


def began(**values):
    given = {"id": "r1", "model": "m", "method": "Chat", "key": "", "batch": "", "start_ns": 1}
    return events.RequestBegan(**given | values)


def test_every_method_that_runs_a_model_is_an_operation():
    running = {
        method
        for method, service in attributes.SERVICES.items()
        if needed(f"/{service}/{method}") is Permission.INFERENCE
    }
    # A load and an estimate ask nothing of the model.
    assert running - {"LoadModel", "EstimateModel"} == attributes.OPERATIONS.keys()


def test_a_name_is_bounded_and_has_no_end_without_a_model():
    assert attributes.name(began(model="m" * 1000)) == "chat " + "m" * 100
    assert attributes.name(began(model="")) == "chat"
    assert attributes.of_beginning(began(model="m" * 1000))["gen_ai.request.model"] == "m" * 100


@pytest.mark.parametrize("value", ["0.5", True, None, [1], {"a": 1}])
def test_a_parameter_of_another_type_is_left_out(value):
    request = ChatRequest(model="m", options=RequestOptions(values={"temperature": value, "seed": value}))
    assert attributes.of_request(request) == {"gen_ai.output.type": "text"}


def test_parameters_have_the_types_of_the_conventions():
    values = {"top_k": 40, "num_predict": 7.9, "seed": 1 << 80, "num_ctx": 100}
    constraint = OutputConstraint("json_schema", "{}")
    request = ChatRequest(model="m", options=RequestOptions(values=values, constraint=constraint))
    found = attributes.of_request(request)
    assert found == {
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.seed": (1 << 63) - 1,
        "gen_ai.output.type": "json",
    }
    assert isinstance(found["gen_ai.request.top_k"], float)
    assert attributes.of_request(EmbedRequest(model="m", inputs=("a", "b"))) == {"puna.inputs": 2}


def test_an_end_has_the_counts_that_are_not_zero():
    assert attributes.of_end(ANSWER) == {
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.output_tokens": 3,
    }
