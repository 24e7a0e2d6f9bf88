import pytest

from puna.errors import InvalidRequestError
from puna.messages import Message
from puna.prompt.conversation import assemble, mark_media, refuse_several_images, strip_old_thinking


def user(content: str, *media: bytes) -> Message:
    return Message(role="user", content=content, media=media)


def test_the_system_text_comes_before_the_models_own_messages() -> None:
    own = [user("example"), Message(role="assistant", content="so")]
    assert [m.content for m in assemble(own, "S", [user("hi")])] == ["S", "example", "so", "hi"]


def test_a_request_that_begins_with_a_system_message_replaces_the_models() -> None:
    request = [Message(role="system", content="mine"), user("hi")]
    assert [m.content for m in assemble([user("example")], "S", request)] == ["example", "mine", "hi"]


def test_old_thinking_is_removed_before_the_last_question_only() -> None:
    answer = Message(role="assistant", content="<think>hm</think>\n\nyes")
    stripped = strip_old_thinking([user("a"), answer, user("<think>b</think>c"), answer])
    assert [m.content for m in stripped] == ["a", "yes", "<think>b</think>c", answer.content]


def test_marks_stand_where_the_text_asks_for_them_or_in_front() -> None:
    marked = mark_media([user("one", b"1"), user("x [img] y [img] z", b"2", b"3", b"4"), user("[img]")])
    assert [m.content for m in marked] == ["[img-0]one", "[img-3]x [img-1] y [img-2] z", "[img]"]


def test_several_images_in_a_message_are_refused_where_one_is_the_most() -> None:
    refuse_several_images([user("a", b"1"), user("b", b"2")])
    with pytest.raises(InvalidRequestError, match="only supports one image while more than one image requested"):
        refuse_several_images([user("a", b"1", b"2")])


def test_media_with_places_stand_there() -> None:
    (marked,) = mark_media([Message(role="user", content="one two", media=(b"1", b"2"), media_at=(0, 4))], 3)
    assert (marked.content, marked.media_at) == ("[img-3]one [img-4]two", ())
