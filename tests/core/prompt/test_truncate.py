from collections.abc import Sequence

import pytest

from puna.messages import Message
from puna.prompt.truncate import RenderedPrompt, cut_tokens, fit


def messages(*parts: str) -> list[Message]:
    """Make messages from texts such as "user:hello"."""
    return [Message(role=role, content=content) for role, _, content in (part.partition(":") for part in parts)]


def render(given: Sequence[Message]) -> str:
    return "".join(f"<{message.role}>{message.content}" for message in given)


async def write(given: Sequence[Message]) -> RenderedPrompt:
    return RenderedPrompt(render(given))


async def count(text: str) -> int:
    return len(text)


async def test_what_fits_is_left_alone() -> None:
    fitted = await fit(messages("user:a", "assistant:b", "user:c"), write, count, 100)
    assert fitted.prompt.text == "<user>a<assistant>b<user>c"


async def test_without_a_limit_nothing_is_dropped() -> None:
    fitted = await fit(messages("user:" + "a" * 99, "user:c"), write, count, None)
    assert fitted.prompt.text.endswith("a<user>c")


@pytest.mark.parametrize("size", [2, 3, 7, 20])
@pytest.mark.parametrize("limit", [5, 20, 34, 35, 36, 90, 200])
async def test_as_few_of_the_oldest_are_dropped_as_a_search_one_by_one_would_drop(size: int, limit: int) -> None:
    given = messages(*(f"{'system' if i % 5 == 3 else 'user'}:{'x' * (i % 4)}" for i in range(size)))
    candidates = [[*(m for m in given[:i] if m.role == "system"), *given[i:]] for i in range(size)]
    first = next((c for c in candidates if len(render(c)) <= limit), candidates[-1])
    assert (await fit(given, write, count, limit)).messages == tuple(first)


async def test_system_messages_and_the_last_stay_however_long() -> None:
    fitted = await fit(messages("system:" + "s" * 50, "user:a", "user:" + "z" * 50), write, count, 10)
    assert [m.role for m in fitted.messages] == ["system", "user"]
    assert fitted.messages[1].content == "z" * 50


async def test_images_are_numbered_counted_and_dropped_with_their_messages() -> None:
    given = [
        Message(role="user", content="old", media=(b"1",)),
        Message(role="user", content="a [img] b", media=(b"2", b"3")),
    ]
    everything = await fit(given, write, count, 5000, per_image=768)
    assert everything.prompt.text == "<user>[img-0]old<user>[img-2]a [img-1] b"
    assert everything.media == (b"1", b"2", b"3")
    fewer = await fit(given, write, count, 2000, per_image=768)
    assert (fewer.prompt.text, fewer.media) == ("<user>[img-1]a [img-0] b", (b"2", b"3"))
    unmarked = await fit(given, write, count, 2000, per_image=768, mark=False)
    assert (unmarked.prompt.text, unmarked.media) == ("<user>a [img] b", (b"2", b"3"))


async def test_a_long_conversation_is_counted_a_few_times_only() -> None:
    counted = 0

    async def counting(text: str) -> int:
        nonlocal counted
        counted += 1
        return len(text)

    await fit(messages(*(f"user:{i}" for i in range(1000))), write, counting, 100)
    assert counted < 15


@pytest.mark.parametrize(
    ("size", "num_ctx", "keep", "bos", "kept"),
    [
        (10, 8, 3, False, [0, 1, 2, 7, 8, 9]),
        (7, 8, 3, False, [0, 1, 2, 3, 4, 5, 6]),
        (10, 8, 2, True, [0, 1, 2, 7, 8, 9]),
        (10, 8, -1, False, [0, 1, 2, 3, 4, 5, 6]),
        (10, 8, 0, False, [6, 7, 8, 9]),
        (10, 8, 99, False, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_middle_of_a_long_prompt_is_cut(size: int, num_ctx: int, keep: int, bos: bool, kept: list[int]) -> None:
    assert cut_tokens(range(size), num_ctx, keep, bos) == kept


def test_a_cut_prompt_leaves_room_for_half_of_what_is_not_kept() -> None:
    assert len(cut_tokens(range(5000), 4096, 5, False)) == 2051


async def test_a_result_keeps_its_question_and_its_call() -> None:
    long = "".join(f"{n:04}," for n in range(200))
    given = messages("system:s", "user:old", "assistant:" + "y" * 99, "user:why?", "assistant:call", "tool:" + long)
    fitted = await fit(given, write, count, 300)
    assert [m.role for m in fitted.messages] == ["system", "user", "assistant", "tool"]
    assert [m.content for m in fitted.messages[:3]] == ["s", "why?", "call"]
    result = fitted.messages[3].content
    assert result.startswith("0000,")
    assert "\n[…]\n" in result
    assert result.endswith("0199,")
    assert 280 <= len(fitted.prompt.text) <= 300


async def test_short_results_are_left_as_they_are() -> None:
    given = messages("user:why?", "assistant:c", "tool:short", "assistant:d", "tool:" + "z" * 500)
    fitted = await fit(given, write, count, 200)
    assert fitted.messages[2].content == "short"
    assert len(fitted.messages[4].content) < 200


async def test_a_question_that_does_not_fit_is_dropped() -> None:
    given = messages("user:" + "q" * 500, "assistant:call", "tool:result")
    assert [m.role for m in (await fit(given, write, count, 100)).messages] == ["assistant", "tool"]
