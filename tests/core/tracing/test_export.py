"""The export to a real OTLP receiver, and what happens without one."""

import asyncio
import logging
import socket
import time

import pytest
from tests.core.tracing.collector import collecting

from puna import events
from puna.limits import Limits
from puna.serving.activity import Activity
from puna.tracing import export

QUICK = Limits(max_trace_flush_seconds=0.5)


@pytest.fixture
def variables(monkeypatch):
    """Sets variables of OpenTelemetry for one test."""
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


def request(activity, id_="r1"):
    with activity.entered("m", "Chat") as entry:
        entry.on_output(1)


@pytest.fixture
def closed():
    """The address of a port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


async def test_spans_arrive_with_the_resource_of_the_variables_when_the_server_ends(variables):
    async with collecting() as (collector, url):
        variables(
            OTEL_EXPORTER_OTLP_ENDPOINT=url,
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test,service.version=9",
            OTEL_BSP_SCHEDULE_DELAY="60000",
        )
        activity = Activity()
        async with export.exporting(Limits()) as where:
            assert where == url
            for _ in range(3):
                request(activity)
            # Nothing has been sent yet: the delay of a batch is a minute.
            assert collector.spans == []
        assert [each.name for each in collector.spans] == ["chat m"] * 3
        resource = collector.spans[0].resource
        assert (resource["service.name"], resource["deployment.environment"]) == ("puna", "test")
        assert resource["service.version"] == "9"
    assert not events.wanted(events.RequestBegan)


async def test_the_name_of_the_service_is_the_variables(variables):
    async with collecting() as (collector, url):
        variables(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_SERVICE_NAME="mine")
        async with export.exporting(Limits()):
            request(Activity())
        assert collector.spans[0].resource["service.name"] == "mine"


async def test_a_dead_collector_delays_neither_requests_nor_the_end_and_fills_no_log(variables, closed, caplog):
    caplog.set_level(logging.WARNING)
    variables(
        OTEL_EXPORTER_OTLP_ENDPOINT=closed,
        OTEL_BSP_SCHEDULE_DELAY="1",
        OTEL_BSP_MAX_QUEUE_SIZE="64",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8",
    )
    activity = Activity()
    async with export.exporting(QUICK):
        for _ in range(2000):
            request(activity)
            # The thread that sends gets its turns.
            await asyncio.sleep(0)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    lines = [each.getMessage() for each in caplog.records]
    # One line for the failures of a minute, and one for the spans that were not sent.
    assert len(lines) == 2
    assert lines[0].startswith("the export of traces: ")
    assert "did not take them" in lines[1]


async def test_a_collector_that_comes_back_gets_spans_again(variables):
    async with collecting() as (_, url):
        pass
    variables(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="10", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    activity = Activity()
    async with export.exporting(Limits()):
        request(activity)
        await asyncio.sleep(0.1)
        async with collecting(int(url.rpartition(":")[2])) as (collector, _):

            async def ask():
                while not collector.spans:
                    request(activity)
                    await asyncio.sleep(0.05)

            await asyncio.wait_for(ask(), 60)


@pytest.mark.parametrize("given", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
async def test_opentelemetrys_variables_can_switch_it_off(variables, given):
    variables(**given)
    async with export.exporting(Limits()) as where:
        assert where == ""
        assert not events.wanted(events.RequestBegan)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "json"}, "OTEL_EXPORTER_OTLP_PROTOCOL is 'json'"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "OpenTelemetry is not configured well"),
    ],
)
async def test_a_bad_variable_is_an_error_at_the_start(variables, given, text):
    variables(**given)
    with pytest.raises(OSError, match=text):
        async with export.exporting(Limits()):
            pass
    assert not events.wanted(events.RequestBegan)


async def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(OSError, match=r"pip install 'puna\[otel\]'"):
        async with export.exporting(Limits()):
            pass
