"""The dashboard in a real browser: `make test-dashboard` runs this folder."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.dashboard import installed
from tests.e2e.server import MODELS, PUNA, serving

SCREENSHOTS = Path(os.environ.get("PUNA_SCREENSHOTS") or Path(__file__).parents[2] / "build/dashboard")
"""The folder where the tests leave pictures of what a user sees."""
SECONDS = 60
"""Seconds until a state that does not come fails a test."""
# The browser itself must not look for updates or accounts, and nothing may leave this machine.
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *(
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ),
)

if os.environ.get("PUNA_BROWSER"):
    installed.playwright()
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=installed.chromium(), args=ARGUMENTS)
        yield found
        found.close()


class Looker:
    """Opens pages. Each must ask its own server alone, and must break no rule of its policy."""

    def __init__(self, browser):
        self._browser = browser
        self._contexts = []
        self.complaints = []
        """What the browser has complained of: errors of scripts, and what the Content-Security-Policy forbids."""
        self.hosts = set()
        self.refused = False
        """Whether the server may refuse calls, which the browser logs."""

    def open(self, server, page="models", *, key="", **options):
        """Open a page of the dashboard. `options` are those of a browser's context, such as color_scheme."""
        context = self._browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        context.set_default_timeout(SECONDS * 1000)
        self._contexts.append(context)
        if key:
            context.add_init_script(f"sessionStorage.setItem('puna.key', '{key}')")
        found = context.new_page()
        found.on("pageerror", lambda error: self.complaints.append(str(error)))
        found.on("console", self._note)
        found.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        found.goto(f"{server.url}/dashboard/#/{page}")
        return found

    def close(self):
        for context in self._contexts:
            context.close()

    def _note(self, message):
        if message.type in ("error", "warning") and not (self.refused and "Failed to load resource" in message.text):
            self.complaints.append(message.text)


@pytest.fixture
def looker(browser):
    looker = Looker(browser)
    yield looker
    looker.close()
    assert looker.complaints == []
    # Data that a page shows as an image has no host.
    assert len(looker.hosts - {""}) <= 1


@contextmanager
def running(folder, **environment):
    """Run a server with the models of a new store and `scripted`, whose answers have no end if the prompt is "b"."""
    with serving(folder / "models", **environment) as server:
        command = [PUNA, "create", "scripted", "--gguf", MODELS / "scripted.gguf"]
        subprocess.run(command, env=os.environ | {"PUNA_GRPC_HOST": server.grpc}, check=True, timeout=60)
        yield server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server without keys, which runs one request and has one model loaded at a time."""
    one = {"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_MAX_LOADED_MODELS": "1"}
    with running(tmp_path_factory.mktemp("home"), **one) as server:
        yield server


@pytest.fixture(scope="session")
def recorder(tmp_path_factory):
    """A server that keeps records of requests.

    It also has `seer`, which takes images, and `script`, whose answer the last character of the last message selects.
    """
    with running(tmp_path_factory.mktemp("home"), PUNA_RECORDS="1") as server:
        template = "{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} so"
        server.upload("seer", MODELS / "chatter.gguf", MODELS / "chatter-eye.gguf", template=template)
        server.upload("script", MODELS / "scripted.gguf", template="{{ .Prompt }}")
        yield server


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core, which finds what makes a page hard to use with a screen reader or a keyboard."""
    import axe_playwright_python

    return Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()


@pytest.fixture
def accessible(axe):
    """Return a function that has axe-core look at a page, and fails with what it finds."""

    def look(page):
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in found] == []

    return look


def shot(page, name):
    """Keep a picture of the whole page."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
