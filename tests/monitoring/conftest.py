"""Debian's Prometheus, which scrapes a server under load: `make test-monitoring` runs this folder."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from tests.apt import alone
from tests.e2e.server import wait_until

KEPT = Path(sys.prefix) / "monitoring"
"""The folder of what is kept between runs. It is inside .venv, which git ignores."""
SCRAPE_SECONDS = 1

collect_ignore_glob = [] if os.environ.get("PUNA_MONITORING") else ["test_*.py"]


def _download(folder):
    """Return whether apt has downloaded Debian's package into a folder."""
    return subprocess.run(["apt-get", "download", "prometheus"], cwd=folder, check=False, timeout=300).returncode == 0


@pytest.fixture(scope="session")
def program():
    """The path of Prometheus. The package is unpacked and not installed, since its installation starts a service."""
    if found := shutil.which("prometheus"):
        return found
    program = KEPT / "usr/bin/prometheus"
    if not program.exists():
        shutil.rmtree(KEPT, ignore_errors=True)
        KEPT.mkdir()
        with alone():
            if not _download(KEPT):
                subprocess.run(["apt-get", "update"], check=True, timeout=300)
                assert _download(KEPT)
        (package,) = KEPT.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, KEPT], check=True, timeout=300)
        package.unlink()
    return program


class Prometheus:
    """A Prometheus that scrapes one address every second."""

    def __init__(self, program, folder, target, key):
        (folder / "key").write_text(key)
        scrape = {
            "job_name": "puna",
            "authorization": {"credentials_file": str(folder / "key")},
            "static_configs": [{"targets": [target]}],
        }
        # Prometheus reads YAML, of which JSON is a part.
        settings = {"global": {"scrape_interval": f"{SCRAPE_SECONDS}s"}, "scrape_configs": [scrape]}
        (folder / "prometheus.json").write_text(json.dumps(settings))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self._url = f"http://{address}/api/v1"
        self._errors = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.json'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stderr=self._errors,
        )
        try:
            wait_until(self._is_up, seconds=60, failure="Prometheus has not scraped the server")
        except BaseException:
            self.close()
            raise

    def _is_up(self):
        assert self._process.poll() is None, "Prometheus has ended"
        try:
            return self.values("up == 1")
        except (urllib.error.URLError, ConnectionError):
            return []

    def values(self, query):
        """Return the numbers with which a query is answered now. Quotients of nothing by nothing do not count."""
        found = self.ask("query", query=query)["result"]
        return [float(each["value"][1]) for each in found if each["value"][1] != "NaN"]

    def ask(self, path, **parameters):
        """Return the data of an answer of the API."""
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def close(self):
        """End the process."""
        self._process.terminate()
        self._process.wait(60)
        self._errors.close()
