import random

import pytest

from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.parsed import ParsedDelta


def part(*pieces: str, started: bool = False) -> tuple[str, str]:
    parser = ThinkingParser("<think>", "</think>", started=started)
    fed = [parser.feed(piece) for piece in pieces]
    return "".join(delta.thinking for delta in fed), "".join(delta.content for delta in fed)


@pytest.mark.parametrize(
    ("text", "thinking", "content"),
    [
        ("<think>a</think>b", "a", "b"),
        ("<think>a</think><think>b</think>c", "a", "<think>b</think>c"),
        (" \n<think>\n a \n</think>\n\nb ", "a \n", "b "),
        ("  no <think>tag", "", "  no <think>tag"),
        ("<think></think>b", "", "b"),
        ("<think>a</thin", "a", ""),
        ("<thi", "", ""),
        ("<thx", "", "<thx"),
    ],
)
def test_thinking_is_what_stands_between_the_tags_at_the_start(text: str, thinking: str, content: str) -> None:
    assert part(text) == (thinking, content)
    assert part(*text) == (thinking, content)


def test_where_the_stream_is_cut_does_not_matter() -> None:
    text = "\n <think>\n\nLet </thi me</thought> see \n</think>\n\nAnswer </think> 42"
    chance = random.Random(1)
    for _ in range(300):
        cuts = sorted(chance.sample(range(len(text)), chance.randint(0, 12)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert part(*pieces) == ("Let </thi me</thought> see \n", "Answer </think> 42")


def test_a_prompt_that_ends_with_the_opening_tag_has_begun_the_thinking() -> None:
    assert part("\n a", "</think>", " b", started=True) == ("a", "b")


def test_thinking_streams_except_for_what_could_be_the_closing_tag() -> None:
    parser = ThinkingParser("<think>", "</think>")
    fed = [parser.feed(piece) for piece in ("<think>", "ab", "c</", "d", "</think", ">x")]
    assert [(delta.thinking, delta.content, delta.waits) for delta in fed] == [
        ("", "", True),
        ("ab", "", False),
        ("c", "", False),
        ("</d", "", False),
        ("", "", True),
        ("", "x", False),
    ]
    assert parser.finish() == ParsedDelta()
