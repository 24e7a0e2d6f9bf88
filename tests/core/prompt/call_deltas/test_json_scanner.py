import json
import random
from typing import Any

import pytest

from puna.go import json as gojson
from puna.prompt.call_deltas.json_scanner import JsonScanner, UnreadableJsonError


def scanned(*texts: str) -> tuple[str, JsonScanner]:
    scanner = JsonScanner()
    return "".join(map(scanner.feed, texts)), scanner


def value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(4 if depth > 3 else 6)
    if kind == 0:
        return chance.choice([True, False, None])
    if kind == 1:
        return chance.choice([0, -0.0, 1.5, 1e300, -12, 1e-9, 123456789012345678])
    if kind < 4:
        return "".join(chance.choice('ab"\\/\n\t<é😀\u2028\x00\x7f') for _ in range(chance.randrange(6)))
    if kind == 4:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {str(chance.random()): value(chance, depth + 1) for _ in range(chance.randrange(4))}


@pytest.mark.parametrize("seed", range(200))
def test_any_json_in_any_pieces_is_written_as_go_writes_it(seed: int) -> None:
    chance = random.Random(seed)
    made = {"a": value(chance)}
    text = json.dumps(made, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1]))
    expected = gojson.dumps(json.loads(text, parse_int=float))
    cuts = sorted(chance.choices(range(len(text) + 1), k=5))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    for texts in (pieces, list(text)):
        written, scanner = scanned(*texts)
        assert written == expected
        assert scanner.closed


def test_a_string_grows_with_its_characters() -> None:
    scanner = JsonScanner()
    assert [scanner.feed(each) for each in ('{"a": "on', "e", " <", '"}')] == ['{"a":"on', "e", " \\u003c", '"}']


def test_what_is_not_certain_waits() -> None:
    scanner = JsonScanner()
    assert scanner.feed("[1") == "["
    assert scanner.feed("0.") == ""
    assert scanner.feed("50,") == "10.5,"
    assert scanner.feed('"\\ud83d') == '"'
    assert scanner.feed("\\ude0") == ""
    assert scanner.feed("0") == "😀"
    assert scanner.feed("\\ud83d") == ""
    assert scanner.feed('"]') == '\ufffd"]'


def test_the_text_behind_a_value_is_the_rest() -> None:
    _, scanner = scanned('{"a":', '{}} <end>{"b"')
    assert scanner.rest == ' <end>{"b"'


@pytest.mark.parametrize(
    "text",
    ['{"a":}', "{a", '["\n"]', "[1e999,", "[01]", "[nul,", "[NaN]", '{"a" 1', "[1}", '["\\x0000000000', "]", "[" * 501],
)
def test_a_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(UnreadableJsonError):
        scanned(*text)


def test_hooks_see_objects_and_strings_with_their_places() -> None:
    seen: list[tuple[str, ...]] = []

    class Watching(JsonScanner):
        def opened(self, bracket: str) -> None:
            seen.append((bracket, *self.path))

        def shut(self) -> None:
            seen.append(("end", *self.path))

        def said(self, value: str) -> None:
            seen.append((value, *self.path))

    Watching().feed('{"a": {"b": "x\\n"}, "c": ["y"]}')
    assert seen == [
        ("{",),
        ("{", "a"),
        ("x\n", "a", "b"),
        ("end", "a"),
        ("[", "c"),
        ("y", "c", ""),
        ("end", "c"),
        ("end",),
    ]
