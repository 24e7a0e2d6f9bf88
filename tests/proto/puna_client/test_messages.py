import json

from puna_client.answers import ToolCall
from puna_client.messages import conversation, system, tool, tool_result, user


def test_a_text_is_a_message_of_the_user():
    assert [(each.role, each.content) for each in conversation("Hi")] == [("user", "Hi")]
    assert [each.role for each in conversation([system("Be brief."), "Hi"])] == ["system", "user"]
    assert conversation(user("Hi")) == [user("Hi")]


def test_media_are_bytes_or_files(tmp_path):
    (tmp_path / "b.png").write_bytes(b"B")
    assert [each.data for each in user("Look", b"A", tmp_path / "b.png").media] == [b"A", b"B"]


def test_a_result_names_its_call():
    call = ToolCall("get_weather", {"city": "Oslo"}, "c1")
    message = tool_result(call, {"temperature": 18})
    assert (message.role, message.tool_name, message.tool_call_id) == ("tool", "get_weather", "c1")
    assert json.loads(message.content) == {"temperature": 18}
    assert tool_result(call, "18 degrees").content == "18 degrees"


def test_parameters_keep_the_order_of_their_keys():
    made = tool("f", "does", {"type": "object", "properties": {"z": {}, "a": {}}})
    assert made.parameters_json == '{"type": "object", "properties": {"z": {}, "a": {}}}'
