import subprocess
import sys

import pytest

from puna.plugins.option import read_options
from puna.plugins.table import Table


def option(**schema):
    declared, _ = read_options(Table({"properties": {"x": schema}}))
    return declared["x"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": "b"}),
        ({"type": "array", "items": {"type": "number"}, "maxItems": 2}, [1, 2.5]),
        ({"anyOf": [{"type": "integer"}, {"const": "auto"}]}, "auto"),
        ({"type": "string", "pattern": "^a+$"}, "aa"),
        ({}, None),
    ],
)
def test_every_kind_of_schema_accepts_what_fits(schema, value):
    assert option(**schema).check(value) == value


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": 1}, "['a'] must be a text"),
        ({"type": "array", "items": {"type": "integer"}}, [1, 2.0], "['1'] must be a whole number"),
        ({"type": "array", "maxItems": 1}, [1, 2], "must fit the keyword 'maxItems' of its schema"),
        ({"type": ["integer", "null"]}, "a", "must be a whole number or null"),
        ({"type": "string", "pattern": "^a+$"}, "secret", "must fit the keyword 'pattern' of its schema"),
        ({"type": "integer", "minimum": 1}, 0, "must be between 1 and inf"),
        ({"type": "number", "exclusiveMinimum": 0}, 0, "must fit the keyword 'exclusiveMinimum'"),
        ({"enum": [1, "a"]}, "secret", "must be one of 1, 'a'"),
    ],
)
def test_an_error_says_what_fits_and_never_the_value(schema, value, text):
    with pytest.raises(ValueError, match=r".") as caught:
        option(**schema).check(value)
    assert str(caught.value).startswith(text)
    assert "secret" not in str(caught.value)


def test_reading_manifests_does_not_import_the_library():
    """It takes as long to import as all of the server's own modules."""
    code = (
        "import sys; from puna.plugins import Registry; Registry.discover().describe(); "
        "print([m for m in sys.modules if m.partition('.')[0] in ('jsonschema', 'referencing', 'rpds')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
