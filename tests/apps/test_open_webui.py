"""Open WebUI in a browser, over /api/tags, /api/chat and what else it asks."""

import json
import secrets
import socket
import subprocess
import urllib.request

import pytest
from tests.apps import installed
from tests.apps.answers import GREETING, REPORT, TOKENS
from tests.apps.conftest import SCREENSHOTS

QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "ENABLE_VERSION_UPDATE_CHECK": "False",
    "OFFLINE_MODE": "True",
    "SCARF_NO_ANALYTICS": "true",
}
TOOL = '''
class Tools:
    def read_note(self, path: str) -> str:
        """
        Read a note.
        :param path: the path of the note
        """
        return open(path).read()
'''


class OpenWebUI:
    """A running Open WebUI without accounts: who asks is its administrator."""

    def __init__(self, url):
        self.url = url
        self.token = ""
        self.token = self.post("/api/v1/auths/signin", {"email": "", "password": ""})["token"]

    def configure(self, model, settings):
        self.post("/api/v1/models/create", {"id": f"{model}:latest", "name": model, "base_model_id": None, **settings})

    def post(self, path, body):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())


@pytest.fixture
def open_webui(desk, server, tmp_path):
    python = installed.python("open-webui")
    variables = QUIET | {
        "OLLAMA_BASE_URL": server.url,
        "ENABLE_OPENAI_API": "False",
        "DATA_DIR": str(tmp_path),
        "WEBUI_AUTH": "False",
        "WEBUI_SECRET_KEY": secrets.token_hex(16),
        "FROM_INIT_PY": "true",  # as the command open-webui sets it, which takes no listening socket
        "USE_SLIM_DOCKER": "true",  # without local embedding and speech: requirements/left-out.txt
        "RAG_EMBEDDING_ENGINE": "ollama",
    }
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as file:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [python, "-m", "uvicorn", "open_webui.main:app", "--fd", str(listener.fileno())],
            cwd=desk.work,
            env=desk.environment | variables,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    # The socket is the child's alone now: a request waits until it serves, and fails if it ends.
    try:
        yield OpenWebUI(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def test_chat_stream_and_tool_loop(open_webui, desk, clients_python):
    hello = [{"role": "user", "content": "Say hello."}]
    answer = open_webui.post("/api/chat/completions", {"model": "stub:latest", "stream": False, "messages": hello})
    assert answer["choices"][0]["message"]["content"] == GREETING
    assert answer["usage"]["completion_tokens"] == TOKENS

    tool = {"id": "notes", "name": "Notes", "content": TOOL, "meta": {"description": "Reads notes."}}
    open_webui.post("/api/v1/tools/create", tool)
    settings = {"meta": {"toolIds": ["notes"]}, "params": {"function_calling": "native"}}
    open_webui.configure("stub", settings)
    # Open WebUI's own tools alone would fill most of llamita's context.
    open_webui.configure("llamita", {"meta": {"capabilities": {"builtin_tools": False}}, "params": {}})

    found = in_browser(open_webui, desk, clients_python.parent)
    assert found["hosts"] == ["127.0.0.1"]
    assert found["chat"][-1] == GREETING
    beginnings = {text for text in found["chat"] if text and GREETING.startswith(text)}
    assert len(beginnings) > 2  # the answer grew on the page
    assert found["loop"][-1].endswith(f"{REPORT}The secret is {desk.secret}.")
    assert "read_note" in found["loop"][-1]
    assert found["thinking"][-1].startswith("Thought for")
    assert found["thinking"][-1].endswith("3 + 4 = 7.")


def in_browser(open_webui, desk, binaries):
    browser = installed.debian("chromium", "chromium")
    script = installed.node("browser", binaries) / "open_webui.mjs"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    words = (open_webui.url, desk.note, f"{desk.secret}.", SCREENSHOTS)
    return json.loads(desk.run(binaries / "node", script, browser, *words, seconds=300))
