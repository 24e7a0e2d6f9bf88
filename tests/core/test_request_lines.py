import json
import logging
from dataclasses import replace

import pytest

from puna import request_lines
from puna.events import RequestEnded
from puna.request_log import JsonFormatter

ANSWER = RequestEnded(
    id="r1",
    model="m",
    method="StreamChat",
    key="shop",
    outcome="stop",
    failed=False,
    phase="decode",
    seconds=1.5,
    load_seconds=0.25,
    prefill_seconds=0.5,
    decode_seconds=0.75,
    prompt_tokens=10,
    cached_tokens=4,
    output_tokens=3,
)


@pytest.fixture
def records(caplog):
    caplog.set_level(logging.INFO)
    return lambda: caplog.records


def test_a_line_has_the_counts_and_the_durations_of_a_request(records):
    request_lines.write(ANSWER)
    assert records()[0].getMessage() == (
        "StreamChat 'm' for key 'shop': stop, 10 prompt tokens, 4 cached, 3 output tokens, 1.500 s "
        "(load 0.250, prefill 0.500, decode 0.750)"
    )


def test_as_json_each_of_them_is_a_field(records):
    request_lines.write(ANSWER)
    line = json.loads(JsonFormatter().format(records()[0]))
    line.pop("time")
    assert line.pop("message").startswith("StreamChat 'm'")
    assert line == {
        "level": "INFO",
        "logger": "puna.requests",
        "method": "StreamChat",
        "model": "m",
        "key": "shop",
        "outcome": "stop",
        "phase": "decode",
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "output_tokens": 3,
        "seconds": 1.5,
        "load_seconds": 0.25,
        "prefill_seconds": 0.5,
        "decode_seconds": 0.75,
    }


@pytest.mark.parametrize(
    ("outcome", "phase", "text"),
    [("CANCELLED", "prefill", "CANCELLED while prefill"), ("CONTEXT_OVERFLOW", "queued", "CONTEXT_OVERFLOW")],
)
def test_a_failure_is_named_by_its_reason(records, outcome, phase, text):
    values = {"id": "r1", "model": "", "method": "Embed", "key": "", "failed": True, "seconds": 0.5}
    request_lines.write(RequestEnded(outcome=outcome, phase=phase, **values))
    assert records()[0].getMessage() == f"Embed '': {text}, 0.500 s"


def test_a_model_cannot_forge_a_line(records):
    values = {"id": "r1", "method": "Chat", "key": "", "outcome": "MODEL_NOT_FOUND", "failed": True, "phase": "queued"}
    request_lines.write(RequestEnded(model="m\n2026 forged" + "x" * 1000, seconds=0.1, **values))
    assert "\n" not in records()[0].getMessage()
    assert len(records()[0].getMessage()) < 200
    assert "\n" not in JsonFormatter().format(records()[0])


def test_it_listens_until_it_is_told_to_stop(records):
    from puna import events

    stop = request_lines.start()
    events.publish(ANSWER)
    stop()
    events.publish(ANSWER)
    assert len(records()) == 1


def test_a_request_with_a_trace_names_it(records):
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    request_lines.write(replace(ANSWER, traceparent=f"00-{trace}-{span}-01"))
    request_lines.write(replace(ANSWER, traceparent="nonsense"))
    assert records()[0].getMessage().endswith(f", trace {trace}")
    assert "trace" not in records()[1].getMessage()
    line, without = (json.loads(JsonFormatter().format(each)) for each in records())
    assert (line["trace_id"], line["span_id"]) == (trace, span)
    assert not without.keys() & {"trace_id", "span_id"}
