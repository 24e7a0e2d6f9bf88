import pytest

from puna.messages import Message


@pytest.mark.parametrize(("sent", "kept"), [("USER", "user"), ("Tool", "tool"), ("system", "system"), ("", "")])
def test_roles_are_lower_case_wherever_a_message_comes_from(sent, kept):
    assert Message(role=sent).role == kept
