"""Long bodies are read in pieces, and with a bound on their values: what comes out is what comes out of short ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.go import json_scanner
from puna.go.json_scanner import BodyError, TooManyValuesError, parse
from puna_rest.gobody.decoder import decode
from puna_rest.gobody.kinds import AnyMap, StringMap, Struct, decode_base64, plain

PARTS = [
    *("a", "é", "😀", r"\n", r"\"", r"\\", r"\/", r"\u00e9", r"\ud83d\ude00", r"\ud83d", r"\ude00", r"\ud83dx"),
    *("\\", r"\u12", r"\x", "\n", "\x7f", " ", "'", "<"),
]


def read(body):
    """Return what a body says, or what is said of it."""
    try:
        document = parse(body)
    except BodyError as error:
        return str(error)
    return plain(document, document.root)


@given(
    st.lists(st.sampled_from(PARTS), max_size=60).map("".join), st.integers(13, 40), st.sampled_from(['"', "", '",1'])
)
def test_pieces_of_a_long_string_make_the_same(text, piece, end):
    body = f'["{text}{end}]'.encode()
    whole = read(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_scanner, "CHUNK", piece)
        assert read(body) == whole


@given(st.binary(max_size=60), st.integers(1, 9))
def test_pieces_of_bytes_make_the_same(middle, piece):
    body = b'{"k":"' + middle.replace(b'"', b"") + b'"}'
    whole = read(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_scanner, "CHUNK", max(piece, 13))
        assert read(body) == whole


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from([None, 1]),
)
def test_usual_values_are_read_as_json_reads_them(value, indent):
    body = json.dumps(value, indent=indent).encode()
    assert read(body) == json.loads(body, parse_int=float)


@pytest.mark.parametrize(
    ("body", "values"),
    [(b"1", 1), (b"[]", 1), (b"[1,2]", 3), (b'{"a":1,"b":[2,{}]}', 5), (b'["a","b",[],"c"]', 5), (b"[1,[2,3,4],5]", 7)],
)
def test_values_are_counted(body, values):
    assert parse(body, values).values == values
    with pytest.raises(TooManyValuesError, match=f"at most {values - 1} values"):
        parse(body, values - 1)


@pytest.mark.parametrize("value", [b"[1,1,1,1,1]", b'{"x":{"y":1,"z":[1,2]}}', b'[{"k":1},"a","b","c"]'])
def test_the_field_with_too_many_values_is_named(value):
    with pytest.raises(TooManyValuesError, match=r'^"some": a request.s JSON may have at most 4 values'):
        parse(b'{"other":1,"some":' + value + b"}", 4)


def test_objects_of_one_name_are_joined_in_time_that_grows_with_their_number():
    kind = Struct("T", {"m": AnyMap(), "s": StringMap()})
    body = b"{" + b",".join(b'"m":{"%d":1},"s":{"%d":"a"}' % (n, n) for n in range(20_000)) + b"}"
    document = parse(body)
    fields = decode(document, kind)
    assert [key for key, _ in fields["m"].value] == [str(n) for n in range(20_000)]
    assert len(fields["s"]) == 20_000
    assert [len(value.value) for key, value in document.root.value[:4] if key == "m"] == [1, 1]


@pytest.mark.parametrize("valid", ["", "QUJD", "QU\nJD\r\n", "QUJDQU", "Q\n\nUJDQ"])
@pytest.mark.parametrize("bad", ["*", "=", "é", "Q=A", "=A"])
def test_where_base64_is_broken(valid, bad):
    """The place is found in the last group, whatever stands before."""
    long = "QUJD\n" * 1000
    places = []
    for before in ("", long):
        with pytest.raises(ValueError, match="illegal base64 data at input byte") as raised:
            decode_base64(before + valid + bad)
        places.append(int(str(raised.value).rsplit(" ", 1)[1]))
    assert places[1] == places[0] + len(long)
