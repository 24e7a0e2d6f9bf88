import threading
import urllib.error

from playwright.sync_api import expect
from tests.dashboard.conftest import shot

ENDLESS = {"model": "scripted", "prompt": "b", "raw": True, "options": {"num_predict": 100_000_000}}


class Requests:
    """Requests without an end. An answer ends after ten contexts, and then its request begins again."""

    def __init__(self, server):
        self._server = server
        self._threads = []

    def begin(self):
        thread = threading.Thread(target=self._read)
        thread.start()
        self._threads.append(thread)

    def join(self):
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _read(self):
        text = b""
        while b"cancelled" not in text:
            try:
                with self._server.open("/api/generate", ENDLESS) as answer:
                    text = answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    text = error.read()


def test_requests_are_shown_with_their_places_and_can_be_cancelled(looker, server, accessible):
    page = looker.open(server, "queue")
    expect(page.get_by_text("No request runs or waits.")).to_be_visible()
    asked = Requests(server)
    rows = page.locator("tbody tr")
    try:
        for number in range(1, 4):
            asked.begin()
            expect(rows).to_have_count(number)
        expect(page.get_by_text("1 running, 2 waiting")).to_be_visible()
        expect(rows.nth(0)).to_contain_text("decode")
        for place in (1, 2):
            expect(rows.nth(place).locator("td").nth(2)).to_have_text("queued")
            expect(rows.nth(place).locator("td").nth(3)).to_have_text(str(place))
        tokens = rows.nth(0).locator("td").nth(4)
        before = tokens.inner_text()
        expect(tokens).not_to_have_text(before)
        accessible(page)
        shot(page, "queue-busy")
        # The second begins when the first is cancelled.
        first = rows.nth(0).locator("th").inner_text()
        page.get_by_role("button", name=f"Cancel request {first}", exact=True).click()
        expect(page.locator("#announcements")).to_contain_text(f"Request {first} is cancelled")
        expect(rows.get_by_role("rowheader", name=first, exact=True)).to_have_count(0)
        expect(rows).to_have_count(2)
        expect(rows.nth(0)).to_contain_text("decode")
    finally:
        buttons = page.get_by_role("button", name="Cancel request")
        while buttons.count():
            count = buttons.count()
            buttons.first.click()
            expect(rows).to_have_count(count - 1)
        asked.join()
    expect(page.get_by_text("No request runs or waits.")).to_be_visible()
