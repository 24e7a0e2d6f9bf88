import pytest

from puna.go.printing import plain, syntax


@pytest.mark.parametrize(
    ("value", "shown", "written"),
    [
        (None, "<nil>", "<nil>"),
        (True, "true", "true"),
        ("a b", "a b", '"a b"'),
        (3, "3", "3"),
        (0.5, "0.5", "0.5"),
        (1e21, "1e+21", "1e+21"),
        ([], "[]", "[]interface {}{}"),
        ([1, None, "x"], "[1 <nil> x]", '[]interface {}{1, interface {}(nil), "x"}'),
        (
            {"b": [False], "a": {}},
            "map[a:map[] b:[false]]",
            'map[string]interface {}{"a":map[string]interface {}{}, "b":[]interface {}{false}}',
        ),
    ],
)
def test_json_values_print_as_go_prints_them(value, shown, written):
    assert plain(value) == shown
    assert syntax(value) == written


@pytest.mark.parametrize("form", [plain, syntax])
def test_other_objects_are_refused_by_the_name_of_their_type(form):
    with pytest.raises(TypeError, match=r"^bytes is no JSON value$"):
        form([b""])
