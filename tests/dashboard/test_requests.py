import threading

import pytest
from playwright.sync_api import expect
from tests.dashboard.conftest import shot

ENDLESS = {"model": "scripted", "prompt": "b", "raw": True, "options": {"num_predict": 100_000_000}}
WEATHER = {"name": "get_weather", "description": "w", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture
def endless(recorder):
    """A request without an end."""

    def read():
        with recorder.open("/api/generate", ENDLESS) as answer:
            answer.read()

    thread = threading.Thread(target=read)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


def chat(server, content, **more):
    body = {"model": "llamita", "messages": [{"role": "user", "content": content}], "stream": False} | more
    return server.ask("/api/chat", body)


def test_requests_are_listed_and_found(looker, recorder, accessible):
    chat(recorder, "What is 3 + 4?")
    chat(recorder, "x", model="listed-and-found")
    page = looker.open(recorder, "requests")
    rows = page.locator("tbody tr")
    expect(rows.nth(0)).to_contain_text("listed-and-found")
    expect(rows.nth(0)).to_contain_text("failed: MODEL_NOT_FOUND")
    expect(rows.nth(1)).to_contain_text("POST\u00a0/api/chat")
    expect(rows.nth(1)).to_contain_text("succeeded")
    accessible(page)
    shot(page, "requests")
    page.get_by_label("Search").fill("LISTED-and")
    expect(rows).to_have_count(1)
    page.get_by_label("Search").fill("no such text")
    expect(page.get_by_text("There is no such request.")).to_be_visible()
    page.get_by_label("Search").fill("")
    page.get_by_label("State").select_option("failed")
    expect(rows.filter(has_text="succeeded")).to_have_count(0)
    expect(rows.nth(0)).to_contain_text("failed")
    page.get_by_label("State").select_option("all")
    page.get_by_label("Model").fill("llamita")
    page.get_by_label("Model").press("Enter")
    expect(rows.filter(has_text="listed-and-found")).to_have_count(0)
    expect(rows.nth(0)).to_contain_text("llamita")


def test_a_request_is_shown_with_its_prompt_as_rendered_its_answer_and_its_durations(looker, recorder, accessible):
    chat(recorder, "What is 3 + 4?", think=True)
    page = looker.open(recorder, "requests")
    link = page.locator("tbody tr").nth(0).get_by_role("link")
    link.press("Enter")
    expect(page.get_by_role("heading", name="Request", level=2)).to_be_focused()
    expect(page.get_by_role("group", name="Prompt, as the model got it")).to_have_text(
        "<|user|>What is 3 + 4?<|think|><|assistant|>"
    )
    expect(page.get_by_role("group", name="Thinking")).to_contain_text("3 + 4")
    expect(page.get_by_role("group", name="Answer")).to_have_text("3 + 4 = 7.")
    expect(page.locator(".facts")).to_contain_text("POST /api/chat")
    for stage in ("prefill", "decode", "first token after", "in all"):
        expect(page.locator(".stage-legend")).to_contain_text(stage)
    bar = page.locator(".stage-bar")
    assert sum(each.bounding_box()["width"] for each in bar.locator("div").all()) >= bar.bounding_box()["width"] - 1
    accessible(page)
    shot(page, "request")
    page.get_by_role("link", name="All requests").press("Enter")
    expect(link).to_be_focused()


def test_a_tool_call_and_a_failure_are_shown(looker, recorder):
    looker.refused = True
    chat(recorder, "What is the weather in Oslo?", think=False, tools=[{"type": "function", "function": WEATHER}])
    chat(recorder, "x", format={"type": "nosuch"})
    page = looker.open(recorder, "requests")
    links = page.locator("tbody tr").get_by_role("link")
    links.nth(0).click()
    expect(page.locator(".panel > .error").filter(has_text="Invalid type: nosuch")).to_be_visible()
    expect(page.get_by_role("group", name="Prompt, as the model got it")).to_contain_text("<|user|>x")
    expect(page.get_by_role("group", name="Constraint")).to_have_text("json_schema")
    shot(page, "request-failed")
    page.go_back()
    links.nth(1).click()
    expect(page.get_by_role("group", name="Tool calls")).to_contain_text("get_weather")
    page.goto(f"{recorder.url}/dashboard/#/requests/999999")
    expect(page.get_by_text("There is no record of this request.")).to_be_visible()


def test_a_running_request_is_followed_and_cancelled(looker, recorder, endless):
    page = looker.open(recorder, "requests")
    row = page.locator("tbody tr").nth(0)
    expect(row).to_contain_text("decode")
    expect(row.get_by_role("button", name="Cancel request")).to_be_visible()
    row.get_by_role("link").click()
    answer = page.get_by_role("group", name="Answer")
    expect(answer).to_contain_text("w0 w1")
    shown = answer.inner_text()
    expect(answer).not_to_have_text(shown)
    shot(page, "request-running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#announcements")).to_contain_text("is cancelled.")
    expect(page.locator(".facts")).to_contain_text("Ended")
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    page.go_back()
    expect(row).to_contain_text("cancelled")
    expect(row.get_by_role("button")).to_have_count(0)


def test_a_running_request_is_cancelled_in_the_list_and_the_focus_stays(looker, recorder, endless):
    page = looker.open(recorder, "requests")
    row = page.locator("tbody tr").nth(0)
    expect(row).to_contain_text("decode")
    row.get_by_role("button", name="Cancel request").press("Enter")
    expect(row).to_contain_text("cancelled")
    expect(row.get_by_role("link")).to_be_focused()


def test_a_server_that_keeps_no_requests_says_how_to_have_it_do_so(looker, server):
    looker.refused = True
    page = looker.open(server, "requests")
    expect(page.locator(".error").filter(has_text="PUNA_RECORDS=1")).to_be_visible()
    expect(page.get_by_role("table")).to_have_count(0)
    shot(page, "requests-off")
