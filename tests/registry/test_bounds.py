"""Registries that say too much, or too slowly."""

import asyncio
import gzip
import shutil
import time
from dataclasses import replace

import pytest
from aiohttp import web
from tests.e2e.server import serving
from tests.registry.limits import QUICK
from tests.registry.peer import manifest, peering
from tests.registry.test_referrals import bearer, name_on

from puna.errors import RegistryNotAllowedError, TransferError
from puna.models.registry.policy import policy_of
from puna.models.registry.registries import Registries
from puna.settings import Settings


@pytest.fixture
async def evil():
    async with peering() as peer:
        yield peer


async def endless(request, first=b"", chunk=b"x" * 65536, pause=0.0, status=200, headers=None):
    """Send a body that does not end."""
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(request)
    await response.write(first)
    while True:
        await response.write(chunk)
        await asyncio.sleep(pause)


async def refused(side, name, limits=QUICK):
    """Pull, and return why it failed."""
    with pytest.raises(TransferError) as raised:
        await side(limits=limits).pull(name)
    return str(raised.value)


@pytest.mark.parametrize("status", [400, 403, 500])
async def test_errors_are_one_line(evil, side, status):
    evil.on("GET /v2/", {"status": status, "body": b"root:x:0:0\n\x1b[31m\x00\r\xff\n" + b"secret " * 9000})
    text = await refused(side, name_on(evil))
    assert text.startswith(f"pull model manifest: {status}: root:x:0:0 [31m")
    assert text.isprintable()
    assert len(text) < 400


async def test_errors_that_do_not_end(evil, side):
    evil.on("GET /v2/", lambda request: endless(request, status=500))
    assert len(await refused(side, name_on(evil))) < 400


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"text": '{"layers": [' + ",".join(["{}"] * 300_000) + "]}"}, "naming|layers|index"),
        (
            {"text": '{"layers": [' + ",".join(["{}"] * 20_000) + "]}"},
            "20000 layers and may name 10000; PUNA_MAX_MANIFEST_LAYERS",
        ),
        ({"body": b"x" * (2 << 20)}, "more than 1048576 bytes; PUNA_MAX_MANIFEST_BYTES"),
        ({"text": "[" * 500_000}, "nested too deep"),
        ({"text": '{"layers": ' + "[" * 500_000}, "nested too deep"),
        (manifest(2**70), "PUNA_MAX_MODEL_BYTES"),
        (manifest(-1), "has -1 bytes"),
        (
            manifest(*[2**41] * 3),
            "the model has 6597069766656 bytes, of 4398046511104 that it may have; PUNA_MAX_MODEL_BYTES",
        ),
        ({"text": '{"layers": [{"digest": "sha256:x", "size": ' + "9" * 5000 + "}]}"}, "pull model manifest"),
        ({"body": gzip.compress(b" " * 10_000_000), "headers": {"Content-Encoding": "gzip"}}, "pull model manifest"),
    ],
    ids=["bytes", "layers", "long", "deep", "deep-layers", "size", "negative", "sum", "digits", "bomb"],
)
async def test_manifests(evil, side, answer, why):
    evil.on("GET /v2/", answer)
    text = await refused(side, name_on(evil))
    assert any(each in text for each in why.split("|")) or "more than 1048576 bytes; PUNA_MAX_MANIFEST_BYTES" in text
    assert len(text) < 400
    assert len(evil.asked) == 1


async def test_a_manifest_that_does_not_end(evil, side):
    evil.on("GET /v2/", endless)
    assert "more than 1048576 bytes; PUNA_MAX_MANIFEST_BYTES" in await refused(side, name_on(evil))


async def test_a_manifest_that_comes_too_slowly(evil, side):
    evil.on("GET /v2/", lambda request: endless(request, b"{", b" ", 0.05))
    before = time.monotonic()
    assert "timeout" in await refused(side, name_on(evil), replace(QUICK, answer=0.5))
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(
    "answer",
    [
        {"text": '{"token": "' + "x" * 70_000 + '"}'},
        {"text": '{"token": "a\\r\\nX-Evil: 1"}'},
        {"text": '{"token": 5}'},
        {"text": "[" * 50_000},
        {"status": 400, "text": "no\n" * 5000},
    ],
    ids=["long", "header", "number", "deep", "error"],
)
async def test_tokens(evil, side, answer):
    evil.on("GET /v2/", bearer(f"{evil.url}/token"))
    evil.on("GET /token", answer)
    assert len(await refused(side, name_on(evil))) < 400
    assert not any("X-Evil" in each.headers for each in evil.asked)


@pytest.mark.parametrize("length", ["9" * 30, "9" * 5000, str(2**60)])
async def test_lengths(evil, side, length):
    evil.on("GET /v2/tests/m/manifests/", manifest(10))

    async def raw(request):
        request.transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode())
        return web.Response()

    evil.on("HEAD /v2/", raw)
    before = time.monotonic()
    await refused(side, name_on(evil))
    assert time.monotonic() - before < 10


async def test_a_blob_that_would_fill_the_disk(evil, side, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, 70 << 20))
    evil.on("GET /v2/tests/m/manifests/", manifest(10 << 20))
    evil.on("HEAD /v2/", {"headers": {"Content-Length": str(10 << 20)}})
    assert (await refused(side, name_on(evil))).endswith("-partial: no space left on device")
    assert [each.method for each in evil.asked] == ["GET", "HEAD"]


async def test_a_blob_of_another_length_than_the_manifest_says(evil, side):
    evil.on("GET /v2/tests/m/manifests/", manifest(10))
    evil.on("HEAD /v2/", {"headers": {"Content-Length": "1000000"}})
    assert "has 1000000 bytes, and its manifest says 10" in await refused(side, name_on(evil))


async def test_a_blob_that_does_not_end_is_cut_off(evil, side):
    evil.on("GET /v2/tests/m/manifests/", manifest(1000))
    evil.on("HEAD /v2/", {"headers": {"Content-Length": "1000"}})
    evil.on("GET /v2/tests/m/blobs", endless)
    two = side()
    with pytest.raises(TransferError, match="digest mismatch"):
        await two.pull(name_on(evil))
    assert two.files() == []


async def test_a_blob_that_comes_too_slowly(evil, side):
    evil.on("GET /v2/tests/m/manifests/", manifest(100_000))
    evil.on("HEAD /v2/", {"headers": {"Content-Length": "100000"}})
    evil.on("GET /v2/tests/m/blobs", lambda request: endless(request, b"", b"x", 0.05))
    limits = replace(QUICK, stall=0.3, tries=2)
    assert "max retries exceeded: the transfer stalled" in await refused(side, name_on(evil), limits)


@pytest.mark.parametrize("wait", ["9" * 400, "²", "-5", "1e9"])
async def test_waits_that_make_no_sense(evil, side, wait):
    evil.on("GET /v2/", {"status": 503, "text": "busy", "headers": {"Retry-After": wait}})
    assert await refused(side, name_on(evil)) == "pull model manifest: 503: busy"


class TestAllowedRegistries:
    @pytest.mark.parametrize(
        ("allowed", "host", "insecure", "fits"),
        [
            ((), "evil.example", False, True),
            (("registry.ollama.ai",), "registry.ollama.ai", False, True),
            (("registry.ollama.ai",), "REGISTRY.ollama.AI", False, True),
            (("registry.ollama.ai",), "registry.ollama.ai:443", False, True),
            (("registry.ollama.ai",), "registry.ollama.ai:444", False, False),
            (("registry.ollama.ai",), "registry.ollama.ai.evil.example", False, False),
            (("https://r",), "r", True, False),
            (("r:5000", "*.corp"), "a.corp", False, True),
            (("r:5000", "*.corp"), "r:5000", True, True),
            (("/nonsense",), "r", False, False),
        ],
    )
    async def test_what_is_listed(self, side, allowed, host, insecure, fits):
        one = side()
        one.registries = Registries(one.store, policy=policy_of(Settings(allowed_registries=allowed)))
        one.registries._connect = lambda repository: 1 / 0
        with pytest.raises(ZeroDivisionError if fits else RegistryNotAllowedError):
            await one.pull(f"{host}/a/b:c", insecure=insecure)

    def test_over_both_faces(self, tmp_path):
        with serving(tmp_path / "store", PUNA_ALLOWED_REGISTRIES="registry.ollama.ai") as server:
            text = b'{"error":"PUNA_ALLOWED_REGISTRIES does not list the registry evil.example"}'
            for path, body in (
                ("/api/pull", {"model": "evil.example/a/b"}),
                ("/api/pull", {"model": "evil.example/a/b", "insecure": True}),
                ("/api/push", {"model": "evil.example/a/b"}),
            ):
                for stream in (True, False):
                    status, _, answer = server.ask(path, body | {"stream": stream})
                    assert (status, answer) == (403, text)
            status, _, answer = server.ask("/api/create", {"model": "m", "from": "evil.example/a/b", "stream": False})
            assert (status, answer) == (403, text)
