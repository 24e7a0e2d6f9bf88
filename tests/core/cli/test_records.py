import json

import grpc.aio
import pytest
from tests.core.cli.serving import backend, registry, serving, settings, shared, stocked
from tests.core.rpc.conftest import Stubs

from puna.cli import records
from puna.cli.errors import CommandError
from puna.diagnostics.content import Policy
from puna.diagnostics.diagnostics import Diagnostics
from puna.rpc.server import serving as running
from puna.settings import Settings
from puna_client.v1 import diagnostics_pb2, generate_pb2

__all__ = ["backend", "registry", "serving", "settings", "shared", "stocked"]


@pytest.fixture
async def client(serving):
    """The settings of a command for a server that has answered one request and failed at another."""
    diagnostics = Diagnostics(Policy())
    async with (
        diagnostics.keeping(serving.activity.entries),
        running(serving, "127.0.0.1:0", diagnostics=diagnostics) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Settings(grpc_host=address), Stubs(channel).generate


async def asked(generate, backend):
    backend.play("Hel", "lo")
    await generate.Generate(generate_pb2.GenerateRequest(model="plain", text="Say\x1b[2J hi"))
    with pytest.raises(grpc.aio.AioRpcError):
        await generate.Generate(generate_pb2.GenerateRequest(model="nosuch", text="a"))


async def test_past_requests_are_listed(client, backend, capsys):
    settings, generate = client
    await asked(generate, backend)
    await records.past(settings, "", as_json=False)
    headers, failed, answered = capsys.readouterr().out.splitlines()
    assert headers.split() == list(records.HEADERS)
    assert failed.split()[2:5] == ["nosuch", "Generate", "failed:"]
    assert answered.split()[2:6] == ["plain", "Generate", "succeeded", "3"]
    await records.past(settings, "plain", as_json=True)
    assert [each["model"] for each in json.loads(capsys.readouterr().out)] == ["plain"]


async def test_one_is_shown_with_its_texts_and_without_its_control_characters(client, backend, capsys):
    settings, generate = client
    await asked(generate, backend)
    await records.show(settings, "1", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "outcome   succeeded" in lines
    assert lines[lines.index("--- prompt ---") + 1] == "Say\N{REPLACEMENT CHARACTER}[2J hi"
    assert lines[lines.index("--- answer ---") + 1] == "Hello"
    await records.show(settings, "2", as_json=False)
    shown = capsys.readouterr().out
    assert "outcome   failed: MODEL_NOT_FOUND" in shown
    assert "error     model 'nosuch' not found" in shown
    request_id = next(line.split()[1] for line in lines if line.startswith("request"))
    await records.show(settings, request_id, as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["number"] == "1"
    with pytest.raises(CommandError, match="no record"):
        await records.show(settings, "3", as_json=False)


def test_what_was_left_out_is_said():
    content = diagnostics_pb2.RequestContent(prompt_omitted=True, truncated=True, redacted_count=2)
    lines = list(records.described(diagnostics_pb2.RequestRecord(number=1, content=content)))
    assert "left out  prompts, text beyond the bound, passages that match a pattern: 2" in lines
