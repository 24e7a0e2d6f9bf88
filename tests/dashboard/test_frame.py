import pytest
from playwright.sync_api import expect
from tests.dashboard.conftest import shot
from tests.e2e.server import wait_until

PAGES = {
    "models": "Models",
    "queue": "Queue",
    "requests": "Requests",
    "charts": "Charts",
    "chat": "Chat",
    "embeddings": "Embeddings",
    "log": "Log",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_accessible_in_both_themes(looker, server, accessible, name, scheme):
    # The server keeps no requests, and says so.
    looker.refused = name == "requests"
    page = looker.open(server, name, color_scheme=scheme)
    expect(page).to_have_title(f"{PAGES[name]} · Puna")
    expect(page.locator("footer")).to_contain_text("llama_cpp")
    if name == "models":
        expect(page.get_by_role("button", name="Load llamita", exact=True)).to_be_visible()
    accessible(page)
    shot(page, f"{name}-{scheme}")


def test_the_address_without_a_slash_leads_to_the_dashboard(looker, server):
    page = looker.open(server)
    page.goto(f"{server.url}/dashboard")
    expect(page).to_have_title("Models · Puna")
    assert page.url == f"{server.url}/dashboard/"


def test_the_policy_of_the_page_forbids_html_from_text_inline_styles_and_other_hosts(looker, server):
    page = looker.open(server)
    expect(page).to_have_title("Models · Puna")
    page.evaluate("""() => {
        window.broken = [];
        document.addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
        const image = Object.assign(document.createElement("img"), { src: "http://127.0.0.1:9/a.png" });
        for (const attempt of [
            () => (document.body.innerHTML += "<b></b>"),
            () => document.body.append(Object.assign(document.createElement("style"), { textContent: "b {}" })),
            () => document.body.append(image),
            () => fetch("http://127.0.0.1:9/").catch(() => {}),
        ]) {
            try { attempt(); } catch { }
        }
    }""")
    directives = {"require-trusted-types-for", "style-src-elem", "img-src", "connect-src"}
    wait_until(lambda: set(page.evaluate("broken")) == directives)
    looker.complaints.clear()
    looker.hosts.remove("127.0.0.1:9")


def test_the_theme_is_kept(looker, server):
    page = looker.open(server, color_scheme="light")
    back = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(back)
    page.get_by_label("Theme").select_option("Dark")
    dark = page.evaluate(back)
    assert dark != light
    page.reload()
    assert page.evaluate(back) == dark
    page.get_by_label("Theme").select_option("System")
    assert page.evaluate(back) == light


def test_the_keyboard_alone_reaches_everything(looker, server):
    page = looker.open(server, "charts")
    expect(page).to_have_title("Charts · Puna")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Model", exact=True)).to_be_focused()
    models = page.get_by_role("link", name="Models")
    while not models.evaluate("(node) => node === document.activeElement"):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_title("Models · Puna")
    # The next Tab begins in the page and not before the navigation.
    expect(page.locator("main")).to_be_focused()
    delete = page.get_by_role("button", name="Delete scripted")
    expect(delete).to_be_visible()
    while not delete.evaluate("(node) => node === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Delete scripted?")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(delete).to_be_focused()


def test_a_screen_reader_hears_which_page_is_shown(looker, server):
    page = looker.open(server)
    page.get_by_role("link", name="Queue").click()
    expect(page.locator("#announcements")).to_contain_text("Queue")
    expect(page.get_by_role("link", name="Queue")).to_have_attribute("aria-current", "page")


def test_a_narrow_screen_needs_no_scrolling_sideways(looker, server):
    page = looker.open(server, viewport={"width": 380, "height": 800})
    expect(page.get_by_role("button", name="Load llamita", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 380
    shot(page, "models-narrow")
