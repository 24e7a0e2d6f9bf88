import hashlib
import json

import pytest
from playwright.sync_api import expect
from tests.dashboard.calls import call
from tests.dashboard.conftest import shot
from tests.plugins.llama_cpp.sample_images import png

TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]


class Chat:
    """The chat page as a user sees it."""

    def __init__(self, page, model):
        self.page = page
        self.message = page.get_by_label("Message", exact=True)
        self.answers = page.locator(".message.assistant")
        self.status = page.locator(".chat .status")
        page.get_by_label("Model", exact=True).select_option(model)
        # At its own temperature, llamita says one thing in another way from time to time.
        options = page.locator("summary", has_text="Options")
        options.click()
        page.get_by_label("Temperature", exact=True).fill("0")
        options.click()

    def ask(self, text):
        self.message.fill(text)
        self.message.press("Enter")

    def complete(self, count):
        """Wait until `count` answers are complete; return the last."""
        expect(self.answers).to_have_count(count)
        expect(self.answers.last.locator("footer")).to_contain_text("output tokens")
        return self.answers.last


@pytest.fixture
def chat(looker, recorder):
    def open_chat(model="llamita", **options):
        return Chat(looker.open(recorder, "chat", **options), model)

    return open_chat


def outcomes(server, outcome):
    """Return the records of chats on the model `script` with an outcome."""
    request = {"model": "script", "outcome": f"REQUEST_OUTCOME_{outcome}"}
    return call(server, "DiagnosticsService/ListRequestRecords", request).get("records", [])


def test_an_answer_streams_until_the_user_stops_it_by_keyboard(chat, recorder, accessible):
    session = chat("script")
    page = session.page
    before = len(outcomes(recorder, "CANCELLED"))
    expect(page.get_by_text("completion", exact=True)).to_be_visible()
    session.message.focus()
    page.keyboard.type("b")
    page.keyboard.press("Enter")
    text = session.answers.locator(".markdown")
    expect(text).to_contain_text("w0 w1 w2")
    shown = text.inner_text()
    expect(text).not_to_have_text(shown)
    expect(page.get_by_role("button", name="Send")).to_have_attribute("aria-disabled", "true")
    shot(page, "chat-streaming")
    page.keyboard.press("Escape")
    expect(session.answers.locator("footer")).to_have_text("Stopped.")
    expect(page.locator("#announcements")).to_contain_text("The answer was stopped.")
    # The server has stopped, too.
    page.wait_for_function(
        """async ([url, body]) => {
            const answer = await fetch(url, {method: "POST", headers: {"Content-Type": "application/json"}, body});
            return !((await answer.json()).requests ?? []).length;
        }""",
        arg=["../puna.v1.ServerService/ListRequests", json.dumps({"model": "script"})],
    )
    assert len(outcomes(recorder, "CANCELLED")) == before + 1
    # The conversation goes on behind the part of the answer that came. The focus is still in the field.
    page.keyboard.type("a")
    page.keyboard.press("Enter")
    assert "Hello, world!" in session.complete(2).inner_text()
    accessible(page)


def test_the_mouse_stops_an_answer_and_begins_a_new_conversation(chat, recorder):
    session = chat("script")
    page = session.page
    session.message.fill("b")
    page.get_by_role("button", name="Send").click()
    expect(session.answers).to_contain_text("w0 w1 w2")
    page.get_by_role("button", name="Stop").click()
    expect(session.answers.locator("footer")).to_have_text("Stopped.")
    session.ask("b")
    expect(session.answers.last).to_contain_text("w0 w1 w2")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".message")).to_have_count(0)
    expect(session.message).to_be_focused()
    session.ask("a")
    session.complete(1)
    (record, *_) = outcomes(recorder, "SUCCEEDED")
    assert rendered(recorder, record) == "a"


def test_leaving_the_page_stops_the_answer(chat, recorder):
    session = chat("script")
    before = len(outcomes(recorder, "CANCELLED"))
    session.ask("b")
    expect(session.answers).to_contain_text("w0 w1 w2")
    session.page.get_by_role("link", name="Queue").click()
    expect(session.page.get_by_text("No request runs or waits.")).to_be_visible()
    assert len(outcomes(recorder, "CANCELLED")) == before + 1


def test_thinking_is_folded_beside_the_answer(chat, accessible):
    session = chat()
    page = session.page
    page.get_by_label("Thinking", exact=True).select_option("on")
    session.ask("What is 3 + 4?")
    answer = session.complete(1)
    expect(answer.locator(".markdown")).to_have_text("3 + 4 = 7.")
    thinking = answer.locator("details.thinking")
    expect(thinking.locator(".plain")).to_be_hidden()
    thinking.locator("summary").press("Enter")
    expect(thinking.locator(".plain")).to_contain_text("3 + 4")
    accessible(page)
    shot(page, "chat-thinking")
    # Off: the model does not think. The setting is that of the next message.
    page.get_by_label("Thinking", exact=True).select_option("off")
    session.ask("What is 3 + 4?")
    expect(session.complete(2).locator("details.thinking")).to_be_hidden()


def test_a_tool_call_is_answered_by_the_user(chat, recorder, accessible):
    session = chat()
    page = session.page
    page.get_by_label("Thinking", exact=True).select_option("off")
    page.locator("summary", has_text="Tools").click()
    tools = page.get_by_role("textbox", name="Tools")
    tools.fill('[{"description": "no name"}]')
    session.ask("What is the weather in Oslo?")
    expect(session.status).to_have_text("Tools: tool 1 has no name.")
    # In OpenAI's form, too.
    tools.fill(json.dumps([{"type": "function", "function": TOOLS[0]}]))
    session.message.press("Enter")
    result = page.get_by_label("Result of get_weather")
    result.fill('{"temperature": 12, "sky": "clear"}')
    expect(page.get_by_role("group", name="Arguments of get_weather")).to_contain_text('"city": "Oslo"')
    accessible(page)
    shot(page, "chat-tool-call")
    page.get_by_role("button", name="Send result").press("Enter")
    expect(session.complete(2).locator(".markdown")).to_have_text("The weather in Oslo: temperature 12, sky clear.")
    expect(session.message).to_be_focused()
    assert not result.is_editable()
    shot(page, "chat-tool-result")


def test_an_image_reaches_the_model(chat, recorder):
    session = chat("seer")
    page = session.page
    image = png(1)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add images").click()
    files = [
        {"name": "removed.png", "mimeType": "image/png", "buffer": png(2)},
        {"name": "sky.png", "mimeType": "image/png", "buffer": image},
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"},
    ]
    chooser.value.set_files(files)
    expect(page.locator(".chat .status")).to_have_text("notes.txt is no PNG, JPEG or WebP image.")
    page.get_by_role("button", name="Remove removed.png").click()
    expect(page.get_by_role("img", name="removed.png")).to_have_count(0)
    page.locator("summary", has_text="Options").click()
    page.get_by_label("Most output tokens").fill("4")
    session.ask("what")
    session.complete(1)
    expect(page.locator(".message.user").get_by_role("img", name="sky.png")).to_be_visible()
    shot(page, "chat-image")
    (record, *_) = call(recorder, "DiagnosticsService/ListRequestRecords", {"model": "seer"})["records"]
    content = call(recorder, "DiagnosticsService/GetRequestRecord", {"number": record["number"]})["record"]["content"]
    assert [each["digest"].removeprefix("sha256:") for each in content["media"]] == [hashlib.sha256(image).hexdigest()]
    assert record["usage"]["outputTokens"] == 4
    # The next message has no image of its own.
    expect(page.get_by_role("button", name="Remove")).to_have_count(0)


def test_a_model_without_vision_takes_no_images(chat):
    page = chat("llamita").page
    button = page.get_by_role("button", name="Add images")
    expect(button).to_be_disabled()
    page.get_by_label("Model", exact=True).select_option("seer")
    expect(button).to_be_enabled()


def test_an_answer_keeps_to_a_schema_and_mistakes_are_named(chat, accessible):
    session = chat()
    page = session.page
    page.get_by_label("Answer", exact=True).select_option("JSON Schema")
    schema = page.get_by_label("Schema or expression")
    schema.fill('{"type": ')
    session.ask("How old is Ada?")
    expect(session.status).to_contain_text("JSON Schema: ")
    expect(page.locator(".message")).to_have_count(0)
    expect(session.message).to_have_value("How old is Ada?")
    # What only the server can see.
    schema.fill('{"type": "nosuch"}')
    session.message.press("Enter")
    expect(session.answers.locator(".error")).to_contain_text("nosuch")
    expect(page.locator("#announcements")).to_contain_text("The answer failed.")
    accessible(page)
    shot(page, "chat-schema-refused")
    schema.fill('{"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}')
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    text = session.complete(2).locator(".plain.code")
    assert list(json.loads(text.inner_text())) == ["age"]
    # It is indented.
    expect(text).to_contain_text('{\n  "age": ', use_inner_text=True)
    page.get_by_label("Answer", exact=True).select_option("regular expression")
    schema.fill("yes|no")
    session.ask("Is it?")
    assert session.complete(3).locator(".plain.code").inner_text() in ("yes", "no")


def test_a_failed_exchange_is_no_part_of_the_conversation(chat, recorder):
    session = chat("script")
    page = session.page
    page.get_by_label("Answer", exact=True).select_option("JSON Schema")
    page.get_by_label("Schema or expression").fill('{"type": "nosuch"}')
    session.ask("refused a")
    expect(session.answers.locator(".error")).to_be_visible()
    page.get_by_label("Answer", exact=True).select_option("free text")
    session.ask("other a")
    session.complete(2)
    (record, *_) = outcomes(recorder, "SUCCEEDED")
    assert rendered(recorder, record) == "other a"
    # What would rewrite the conversation is refused.
    page.get_by_role("button", name="Try again").click()
    expect(session.status).to_have_text("The conversation has gone on since then.")
    expect(session.answers).to_have_count(2)


def test_what_a_model_writes_is_text_and_never_html(chat):
    session = chat("script")
    session.ask("c")
    answer = session.complete(1).locator(".markdown")
    expect(answer).to_contain_text("<b> & 'single'")
    assert answer.locator("b").count() == 0


def test_a_server_that_is_gone_is_named(chat, looker):
    looker.refused = True
    session = chat("script")
    page = session.page
    expect(page.get_by_text("completion", exact=True)).to_be_visible()
    page.context.set_offline(True)
    session.ask("a")
    expect(session.answers.locator(".error")).to_have_text("The server does not answer.")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    assert "Hello, world!" in session.complete(2).inner_text()


def test_a_narrow_screen_needs_no_scrolling_sideways(chat):
    session = chat("script", viewport={"width": 380, "height": 800}, color_scheme="dark")
    session.ask("a")
    session.complete(1)
    assert session.page.evaluate("document.documentElement.scrollWidth") == 380
    shot(session.page, "chat-narrow-dark")


def rendered(server, record):
    """Return the prompt of a record."""
    found = call(server, "DiagnosticsService/GetRequestRecord", {"number": record["number"]})
    return found["record"]["content"]["sequences"][0]["prompt"]
