import hashlib
import json
import random
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect
from tests.core.models.conftest import write_gguf
from tests.dashboard.conftest import shot
from tests.e2e.server import wait_until


class Registry(ThreadingHTTPServer):
    """A registry with one model. It sends the model's file as far as half, and the rest when `go_on` is set."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.go_on = threading.Event()
        self.blobs = {}
        config = self._blob(
            b'{"model_format":"gguf","model_family":"llama"}', "application/vnd.docker.container.image.v1+json"
        )
        weights = random.Random(1).randbytes(4_000_000)
        tensor = ("v.x", (len(weights) // 4,), 0, weights)
        model = write_gguf(("general.architecture", "str", "zed"), tensors=(tensor,))
        self.model = self._blob(model, "application/vnd.ollama.image.model")
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        self.manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [self.model]}
        ).encode()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_address[1]}"

    def _blob(self, data, kind):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": kind, "digest": digest, "size": len(data)}


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        last = self.path.rpartition("/")[2]
        if "/manifests/" in self.path:
            data = self.server.manifest if last == "one" else None
        else:
            data = self.server.blobs.get(last)
        if data is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin, end = 0, len(data)
        if wanted := self.headers.get("Range"):
            first, _, final = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), int(final or len(data) - 1) + 1
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        middle = begin + (end - begin) // 2
        self.wfile.write(data[begin:middle])
        if last == self.server.model["digest"]:
            self.wfile.flush()
            self.server.go_on.wait(60)
        self.wfile.write(data[middle:end])

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def registry():
    with serving_registry() as found:
        yield found


@contextmanager
def serving_registry():
    with Registry() as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            found.go_on.set()
            found.shutdown()
            thread.join()


def row(page, region, name):
    return (
        page.get_by_role("region", name=region)
        .get_by_role("row")
        .filter(has=page.get_by_role("rowheader", name=name, exact=True))
    )


def test_models_are_loaded_and_unloaded(looker, server, accessible):
    page = looker.open(server)
    installed = row(page, "Installed models", "llamita")
    for word in ("3.2 MB", "1.58M", "F16", "2,048", "completion, tools, thinking", "llama_cpp"):
        expect(installed).to_contain_text(word)
    page.get_by_role("button", name="Load llamita", exact=True).click()
    loaded = row(page, "Loaded models", "llamita")
    for word in ("llama_cpp", "MB", "2,048", "min"):
        expect(loaded).to_contain_text(word)
    expect(installed).to_contain_text("loaded")
    expect(page.locator("#announcements")).to_contain_text("llamita is loaded")
    accessible(page)
    shot(page, "models-loaded")
    pin = page.get_by_role("button", name="Pin llamita", exact=True)
    pin.click()
    expect(loaded).to_contain_text("never, it is pinned")
    expect(pin).to_have_attribute("aria-pressed", "true")
    pin.click()
    expect(loaded).not_to_contain_text("never")
    expect(pin).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Unload llamita", exact=True).click()
    expect(loaded).to_have_count(0)
    expect(installed).not_to_contain_text("loaded")


def test_a_model_is_deleted_after_a_question(looker, server, accessible):
    assert server.ask("/api/copy", {"source": "scripted", "destination": "copy"})[0] == 200
    page = looker.open(server)
    delete = page.get_by_role("button", name="Delete copy")
    delete.click()
    question = page.get_by_role("dialog", name="Delete copy?")
    accessible(page)
    shot(page, "models-delete")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    assert "copy:latest" in [each["name"] for each in server.json("/api/tags")["models"]]
    delete.click()
    question.get_by_role("button", name="Delete").click()
    expect(row(page, "Installed models", "copy")).to_have_count(0)
    assert "copy:latest" not in [each["name"] for each in server.json("/api/tags")["models"]]
    expect(page.get_by_role("heading", name="Installed")).to_be_focused()


def test_a_pull_shows_its_progress_on_every_look_and_can_be_cancelled(looker, server, registry, accessible):
    page = looker.open(server)
    name = f"{registry.address}/library/some:one"

    def pull():
        page.get_by_label("Name").fill(name)
        page.get_by_label("Without TLS").check()
        page.get_by_role("button", name="Pull", exact=True).click()

    pull()
    bar = page.get_by_role("progressbar", name=f"Progress of {name}")
    size = registry.model["size"]
    # The server tells of progress at intervals, so the last bytes before the registry stops may be missing.
    wait_until(lambda: bar.count() and bar.evaluate("(node) => node.value") > 0, 60)
    assert bar.evaluate("(node) => node.value / node.max") < 0.6
    assert bar.evaluate("(node) => node.max") >= size
    accessible(page)
    shot(page, "models-pull")
    # The pull goes on while another page is shown.
    page.get_by_role("link", name="Queue").click()
    page.get_by_role("link", name="Models").click()
    expect(bar).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator(".pull", has_text="cancelled; a later pull goes on from here")).to_be_visible()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".pull", has_text="cancelled; a later pull goes on from here")).to_have_count(0)
    registry.go_on.set()
    pull()
    expect(row(page, "Installed models", name)).to_be_visible()
    server.ask("/api/delete", {"model": name}, method="DELETE")


def test_a_pull_that_fails_says_why(looker, server, registry):
    page = looker.open(server)
    page.get_by_label("Name").fill(f"{registry.address}/library/some:other")
    page.get_by_label("Without TLS").check()
    page.get_by_role("button", name="Pull", exact=True).click()
    expect(page.locator(".pull .error")).to_have_text("The registry has no model of this name.")
    shot(page, "models-pull-failed")
