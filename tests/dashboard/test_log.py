from playwright.sync_api import expect
from tests.dashboard.conftest import running, shot


def ask(server, name):
    """Have the server write a line that names a model which is not there."""
    status, _, _ = server.ask("/api/generate", {"model": name, "prompt": "Hi"})
    assert status == 404


def test_lines_appear_while_the_server_writes_them(looker, recorder, accessible):
    ask(recorder, "earlier")
    page = looker.open(recorder, "log")
    lines = page.locator(".log-line")
    expect(lines.filter(has_text="earlier").first).to_contain_text("puna.requests")
    ask(recorder, "later")
    later = lines.filter(has_text="later").first
    expect(later.locator(".log-level")).to_have_text("info")
    # The newest line is in sight.
    expect(later).to_be_in_viewport()
    page.get_by_label("Facts").check()
    expect(later.locator(".log-facts")).to_contain_text('"model": "later"')
    accessible(page)
    shot(page, "log")


def test_lines_are_found_by_text_and_by_level(looker, recorder):
    ask(recorder, "wanted")
    ask(recorder, "unwanted-other")
    page = looker.open(recorder, "log")
    lines = page.locator(".log-line")
    other = lines.filter(has_text="unwanted-other").first
    expect(other).to_be_visible()
    page.get_by_label("Search").fill("'WANTED'")
    expect(other).to_be_hidden()
    expect(lines.filter(has_text="wanted").first).to_be_visible()
    page.get_by_label("Search").fill("")
    expect(other).to_be_visible()
    page.get_by_label("Least level").select_option("error")
    expect(lines).to_have_count(0)
    page.get_by_label("Least level").select_option("info")
    expect(other).to_be_visible()


def test_a_pause_holds_new_lines_back(looker, recorder):
    page = looker.open(recorder, "log")
    pause = page.get_by_role("button", name="Pause")
    pause.press("Enter")
    expect(pause).to_have_attribute("aria-pressed", "true")
    ask(recorder, "held-back")
    expect(page.get_by_text("new ones wait")).to_be_visible()
    held = page.locator(".log-line").filter(has_text="held-back")
    assert held.count() == 0
    pause.press("Enter")
    expect(held).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(held).to_have_count(0)


def test_the_lines_of_one_request_are_shown_from_its_record(looker, recorder):
    ask(recorder, "one-request")
    page = looker.open(recorder, "requests")
    page.locator("tbody tr").filter(has_text="one-request").first.get_by_role("link").click()
    page.get_by_role("link", name="Its log lines").click()
    lines = page.locator(".log-line")
    expect(lines).to_have_count(1)
    expect(lines).to_contain_text("one-request")
    request = page.get_by_label("Request", exact=True)
    assert request.input_value()
    request.fill("")
    request.press("Enter")
    expect(lines.nth(1)).to_be_visible()


def test_the_log_goes_on_after_the_server_was_out_of_reach(looker, recorder):
    looker.refused = True
    page = looker.open(recorder, "log")
    expect(page.locator(".log-line").first).to_be_visible()
    page.context.set_offline(True)
    page.get_by_label("Least level").select_option("debug")
    expect(page.get_by_text("The log cannot be followed. The server does not answer.")).to_be_visible()
    page.context.set_offline(False)
    ask(recorder, "back-again")
    expect(page.locator(".log-line").filter(has_text="back-again")).to_be_visible()
    expect(page.get_by_text("The log cannot be followed.")).to_be_hidden()


def test_the_last_lines_of_a_server_that_ended_stay(looker, tmp_path):
    looker.refused = True
    with running(tmp_path) as server:
        page = looker.open(server, "log")
        ask(server, "last-words")
        line = page.locator(".log-line").filter(has_text="last-words")
        expect(line).to_be_visible()
        server.process.terminate()
        expect(page.get_by_text("The log cannot be followed.")).to_be_visible()
        expect(line).to_be_visible()
