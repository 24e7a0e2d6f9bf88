import pytest

from puna.messages import Message


@pytest.mark.parametrize(("sent", "kept"), [("USER", "user"), ("Tool", "tool"), ("system", "system"), ("", "")])
def test_roles_are_lower_case_wherever_a_message_comes_from(sent, kept):
    assert Message(role=sent).role == kept


def test_places_of_media_follow_the_text_that_stays():
    message = Message(role="user", content="  abc  ", media=(b"1", b"2", b"3"), media_at=(0, 3, 7))
    assert message.with_content("abc", 2).media_at == (0, 1, 3)
    assert message.with_content("").media_at == (0, 0, 0)
    assert Message(role="user", content="ab").with_content("b", 1).media_at == ()
