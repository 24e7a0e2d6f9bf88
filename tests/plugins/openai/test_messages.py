"""How conversations are written."""

import json

import pytest

from puna.backend import ChatMessage, ChatTool, ChatToolCall

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
SCHEMA = '{"type": "object", "properties": {"a": {"type": "integer"}}}'


async def test_tools_and_their_results(sent_body):
    messages = (
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="Weather?"),
        ChatMessage(
            role="assistant",
            tool_calls=(
                ChatToolCall(name="weather", arguments_json='{"city":"Paris"}'),
                ChatToolCall(name="time", arguments_json="{}", id="own"),
                ChatToolCall(name="weather", arguments_json='{"city":"Rome"}'),
            ),
        ),
        ChatMessage(role="tool", content="noon", tool_name="time", tool_call_id="own"),
        ChatMessage(role="tool", content="sunny", tool_name="weather"),
        ChatMessage(role="tool", content="rainy", tool_name="weather"),
    )
    tools = (ChatTool(name="weather", description="Tells it.", parameters_json=SCHEMA), ChatTool(name="time"))
    sent = await sent_body(messages=messages, tools=tools, tool_choice="tool:weather")
    calls = sent["messages"][2]["tool_calls"]
    assert sent["messages"][2]["content"] is None
    assert [call["function"]["name"] for call in calls] == ["weather", "time", "weather"]
    ids = [call["id"] for call in calls]
    assert len(set(ids)) == 3
    answers = [(each["tool_call_id"], each["content"]) for each in sent["messages"][3:]]
    # A result without an id belongs to the first call of its tool that has none yet.
    assert answers == [("own", "noon"), (ids[0], "sunny"), (ids[2], "rainy")]
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Tells it.", "parameters": json.loads(SCHEMA)},
        },
        {"type": "function", "function": {"name": "time"}},
    ]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


async def test_no_tools_with_the_choice_none(sent_body):
    sent = await sent_body(tools=(ChatTool(name="f"),), tool_choice="none")
    assert "tools" not in sent


@pytest.mark.parametrize(
    ("data", "kind"),
    [(PNG, "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp")],
)
async def test_images(sent_body, data, kind):
    sent = await sent_body(messages=(ChatMessage(role="user", content="What?", media=(data,)),))
    text, image = sent["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    assert image["image_url"]["url"].startswith(f"data:{kind};base64,")


async def test_media_stand_in_their_places(sent_body):
    message = ChatMessage(role="user", content="one two", media=(PNG, PNG), media_at=(0, 4))
    sent = await sent_body(messages=(message,))
    found = [part.get("text", part["type"]) for part in sent["messages"][0]["content"]]
    assert found == ["image_url", "one ", "image_url", "two"]
