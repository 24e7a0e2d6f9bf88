"""Log lines of a server bear the ids of the requests that they are about."""

import json
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


def test_each_request_has_a_line_with_its_counts_also_as_json(tmp_path):
    with serving(tmp_path / "models", PUNA_LOG_FORMAT="json") as server:
        ask = {"model": "llamita", "prompt": "a secret", "stream": False}
        told = server.json("/api/generate", ask)
        wait_until(lambda: '"outcome"' in server.log())
        log = server.log()
    lines = [json.loads(line) for line in log.splitlines()]
    (line,) = [each for each in lines if "outcome" in each]
    assert (line["method"], line["model"], line["outcome"]) == ("Generate", "llamita", "stop")
    assert (line["prompt_tokens"], line["output_tokens"]) == (told["prompt_eval_count"], told["eval_count"])
    assert re.fullmatch(r"h\d+/r\d+", line["request"])
    assert 0 < line["prefill_seconds"] + line["decode_seconds"] < line["seconds"]
    assert "secret" not in log
