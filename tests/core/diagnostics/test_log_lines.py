import json
import logging

import pytest

from puna import request_log
from puna.diagnostics.log_lines import LONGEST, LogTail

log = logging.getLogger("puna.some")


@pytest.fixture
def tail(caplog):
    caplog.set_level(logging.DEBUG)
    tail = LogTail(100, 1 << 20)
    yield tail
    tail.close()


def lines(tail):
    return [line for _, line in tail.lines.after(0)[0]]


def test_lines_are_kept_with_their_request_and_facts(tail):
    with request_log.http_request("POST", "/api/chat"), request_log.grpc_call("mine", "Chat", "m"):
        log.warning("the %s", "text", extra={"facts": {"tokens": 3, "key": ""}})
    line = next(each for each in lines(tail) if each.logger == "puna.some")
    assert (line.level, line.message) == (logging.WARNING, "the text")
    assert json.loads(line.facts_json) == {"tokens": 3}
    assert line.request_id.endswith("/mine")
    assert line.belongs_to("mine")
    assert line.belongs_to(line.request_id)
    assert line.belongs_to(line.request_id.partition("/")[0])
    assert not line.belongs_to("min")


def test_tracebacks_are_kept_apart_from_the_text(tail):
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed")
    (line,) = lines(tail)
    assert line.message == "failed"
    assert line.traceback.endswith("ValueError: boom")


def test_long_texts_are_cut_and_bad_ones_kept(tail):
    log.info("x" * 2 * LONGEST)
    log.info("a\ud800")
    tail.handle(logging.LogRecord("n", logging.INFO, "", 0, "%d apples", ("two",), None))
    assert [len(each.message) for each in lines(tail)] == [LONGEST + 1, 2, len("%d apples")]
    assert lines(tail)[1].message == "a?"


def test_nothing_is_kept_after_the_end(tail):
    tail.close()
    log.warning("late")
    assert lines(tail) == []
    assert tail not in logging.getLogger().handlers
