import pytest

from puna_rest.translate.messages import go_arguments


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", "{}"),
        ("{}", "{}"),
        ('{"z": 1.0, "a": {"y": 1, "b": [2.50, null, true]}}', '{"z":1,"a":{"b":[2.5,null,true],"y":1}}'),
        ('{"big": 9007199254740993, "huge": 1e30}', '{"big":9007199254740992,"huge":1e+30}'),
        ('{"a": 1, "a": 2}', '{"a":2}'),
        ('{"<": "\\u2028é"}', '{"\\u003c":"\\u2028é"}'),
    ],
)
def test_arguments_keep_their_order_at_the_top_and_sort_below(text, written):
    assert go_arguments(text) == written
