import threading
import urllib.error

from playwright.sync_api import expect
from tests.dashboard.conftest import shot

ENDLESS = {"model": "scripted", "prompt": "b", "raw": True, "options": {"num_predict": 100_000_000}}


class Requests:
    """Requests without an end, one after the other."""

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
        # One that is cancelled while it waits ends with an error.
        try:
            with self._server.open("/api/generate", ENDLESS) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()


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
        second = rows.nth(1).locator("th").inner_text()
        rows.nth(0).get_by_role("button", name="Cancel request").click()
        expect(rows).to_have_count(2)
        expect(rows.nth(0).locator("th")).to_have_text(second)
        expect(rows.nth(0)).to_contain_text("decode")
        expect(page.locator("#announcements")).to_contain_text("is cancelled")
    finally:
        buttons = page.get_by_role("button", name="Cancel request")
        while buttons.count():
            count = buttons.count()
            buttons.first.click()
            expect(rows).to_have_count(count - 1)
        asked.join()
    expect(page.get_by_text("No request runs or waits.")).to_be_visible()
