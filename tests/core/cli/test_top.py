import io

from rich.console import Console

from puna.cli.top import Snapshot, rates, render
from puna_client.v1 import models_pb2, server_pb2

NOW = 1_000_000.0


def request(id_, tokens, model="m:latest", phase=server_pb2.REQUEST_PHASE_DECODE, place=0):
    info = server_pb2.RequestInfo(
        id=id_, model=model, method="StreamChat", output_tokens=tokens, phase=phase, queue_position=place
    )
    info.start_time.FromNanoseconds(int((NOW - 2.5) * 1e9))
    return info


def taken(seconds, *requests):
    return Snapshot(seconds, requests=requests, tokens={each.id: each.output_tokens for each in requests})


def test_rates_count_what_was_written_between_two_looks():
    before = taken(10.0, request("r1", 100), request("r2", 50, "other"))
    after = taken(12.0, request("r1", 160), request("r3", 20), request("r4", 5, "other"))
    # The end of r2 is not counted against the model, and new requests count from their beginning.
    assert rates(before, after) == {"m": 40.0, "other": 2.5}


def test_looks_at_the_same_time_do_not_divide_by_zero():
    assert rates(taken(1.0), taken(1.0, request("r1", 1))) == {"m": 10.0}


def test_tables_show_models_and_requests_within_eighty_columns():
    model = models_pb2.LoadedModel(backend="llama_cpp", size_bytes=744_000_000, active_requests=1, queued_requests=2)
    model.model.name = "m:latest"
    model.kv_cache.total_tokens, model.kv_cache.active_tokens, model.kv_cache.cached_tokens = 8192, 1024, 4000
    model.expire_time.FromNanoseconds(int((NOW + 299) * 1e9))
    waiting = request("r2", 0, phase=server_pb2.REQUEST_PHASE_QUEUED, place=1)
    found = Snapshot(0.0, [model], [request("r1", 7), waiting], pending=1)
    out = io.StringIO()
    Console(file=out, width=80).print(render(found, {"m": 12.34}, NOW))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines[0] == "1 models, 1 requests run, 1 wait, 1 of them for a model, 12.3 tokens/s"
    assert "m llama_cpp 744 MB 1 2 12% 12.3 4 minutes from now" in lines
    assert "r1 m StreamChat decode - 7 2.5" in lines
    assert "r2 m StreamChat queued 1 0 2.5" in lines


def test_names_are_shown_as_they_are():
    """Square brackets are markup to the library that draws the tables."""
    out = io.StringIO()
    Console(file=out, width=80).print(render(Snapshot(0.0, requests=[request("r1", 0, "[red]m[/red]")]), {}, NOW))
    assert "[red]m[/red]" in out.getvalue()
