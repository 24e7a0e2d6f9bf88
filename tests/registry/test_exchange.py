"""Models that go to a registry and come from it whole."""

import hashlib
from contextlib import aclosing

import pytest
from tests.e2e.server import MODELS, serving
from tests.registry.front import Answer, Redirect, Slow, ToStorage

from puna.errors import TransferError
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.layout import manifest as manifests
from puna.models.progress import JobPhase, TransferStep
from puna.models.registry.repository import Repository
from puna.models.storage import integrity, stat_fingerprints
from puna.serving.catalogue import Catalogue


async def test_what_was_pushed_comes_back_byte_for_byte(pushed, side):
    two = side()
    steps = await two.pull(pushed.name)
    assert [step.status for step in steps if not step.digest] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert two.manifest(pushed.name) == pushed.manifest(pushed.name).rstrip(b"\n")
    assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
    (listed,) = two.store.list()
    assert (listed.name.shortest, listed.digest) == (
        pushed.name,
        hashlib.sha256(two.manifest(pushed.name)).hexdigest(),
    )
    assert [name for name in two.files() if "partial" in name] == []


async def test_what_is_here_is_told_in_one_line_each_in_the_manifests_order(pushed, side):
    two = side()
    await two.pull(pushed.name)
    steps = await two.pull(pushed.name)
    manifest = manifests.loads(two.manifest(pushed.name))
    assert [step for step in steps if step.digest] == [
        TransferStep(JobPhase.DOWNLOADING, f"pulling {layer.digest[7:19]}", layer.digest, layer.size, layer.size)
        for layer in (*manifest.layers, manifest.config)
    ]
    assert [step.status for step in steps[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]


async def test_progress_grows_to_the_total(pushed, side, front):
    front.on(Slow(16384, 0.01), path=pushed.digest, times=99)
    steps = [step for step in await side().pull(pushed.name) if step.digest == pushed.digest]
    assert len(steps) > 5
    assert {step.total for step in steps} == {pushed.store.blobs.size(pushed.digest)}
    assert [step.completed for step in steps] == sorted(step.completed for step in steps)
    assert steps[0].completed < steps[-1].completed <= steps[-1].total


async def test_what_the_registry_has_is_not_sent_again(pushed, front):
    steps = await pushed.push(pushed.name)
    manifest = manifests.loads(pushed.manifest(pushed.name))
    assert steps == [
        TransferStep(JobPhase.READING_MANIFEST, "retrieving manifest"),
        *(
            TransferStep(JobPhase.UPLOADING, f"pushing {layer.digest[7:19]}", layer.digest, layer.size, layer.size)
            for layer in (*manifest.layers, manifest.config)
        ),
        TransferStep(JobPhase.WRITING_MANIFEST, "pushing manifest"),
        TransferStep(JobPhase.DONE, "success"),
    ]
    assert front.asked("PATCH") == front.asked("POST") == []


async def test_each_blob_that_is_sent_has_a_line_that_is_full(side, name):
    one = side()
    one.make(name)
    steps = await one.push(name)
    for layer in manifests.loads(one.manifest(name)).layers:
        assert (
            TransferStep(JobPhase.UPLOADING, f"pushing {layer.digest[7:19]}", layer.digest, layer.size, layer.size)
            in steps
        )
    assert [step.status for step in steps[-2:]] == ["pushing manifest", "success"]


async def test_inherited_layers_are_mounted(pushed, front):
    child = pushed.name.replace(":v1", "-child:v1")
    list(create(pushed.store, CreateRequest(name=child, base=pushed.name, system="Another.")))
    await pushed.push(child)
    mounts = [each for each in front.asked("POST") if "mount=" in each.query]
    assert len(mounts) == 2
    assert len(front.asked("PATCH")) == 2  # the new text, and the configuration, of which nobody knows whence it is


async def test_blobs_in_a_storage_are_asked_for_without_showing_who_asks(pushed, side, front):
    front.tokens = {"good"}
    front.on(ToStorage(), times=99)
    two = side()
    await two.pull(pushed.name)
    assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
    stored = front.asked("GET", "/storage/")
    assert stored
    assert not any("Authorization" in each.headers for each in stored)
    assert all(each.host == front.other for each in stored)
    assert {each.query for each in stored} == {"sign=a/b"}  # %2F, not decoded and encoded again


@pytest.mark.parametrize("status", [301, 302, 303, 308])
async def test_other_redirects_do_as_well(pushed, side, front, status):
    front.on(Redirect(status), times=99)
    two = side()
    await two.pull(pushed.name)
    assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
    assert front.asked("GET", "/storage/")


async def test_parts_may_be_put_into_a_storage(side, front, name):
    one, two = side(), side()
    one.make(name, size=700_000)
    front.on(ToStorage(), method="PATCH", path="/uploads/", times=99)
    await one.push(name)
    assert len(front.asked("PUT", "/storage/")) > 4
    await two.pull(name)
    assert two.blobs(name) == one.blobs(name)


async def test_addresses_of_uploads_may_be_relative(side, front, name):
    one, two = side(), side()
    one.make(name, size=250_000)
    front.relative = True
    await one.push(name)
    await two.pull(name)
    assert two.blobs(name) == one.blobs(name)


async def test_a_new_version_takes_the_place_of_the_old_and_its_blobs_go(pushed, side, front):
    two = side()
    await two.pull(pushed.name)
    before = two.blobs(pushed.name)
    pushed.make(pushed.name, size=100_000, system="Another.")
    await pushed.push(pushed.name)
    statuses = [step.status for step in await two.pull(pushed.name)]
    assert statuses[-3:] == ["writing manifest", "removing unused layers", "success"]
    gone = set(before) - set(two.blobs(pushed.name))
    assert gone
    assert not any(two.store.blobs.has(digest) for digest in gone)


async def test_a_store_that_is_never_pruned_keeps_them(pushed, side):
    two = side(no_prune=True)
    await two.pull(pushed.name)
    before = two.blobs(pushed.name)
    pushed.make(pushed.name, size=100_000, system="Another.")
    await pushed.push(pushed.name)
    assert "removing unused layers" not in [step.status for step in await two.pull(pushed.name)]
    assert all(two.store.blobs.has(digest) for digest in before)


async def test_a_damaged_blob_of_another_length_is_fetched_again(pushed, side):
    two = side()
    await two.pull(pushed.name)
    path = two.store.blobs.path(pushed.digest)
    path.write_bytes(path.read_bytes()[:1000])
    await two.pull(pushed.name)
    assert two.blobs(pushed.name) == pushed.blobs(pushed.name)


@pytest.mark.parametrize("small", [True, False])
async def test_a_damaged_blob_of_the_right_length_is_found_and_fetched_again(pushed, side, front, monkeypatch, small):
    if not small:
        for module in (integrity, stat_fingerprints):
            monkeypatch.setattr(module, "SMALL", 1000)
    two = side()
    await two.pull(pushed.name)
    path = two.store.blobs.path(pushed.digest)
    content = bytearray(path.read_bytes())
    content[200_000] ^= 1
    path.write_bytes(content)
    front.seen.clear()
    statuses = [step.status for step in await two.pull(pushed.name)]
    assert f"removing damaged blob {pushed.digest[7:19]}" in statuses
    assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
    assert {each.path.rpartition("/")[2] for each in front.asked("GET", "/blobs/")} == {pushed.digest}
    assert "removing" not in " ".join(step.status for step in await two.pull(pushed.name))


async def test_a_model_is_made_of_one_that_has_to_be_pulled(pushed, side, monkeypatch):
    of = Repository.of  # creations never ask in the clear, but this registry knows nothing else
    monkeypatch.setattr(Repository, "of", lambda name, *, insecure: of(name, insecure=True))
    two = side()
    async with aclosing(Catalogue(two.store, two.registries).create(CreateRequest(name="m", base=pushed.name))) as made:
        statuses = [step.status async for step in made if not step.digest]
    assert statuses[:3] == ["pulling manifest", "verifying sha256 digest", "writing manifest"]
    assert statuses.count("success") == 1
    assert statuses[-2:] == ["writing manifest", "success"]
    assert [name.shortest for name in two.store.names()] == [pushed.name, "m:latest"]


class TestRefusals:
    async def failing(self, side, name, **how):
        with pytest.raises(TransferError) as raised:
            await side.pull(name, **how)
        return str(raised.value)

    async def test_no_such_model(self, side, name):
        assert await self.failing(side(), name) == "pull model manifest: file does not exist"

    async def test_nobody_listens(self, side):
        text = await self.failing(side(), "127.0.0.1:1/lib/kid:v9")
        url = "http://127.0.0.1:1/v2/lib/kid/manifests/v9"
        assert text == f'pull model manifest: Get "{url}": dial tcp 127.0.0.1:1: connect: connection refused'

    async def test_a_registry_without_tls(self, side, front):
        text = await self.failing(side(), f"{front.host}/lib/kid:v9", insecure=False)
        url = f"https://{front.host}/v2/lib/kid/manifests/v9"
        assert text == f'pull model manifest: Get "{url}": http: server gave HTTP response to HTTPS client'

    async def test_an_unknown_host(self, side):
        text = await self.failing(side(), "nohost.invalid/lib/kid:v9")
        url = "http://nohost.invalid/v2/lib/kid/manifests/v9"
        assert text == f'pull model manifest: Get "{url}": dial tcp: lookup nohost.invalid: no such host'

    async def test_a_model_that_is_not_here_is_not_pushed(self, side, name):
        one = side()
        with pytest.raises(TransferError, match=r"no such file or directory$"):
            await one.push(name)

    async def test_tensor_models_are_refused(self, pushed, side, front):
        tensor = b'{"config":{},"layers":[{"mediaType":"application/vnd.ollama.image.tensor","digest":"sha256:%s"}]}'
        front.on(Answer(200, (tensor % (b"0" * 64)).decode()), path="/manifests/")
        text = await self.failing(side(), pushed.name)
        assert text == "this model requires MLX support, but the MLX runtime is not available"

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ('{"layers":[{"digest":"../../etc/passwd","size":1}]}', "invalid digest format"),
            ('{"layers":[{"digest":"","size":1}]}', "tests/{}: digest is empty"),
            ('{"manifests":[]}', "pull model manifest: the registry has no model of that name, but an index of images"),
        ],
    )
    async def test_manifests_that_are_wrong(self, side, front, name, body, text):
        front.on(Answer(200, body), path="/manifests/")
        two = side()
        assert await self.failing(two, name) == text.format(name.split("/")[2].partition(":")[0])
        assert two.store.names() == []


def test_a_server_gets_back_a_model_that_runs(docker, tmp_path):
    name = f"{docker}/tests/scripted:v1"
    question = {"model": name, "prompt": "Hello", "stream": False, "options": {"temperature": 0}}
    with serving(tmp_path / "store") as server:
        server.upload(name, MODELS / "scripted.gguf")
        before = server.json("/api/generate", question)["response"]
        assert server.json("/api/push", {"model": name, "insecure": True, "stream": False}) == {"status": "success"}
        assert server.ask("/api/delete", {"model": name}, method="DELETE")[0] == 200
        with server.open("/api/pull", {"model": name, "insecure": True}) as answer:
            lines = answer.read().splitlines()
        assert (lines[0], lines[-1]) == (b'{"status":"pulling manifest"}', b'{"status":"success"}')
        assert server.json("/api/generate", question)["response"] == before != ""
        status, _, text = server.ask("/api/pull", {"model": name + "9", "insecure": True, "stream": False})
        assert (status, text) == (500, b'{"error":"pull model manifest: file does not exist"}')
