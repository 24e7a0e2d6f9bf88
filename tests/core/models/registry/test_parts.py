import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.models.registry import parts
from puna.models.registry.limits import Limits
from puna.models.registry.parts import Part

MB = 1_000_000


@pytest.mark.parametrize(
    ("total", "count", "size"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (100 * MB, 1, 100 * MB),
        (100 * MB + 1, 2, 100 * MB),
        (1600 * MB, 16, 100 * MB),
        (16000 * MB, 16, 1000 * MB),
        (40000 * MB, 40, 1000 * MB),
    ],
)
def test_the_plan_is_the_references(total, count, size):
    planned = parts.plan(total, Limits())
    assert (len(planned), planned[0].size if planned else 0) == (count, size)


@settings(deadline=None)
@given(st.integers(0, 10**12))
def test_a_plan_covers_the_blob(total):
    planned = parts.plan(total, Limits())
    assert parts.whole(planned) == planned
    assert parts.total(planned) == total


def test_a_state_file_is_the_references_to_the_byte():
    text = b'{"N":0,"Offset":0,"Size":510784,"Completed":0}\n'
    assert parts.dumps(Part(0, 0, 510784)) == text
    assert parts.loads(text) == Part(0, 0, 510784)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"N":-1}', '{"N":"0"}', '{"N":0,"Offset":0,"Size":1,"Completed":2}'])
def test_a_state_file_that_makes_no_sense(text):
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds of it
        parts.loads(text.encode())


@pytest.mark.parametrize(
    "found",
    [
        [Part(1, 0, 5)],
        [Part(0, 0, 5), Part(2, 5, 5)],
        [Part(0, 0, 5), Part(1, 6, 5)],
        [Part(0, 0, 5), Part(0, 0, 5)],
        [Part(0, 0, 0)],
    ],
)
def test_parts_with_gaps_are_none(found):
    assert parts.whole(found) == ()


def test_the_order_of_files_does_not_matter():
    assert parts.whole([Part(1, 5, 2), Part(0, 0, 5)]) == (Part(0, 0, 5), Part(1, 5, 2))
