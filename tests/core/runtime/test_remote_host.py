"""The reports of a node on a host, as the core reads them."""

import asyncio

from puna.backend.v1 import node_pb2 as wire
from puna.runtime.remote_host import RemoteHost


def host(stop=None):
    told = []

    async def note(kill):
        told.append(kill)

    made = RemoteHost("gpu1:7", "m:latest", stop or note)
    made.started(4711)
    return made, told


def ended(**fields):
    return wire.StartHostResponse(ended=wire.HostEnded(**fields))


async def test_the_end_of_a_host_has_its_cause_and_place():
    made, _ = host()
    assert (made.title, made.pid, made.status) == ("host 4711 on gpu1:7", 0, "disconnected")
    assert not await made.died(within=0.0)
    made.take(ended(status="SIGKILL", explanation="SIGKILL: last words"))
    assert await made.died(within=0.0)
    assert (made.status, made.explain()) == ("SIGKILL", "SIGKILL: last words (on gpu1:7)")
    assert (made.ended, made.unreachable) == (True, False)
    made.lose("later")
    assert made.explain().startswith("SIGKILL")


async def test_a_node_chooses_no_label_of_metrics_and_no_endless_text():
    made, _ = host()
    made.take(ended(status="my own", explanation="x" * 100_000))
    assert made.status == "disconnected"
    assert len(made.explain()) < 3_000


async def test_output_and_progress_are_passed_on():
    made, heard = host()
    made.on_output, made.on_progress = lambda: heard.append("output"), heard.append
    made.take(wire.StartHostResponse(output=wire.HostOutput(last_line="loading", progress=0.5)))
    assert heard == ["output", 0.5]
    assert made.last_line == "loading"


async def test_a_lost_host_is_not_told_to_end():
    made, told = host()
    made.lose("gpu1:7 has not answered")
    made.kill()
    await made.stop()
    assert told == []
    assert made.unreachable


async def test_a_host_is_killed_once():
    made, told = host()
    made.kill()
    made.kill()
    assert made.ended
    await made.stop()
    assert told[0] is True
    assert len(told) <= 2


async def test_a_node_that_does_not_end_a_host_keeps_nothing_waiting(monkeypatch, caplog):
    monkeypatch.setattr("puna.runtime.remote_host.STOP_SECONDS", 0.05)

    async def never(kill):
        await asyncio.sleep(3600)

    made, _ = host(never)
    await asyncio.wait_for(made.stop(), 20)
    assert "host 4711 on gpu1:7 does not end" in caplog.text
