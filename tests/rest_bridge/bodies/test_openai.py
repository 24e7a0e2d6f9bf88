import pytest
from tests.rest_bridge.decoding import decoded

from puna.go.json_scanner import BodyError
from puna_rest.bodies import openai


@pytest.mark.parametrize("value", ['"auto"', "3", '{"type": "function"}', "[]", "null"])
@pytest.mark.parametrize("field", ["tool_choice", "max_completion_tokens"])
def test_fields_that_ollama_ignores_take_any_value(field, value):
    assert decoded(openai.CHAT_COMPLETION, f'{{"{field}": {value}}}')[1][field] == value


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        (
            openai.CHAT_COMPLETION,
            '{"seed": 1.5}',
            "number 1.5 into Go struct field ChatCompletionRequest.seed of type int",
        ),
        (
            openai.CHAT_COMPLETION,
            '{"messages": [{"tool_calls": [{"function": {"name": 3}}]}]}',
            "number into Go struct field .messages.tool_calls.function.name of type string",
        ),
        (
            openai.CHAT_COMPLETION,
            '{"stream_options": {"include_usage": "a"}}',
            "string into Go struct field StreamOptions.stream_options.include_usage of type bool",
        ),
        (
            openai.COMPLETION,
            '{"temperature": 1e39}',
            "number 1e39 into Go struct field CompletionRequest.temperature of type float32",
        ),
        (openai.EMBEDDINGS, '{"model": 3}', "number into Go struct field EmbedRequest.model of type string"),
    ],
)
def test_mismatches(kind, text, error):
    with pytest.raises(BodyError) as caught:
        decoded(kind, text)
    assert str(caught.value) == f"json: cannot unmarshal {error}"


def test_absent_numbers_are_told_from_zeros():
    empty = decoded(openai.CHAT_COMPLETION, "{}")[1]
    assert (empty["temperature"], empty["max_tokens"], empty["top_logprobs"]) == (None, None, 0)
    assert decoded(openai.CHAT_COMPLETION, '{"temperature": 0}')[1]["temperature"] == 0
    assert decoded(openai.COMPLETION, "{}")[1]["top_p"] == 0
