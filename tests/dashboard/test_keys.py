import os
import subprocess

import pytest
from playwright.sync_api import expect
from tests.dashboard.conftest import shot
from tests.e2e.server import PUNA, serving


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Keys by what they allow, in the file that the server reads."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"

    def make(allow):
        command = [PUNA, "key", "create", allow, "--allow", allow]
        found = subprocess.run(
            command, env=os.environ | {"PUNA_KEYS": str(file)}, capture_output=True, text=True, timeout=60
        )
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()

    return {"file": str(file)} | {allow: make(allow) for allow in ("read", "inference", "all")}


@pytest.fixture(scope="module")
def closed(keys, tmp_path_factory):
    """A server with keys."""
    with serving(tmp_path_factory.mktemp("home") / "models", PUNA_KEYS=keys["file"]) as server:
        yield server


def enter(page, key):
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Key", exact=True).fill(key)
    page.keyboard.press("Enter")


def test_a_key_is_asked_for_and_kept_in_the_tab_alone(looker, closed, keys, accessible):
    looker.refused = True
    page = looker.open(closed)
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    accessible(page)
    shot(page, "key-asked")
    enter(page, "wrong")
    expect(page.locator("#announcements")).to_contain_text("The server does not know this key.")
    enter(page, keys["read"])
    expect(page.get_by_role("button", name="Load llamita", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Load llamita", exact=True)).to_be_visible()
    assert keys["read"] not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    # Another tab does not have it.
    other = page.context.new_page()
    other.goto(f"{closed.url}/dashboard/")
    expect(other.get_by_role("dialog", name="API key")).to_be_visible()
    page.get_by_role("button", name="Key: set").click()
    page.get_by_role("button", name="Use no key").click()
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    expect(page.get_by_role("button", name="Load llamita", exact=True)).to_have_count(0)


def test_what_a_key_does_not_allow_is_said_in_words(looker, closed, keys):
    looker.refused = True
    page = looker.open(closed, key=keys["read"])
    page.get_by_role("button", name="Load llamita", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="Load llamita: Not allowed")).to_be_visible()
    page.get_by_role("link", name="Queue").click()
    expect(page.get_by_role("alert").filter(has_text="Not allowed")).to_be_visible()
    shot(page, "queue-not-allowed")
    page.get_by_role("link", name="Charts").click()
    # Metrics need the permission `read` alone.
    expect(page.get_by_role("img", name="Output tokens per second:")).to_be_visible()


def test_a_key_for_inference_sees_load_and_no_metrics(looker, closed, keys):
    looker.refused = True
    page = looker.open(closed, "charts", key=keys["inference"])
    expect(page.get_by_role("alert").filter(has_text="Not allowed")).to_be_visible()
    expect(page.get_by_role("img", name="Requests: Running 0, Waiting 0")).to_be_visible()


def test_the_key_of_an_administrator_allows_everything(looker, closed, keys):
    page = looker.open(closed, key=keys["all"])
    page.get_by_role("button", name="Load llamita", exact=True).click()
    page.get_by_role("button", name="Unload llamita", exact=True).click()
    expect(page.get_by_text("No model is loaded.")).to_be_visible()
    page.get_by_role("link", name="Queue").click()
    expect(page.get_by_text("No request runs or waits.")).to_be_visible()


def test_prompts_and_the_log_are_kept_from_keys_that_may_not_see_them(looker, closed, keys):
    looker.refused = True
    page = looker.open(closed, "requests", key=keys["inference"])
    alert = page.get_by_role("alert")
    expect(alert.filter(has_text="lacks the permission 'requests'")).to_be_visible()
    page.get_by_role("link", name="Log").click()
    expect(alert.filter(has_text="lacks the permission 'diagnostics'")).to_be_visible()
    expect(page.get_by_role("log")).to_have_count(0)
    # What the key is for works.
    page.get_by_role("link", name="Chat").click()
    page.get_by_label("Message", exact=True).fill("What is 3 + 4?")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".message.assistant footer")).to_contain_text("output tokens")
