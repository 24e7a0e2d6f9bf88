import pytest

from puna.prompt.jinja.bare_keys import read_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{city:<|"|>Oslo, "N"<|"|>,days:2}', {"city": 'Oslo, "N"', "days": 2.0}),
        ('{ a : [1, -2.5e3, true, null] , <|"|>b<|"|>: {} }', {"a": [1.0, -2500.0, True, None], "b": {}}),
        ("{}", {}),
        ("[1,]", [1.0]),
    ],
)
def test_values_have_bare_keys_and_texts_between_special_quotes(text, value):
    assert read_value(text + "rest", 0) == (value, len(text))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{a:<|"|>x}', "substring not found"),
        ("{a}", "no key"),
        ("{a:1 b:2}", "no end of an object"),
        ("[1 2]", "no end of a list"),
        ("word", "no value"),
        ("{a:1", "no end of an object"),
    ],
)
def test_other_texts_are_refused(text, error):
    with pytest.raises(ValueError, match=error):
        read_value(text, 0)
