"""Log lines of a server bear the ids of the requests that they are about."""

import re

from tests.e2e.server import serving, wait_until


def test_debug_logs_requests_with_ids_and_no_prompt(tmp_path):
    with serving(tmp_path / "models", OLLAMA_DEBUG="1") as server:
        status, _, _ = server.ask("/api/generate", {"model": "llamita", "prompt": "a secret", "stream": False})
        assert status == 200

        def ended():
            return re.search(r"\[(h\d+)\] POST /api/generate ends after .* s with status 200", server.log())

        request = wait_until(ended)[1]
        log = server.log()
    assert re.search(rf"\[{request}/r\d+\] Generate 'llamita' ends after", log)
    assert re.search(rf"INFO puna\.runtime\.launch: \[{request}/r\d+\] loading llamita", log)
    assert "secret" not in log
