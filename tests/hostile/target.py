"""The server that is fuzzed, and what must hold of it after each batch."""

import re
from contextlib import contextmanager

from tests.e2e.server import MODELS, serving, wait_until
from tests.hostile.bounds import ANSWER_WITHIN, MEMORY_RETURNS_TO, SLACK, ping, resident
from tests.hostile.values import HERE

BAD = re.compile(
    r"Traceback|event loop was busy|failed: |host \d+ has ended|the backend failed|was never retrieved|Unclosed"
)
"""Texts that a log must not have."""
RECOVERY = 15.0
"""Seconds that a server may take to be as it was."""
LARGE_TEMPLATE = {
    "model": "scripted",
    "prompt": "a",
    "stream": False,
    "template": "{{ .Prompt }}" + "{{/* padding */}}" * 1000,
    "options": {"num_predict": 1},
}
"""A request whose template is too large for the core: it starts a template worker, which then stays."""
WARM = (("scripted", "/api/generate", {"prompt": ""}), ("embedder", "/api/embed", {"input": ""}))


@contextmanager
def target(folder):
    """Run a server with two models, loaded, which may speak to no registry but one that is not there."""
    with serving(folder / "models", PUNA_ALLOWED_REGISTRIES=HERE, OLLAMA_MAX_LOADED_MODELS="2") as server:
        server.upload("scripted", MODELS / "scripted.gguf")
        server.upload("embedder", MODELS / "embedder.gguf")
        warm(server)
        server.json("/api/generate", LARGE_TEMPLATE)
        server.before = resident(server)
        server.seen = 0
        yield server


def warm(server):
    """Have the two models loaded, with their default options, and no other."""
    for loaded in server.json("/api/ps")["models"]:
        if loaded["name"].partition(":")[0] not in ("scripted", "embedder"):
            # A model that only embeds refuses the first request, and the other models refuse the second.
            server.ask("/api/generate", {"model": loaded["name"], "keep_alive": 0})
            server.ask("/api/embed", {"model": loaded["name"], "input": "", "keep_alive": 0})
    for name, path, body in WARM:
        server.json(path, {"model": name, "keep_alive": -1} | body)


def check(server):
    """Fail unless the server lives, has logged nothing bad, and answers in time."""
    assert server.process.poll() is None, f"the server has ended: {server.process.returncode}\n{server.log()[-5000:]}"
    log = server.log()
    fresh, server.seen = log[server.seen :], len(log)
    assert not BAD.search(fresh), fresh[-5000:]
    wait_until(lambda: ping(server) <= ANSWER_WITHIN, RECOVERY, "a ping took too long")


def recovered(server):
    """Fail unless memory is back to what it was, give or take a fifth."""
    warm(server)
    wait_until(lambda: resident(server) <= server.before * MEMORY_RETURNS_TO + SLACK, RECOVERY, "memory is kept")
