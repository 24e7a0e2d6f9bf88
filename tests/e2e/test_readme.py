"""The first calls that README.md shows work against a server as it starts on a new machine."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()
CURLS = re.findall(r"^    curl (.*)$", README, re.MULTILINE)


def test_each_curl_command_gets_an_answer(server):
    assert len(CURLS) >= 3
    for arguments in CURLS:
        url, flag, body = shlex.split(arguments)
        assert flag == "-d"
        status, _, answer = server.ask(url.removeprefix("http://localhost:11434"), json.loads(body))
        assert status == 200, (arguments, answer)
        for line in answer.decode().splitlines():
            assert "error" not in json.loads(line)


def test_the_grpc_client_prints_an_answer(server):
    (code,) = re.findall(r"```python\n(import grpc\n.*?)```", README, re.DOTALL)
    assert "localhost:11435" in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace("localhost:11435", server.grpc)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip()
