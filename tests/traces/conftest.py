"""An OpenTelemetry Collector and a client in Go, built from their sources: `make test-traces` runs this folder."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.clients.conftest import protoc  # noqa: F401 - a fixture
from tests.clients.projects import PROTO, run
from tests.hosts.conftest import go_path  # noqa: F401 - a fixture

SOURCES = Path(__file__).parent / "go"
MODULE = "puna.dev/gen/go"
"""The prefix of the go_package of all .proto files, which protoc leaves out of the folders."""

collect_ignore_glob = [] if os.environ.get("PUNA_COLLECTOR") else ["test_*.py"]


@pytest.fixture(scope="session")
def programs(go_path, protoc, tmp_path_factory):  # noqa: F811 - the fixtures
    """Build the programs of `go/`, with the generated code of puna/v1; return their folder."""
    home = tmp_path_factory.mktemp("go")
    shutil.copytree(SOURCES, home, dirs_exist_ok=True)
    environment = os.environ | {"PATH": go_path, "GOBIN": str(home / "bin"), "GOFLAGS": "-mod=readonly"}
    run("go", "install", "tool", cwd=home, env=environment)
    files = sorted(str(each.relative_to(PROTO)) for each in PROTO.glob("puna/v1/*.proto"))
    options = [f"--{plugin}_{option}" for plugin in ("go", "go-grpc") for option in ("out=.", f"opt=module={MODULE}")]
    run(protoc, f"-I{PROTO}", *options, *files, path=home / "bin", cwd=home, env=environment)
    run("go", "install", "./collector", "./client", cwd=home, env=environment)
    return home / "bin"


class Collector:
    """The receiver of an OpenTelemetry Collector, in a process of its own."""

    def __init__(self, program, file):
        self._file = file
        self._process = subprocess.Popen([program, file], stdout=subprocess.PIPE, text=True)
        # It logs the address for gRPC first.
        self.grpc, self.http = (json.loads(self._process.stdout.readline())["endpoint"] for _ in range(2))

    def spans(self):
        """Return the spans that it has received, each with the attributes of its resource as `resource`."""
        found = []
        lines = self._file.read_text().splitlines(keepends=True)
        for group in (group for line in lines if line.endswith("\n") for group in json.loads(line)["resourceSpans"]):
            resource = _attributes(group["resource"])
            for scope in group["scopeSpans"]:
                found += [each | {"resource": resource, "attributes": _attributes(each)} for each in scope["spans"]]
        return found

    def close(self):
        """End the process."""
        self._process.terminate()
        self._process.wait(60)
        self._process.stdout.close()


def _attributes(holder):
    """Return attributes as a dictionary. Integers are strings in the JSON of OTLP."""
    return {each["key"]: next(iter(each["value"].values())) for each in holder.get("attributes", ())}


@pytest.fixture
def collector(programs, tmp_path):
    running = Collector(programs / "collector", tmp_path / "traces.jsonl")
    yield running
    running.close()
