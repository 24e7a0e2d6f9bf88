"""Speaks with the server that is recorded: JSON requests, streams, blobs and models."""

import hashlib
import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MODELS = Path(__file__).parents[2] / "tests/models"
SECONDS = 300
"""Time for one answer. The first one of a model contains its loading."""


class RecordingError(Exception):
    """The server did not do what a recorder needs."""


class Server:
    """A running Ollama, or a server with the same API."""

    def __init__(self, url: str) -> None:
        """url: `http://host:port`."""
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 11434
        self._created: set[str] = set()

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request; return its status and body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask(self, path: str, body: Mapping[str, Any], method: str = "POST") -> tuple[int, dict[str, Any]]:
        """Send JSON; return the status and the JSON object of the answer."""
        status, data = self.exchange(method, path, json.dumps(body).encode())
        value = json.loads(data) if data.strip() else {}
        return status, value if isinstance(value, dict) else {}

    def must(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send JSON to which the answer must be 200; return the answer.

        Raises RecordingError otherwise.
        """
        status, answer = self.ask(path, body)
        if status != 200:
            raise RecordingError(f"{path}: {status} {answer.get('error')}")
        return answer

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send JSON; yield the objects of a streamed answer. An error is an object too."""
        _, data = self.exchange("POST", path, json.dumps({**body, "stream": True}).encode())
        # Not splitlines: texts hold line separators.
        yield from (json.loads(line) for line in data.split(b"\n") if line.strip())

    def upload(self, data: bytes) -> str:
        """Store a file; return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        # Ollama answers to a POST of a file that it has without reading the body, and the sender's pipe breaks.
        if self.exchange("HEAD", f"/api/blobs/{digest}")[0] == 200:
            return digest
        status, answer = self.exchange("POST", f"/api/blobs/{digest}", data)
        if status not in (200, 201):
            raise RecordingError(f"upload: {status} {answer.decode(errors='replace')}")
        return digest

    def create(self, name: str, *files: bytes, **fields: Any) -> None:  # noqa: ANN401
        """Create a model of GGUF files and fields of /api/create. `close` deletes it."""
        digests = {f"{number}.gguf": self.upload(data) for number, data in enumerate(files)}
        self.must("/api/create", {"model": name, "files": digests, "stream": False, **fields})
        self._created.add(name)

    def create_once(self, name: str, *stems: str, **fields: Any) -> str:  # noqa: ANN401
        """Create a model of files of tests/models, unless this has been done; return its name."""
        if name not in self._created:
            self.create(name, *((MODELS / f"{stem}.gguf").read_bytes() for stem in stems), **fields)
        return name

    def rendered(self, request: Mapping[str, Any]) -> dict[str, str]:
        """Ask /api/chat for the prompt alone; return it as `text`, or an `error`."""
        answer = self.ask("/api/chat", {"stream": False, "truncate": False, "_debug_render_only": True, **request})[1]
        if "_debug_info" in answer:
            return {"text": answer["_debug_info"].get("rendered_template", "")}
        return {"error": str(answer.get("error", ""))}

    def version(self) -> str:
        """Return the version that the server states."""
        return str(json.loads(self.exchange("GET", "/api/version")[1])["version"])

    def close(self) -> None:
        """Delete the models that were created here."""
        for name in self._created:
            self.ask("/api/delete", {"model": name}, method="DELETE")
        self._created.clear()
