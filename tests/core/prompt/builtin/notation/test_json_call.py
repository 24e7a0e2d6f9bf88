import pytest

from puna.errors import BackendFailedError
from puna.prompt.builtin.notation.json_call import read_call, read_named_call


def test_keys_count_in_any_case_and_the_last_one_counts() -> None:
    assert read_call('{"NAME": "a", "Arguments": {"n": 1}, "name": "b"}', []) == ("b", {"n": 1.0})


def test_null_changes_nothing_except_arguments() -> None:
    assert read_call('{"name": "a", "name": null, "arguments": {"n": 1}, "arguments": null}', []) == ("a", {})
    assert read_call("null", []) == ("", {})


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ("[1]", "json: cannot unmarshal array into Go value of type api.ToolCallFunction"),
        ('{"name": 1}', "json: cannot unmarshal number into Go struct field ToolCallFunction.name of type string"),
        ('{"index": 1.5}', "json: cannot unmarshal number 1.5 into Go struct field ToolCallFunction.index of type int"),
        ('{"name": 1, "arguments": []}', "Value looks like object, but can't find closing '}' symbol"),
        (
            '{"arguments": {"a": 1e999}}',
            "json: cannot unmarshal number 1e999 into Go struct field ToolCallFunction.arguments of type float64",
        ),
    ],
)
def test_errors_have_go_s_words(raw: str, error: str) -> None:
    with pytest.raises(BackendFailedError) as caught:
        read_call(raw, [])
    assert str(caught.value) == error


def test_a_named_call_needs_a_name_and_prefixes_its_errors() -> None:
    assert read_named_call(' {"name": "a"}\n', []) == ("a", {})
    with pytest.raises(BackendFailedError, match=r"^empty function name$"):
        read_named_call("{}", [])
    with pytest.raises(BackendFailedError, match=r"^failed to parse JSON: unexpected end of JSON input$"):
        read_named_call("{", [])
