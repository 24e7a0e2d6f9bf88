import os
import re
import signal

from playwright.sync_api import expect
from tests.dashboard.conftest import running, shot
from tests.dashboard.test_queue import Requests
from tests.e2e.server import serving

ASK = {"model": "llamita", "prompt": "What is 3 + 4?", "stream": False}


def ask_until(server, condition):
    """Send requests until the page shows what they are to show."""
    while not condition():
        server.json("/api/generate", ASK)


def test_answers_move_the_charts(looker, server, accessible):
    page = looker.open(server, "charts")
    chart = page.get_by_role("img", name=re.compile("^Output tokens per second:"))
    expect(chart).to_be_visible()

    def says(name, pattern):
        return page.get_by_role("img", name=re.compile(f"^{name}: {pattern}")).count() > 0

    rate = r".*; highest [1-9]"
    time = r"Median [\d.]+ m?s, 95th percentile [\d.]+ m?s"
    ask_until(server, lambda: says("Output tokens per second", rate))
    ask_until(server, lambda: says("Time to first token", time) and says("Inter-token latency", time))
    # A prompt that was asked before is in the prefix cache.
    ask_until(server, lambda: says("Prefix cache hit rate", r"[\d.]+ %; highest [1-9]"))
    page.get_by_label("Model", exact=True).select_option("llamita")
    assert says("Output tokens per second", rate)
    page.get_by_text("Values").first.click()
    expect(page.locator("details[open] tbody tr").first).to_be_visible()
    accessible(page)
    shot(page, "charts-busy")


def test_running_requests_count_before_they_end(looker, server):
    page = looker.open(server, "charts")
    asked = Requests(server)
    asked.begin()
    try:
        expect(page.get_by_role("img", name=re.compile("^Requests: Running 1"))).to_be_visible()
        rate = re.compile("^Output tokens per second: [1-9]")
        expect(page.get_by_role("img", name=rate)).to_be_visible()
        expect(page.get_by_role("img", name=re.compile(r"^KV cache use: [\d.]+ %; highest [1-9]"))).to_be_visible()
        page.get_by_role("link", name="Models").click()
        expect(
            page.get_by_role("region", name="Loaded models").get_by_role("cell", name=re.compile("[1-9].* %"))
        ).to_be_visible()
    finally:
        page.get_by_role("link", name="Queue").click()
        page.get_by_role("button", name="Cancel request").first.click()
        asked.join()


def test_an_eviction_is_shown_with_its_reason(looker, server):
    page = looker.open(server, "charts")
    events = page.get_by_role("region", name="Events, newest first")
    for model in ("llamita", "scripted"):
        server.json("/api/generate", {"model": model, "stream": False})
    expect(events.get_by_role("row", name="llamita evicted to make room for scripted").first).to_be_visible()
    expect(events.get_by_role("row", name=re.compile("scripted loaded by llama_cpp in")).first).to_be_visible()
    removed = page.get_by_role("region", name="Models that are no longer loaded")
    expect(removed.get_by_role("row", name="llamita evicted to make room for another model")).to_be_visible()
    shot(page, "charts-eviction")


def test_a_host_that_is_killed_and_a_server_that_restarts_while_one_looks(looker, tmp_path, accessible):
    looker.refused = True
    config = tmp_path / "config/puna/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[model.llamita]\npin = true\n")
    with running(tmp_path, XDG_CONFIG_HOME=str(tmp_path / "config")) as server:
        charts = looker.open(server, "charts")
        models = looker.open(server, "models")
        expect(charts.get_by_role("img", name=re.compile("^Output tokens per second:"))).to_be_visible()
        models.get_by_role("button", name="Load llamita", exact=True).click()
        expect(models.get_by_role("button", name="Unload llamita", exact=True)).to_be_visible()
        expect(models.get_by_text("never, it is pinned")).to_be_visible()
        [host] = server.hosts()
        os.kill(host, signal.SIGKILL)
        row = charts.get_by_role("region", name="Hosts that died").get_by_role("row", name="llamita")
        expect(row).to_contain_text("SIGKILL")
        removed = charts.get_by_role("region", name="Models that are no longer loaded")
        expect(removed.get_by_role("row", name="llamita")).to_contain_text("its host died")
        expect(charts.locator("#announcements")).to_contain_text("llamita: its host died: SIGKILL")
        event = charts.get_by_role("region", name="Events, newest first").get_by_role(
            "row", name="its host died: SIGKILL"
        )
        expect(event).to_contain_text("llamita")
        expect(models.get_by_text("No model is loaded.")).to_be_visible()
        accessible(charts)
        shot(charts, "charts-host-killed")
        # The model is loaded again by the next request.
        server.json("/api/generate", ASK)
        expect(models.get_by_role("button", name="Unload llamita", exact=True)).to_be_visible()
    gone = models.get_by_role("alert").filter(has_text="The server does not answer.")
    expect(gone).to_be_visible()
    shot(models, "models-server-gone")
    with serving(tmp_path / "models", OLLAMA_HOST=server.url.removeprefix("http://")):
        expect(gone).to_have_count(0)
        expect(models.get_by_text("No model is loaded.")).to_be_visible()
