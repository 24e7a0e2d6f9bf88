"""Lines that are cut, storages that lie, registries that are busy: what comes through, and what is said if not."""

import asyncio
import errno
import os
from contextlib import aclosing
from dataclasses import replace

import pytest
from tests.registry.front import Answer, Corrupt, Cut, CutUpload, NoRanges, Slow, Stall, ToStorage
from tests.registry.limits import QUICK

from puna.errors import TransferError
from puna.model_name import ModelName
from puna.models.registry import parts
from puna.models.registry.partial import PartialBlob


def notes(side):
    """The state files of a store."""
    return [name for name in side.files() if "-partial-" in name]


async def begun(side, name, digest, enough):
    """Pull until so many bytes of a blob are there, then hang up."""
    async with aclosing(side.registries.pull(ModelName.parse(name), insecure=True)) as steps:
        async for step in steps:
            if step.digest == digest and step.completed >= enough:
                return
    pytest.fail("it was over too soon")


class TestPull:
    async def test_a_line_that_is_cut_five_times(self, pushed, side, front):
        for after in (50_000, 40_000, 30_000, 0, 20_000):
            front.on(Cut(after), path=pushed.digest)
        two = side(limits=replace(QUICK, smallest_part=10**9))
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
        ranges = [each.headers["Range"] for each in front.asked("GET", pushed.digest)][1:]
        firsts = [int(each.partition("=")[2].partition("-")[0]) for each in ranges]
        assert firsts == sorted(firsts)
        assert firsts[-1] > 100_000  # nothing that had come was asked for again

    async def test_a_line_that_is_always_cut(self, pushed, side, front):
        front.on(Cut(100), path=pushed.digest, times=99)
        two = side(limits=replace(QUICK, smallest_part=10**9))
        with pytest.raises(TransferError, match=r"^max retries exceeded: .*unexpected EOF"):
            await two.pull(pushed.name)
        assert two.store.names() == []
        assert notes(two) == [PartialBlob(two.store.blobs.path(pushed.digest)).path.name + "-0"]

    async def test_progress_gives_new_tries(self, pushed, side, front):
        front.on(Cut(20_000), path=pushed.digest, times=9)
        two = side(limits=replace(QUICK, smallest_part=10**9, progress=10_000, tries=3))
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    async def test_a_part_that_stalls_is_asked_for_again(self, pushed, side, front):
        front.on(Stall(30_000), path=pushed.digest, times=2)
        two = side(limits=replace(QUICK, tries=1))  # a stall does not count
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    async def test_wrong_bytes(self, pushed, side, front):
        front.on(Corrupt(), path=pushed.digest)
        two = side()
        with pytest.raises(TransferError) as raised:
            await two.pull(pushed.name)
        assert str(raised.value).startswith(
            f"digest mismatch, file must be downloaded again: want {pushed.digest}, got sha256:"
        )
        assert two.store.names() == []
        assert not [name for name in two.files() if pushed.digest[7:] in name]
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_a_registry_that_is_busy(self, pushed, side, front, status):
        front.on(Answer(status, "busy", {"Retry-After": "0"}), method="HEAD", times=2)
        front.on(Answer(status, "busy"), times=3)
        two = side()
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    async def test_a_registry_that_is_broken(self, side, front, name):
        front.on(Answer(500, "out of order"), path="/manifests/")
        with pytest.raises(TransferError, match=r"^pull model manifest: 500: out of order$"):
            await side().pull(name)

    async def test_a_blob_that_is_gone(self, pushed, side, front):
        front.on(Answer(404), method="HEAD", path=pushed.digest)
        with pytest.raises(TransferError, match=r"^file does not exist$"):
            await side().pull(pushed.name)

    @pytest.mark.parametrize("status", [403, 405])
    async def test_a_storage_that_does_not_say_how_long_a_blob_is(self, pushed, side, front, status):
        front.on(Answer(status), method="HEAD", times=99)
        two = side()
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    async def test_a_blob_that_cannot_be(self, side, front, name):
        layer = '{"digest":"sha256:%s","size":99999999999999999}' % ("a" * 64)
        front.on(Answer(200, f'{{"layers":[{layer}]}}'), path="/manifests/")
        front.on(Answer(200, "", {"Content-Length": "99999999999999999"}), method="HEAD")
        with pytest.raises(
            TransferError,
            match=r"^the registry says that .* has 99999999999999999 bytes, .* PUNA_MAX_MODEL_BYTES changes the limit$",
        ):
            await side().pull(name)

    async def test_a_server_without_ranges(self, pushed, side, front):
        front.on(NoRanges(), path=pushed.digest, times=99)
        two = side()
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    async def test_an_address_that_is_too_old_is_found_out_anew(self, pushed, side, front):
        front.on(ToStorage(), times=99)
        front.on(Answer(403, "expired"), method="STORAGE", path="", times=1)
        two = side(limits=replace(QUICK, smallest_part=10**9))
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    @pytest.mark.parametrize(
        ("number", "text"), [(errno.ENOSPC, "no space left on device"), (errno.EROFS, "read-only file system")]
    )
    async def test_a_disk_that_takes_no_more(self, pushed, side, monkeypatch, number, text):
        def full(*what):
            raise OSError(number, os.strerror(number))

        two = side()
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(TransferError, match=rf"^write .*-partial: {text}$"):
            await two.pull(pushed.name)
        assert two.store.names() == []
        monkeypatch.undo()
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    async def test_a_store_that_cannot_be_written(self, pushed, side):
        two = side()
        two.store.root.parent.mkdir(exist_ok=True)
        two.store.root.write_text("a file where the folder should be")
        with pytest.raises(TransferError, match=r"^open .*-partial: "):
            await two.pull(pushed.name)


class TestResuming:
    async def test_who_hangs_up_keeps_what_came(self, pushed, side, front):
        front.on(Slow(8192, 0.01), path=pushed.digest, times=99)
        two = side()
        await begun(two, pushed.name, pushed.digest, 80_000)
        found = PartialBlob(two.store.blobs.path(pushed.digest)).parts()
        had = sum(part.completed for part in found)
        assert had >= 80_000
        assert two.store.names() == []
        front._armed.clear()
        front.sent = 0
        front.seen.clear()
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
        assert front.sent < pushed.store.blobs.size(pushed.digest) - had + 10_000
        assert front.asked("HEAD", pushed.digest) == []  # the notes say how long it is
        assert notes(two) == []

    async def test_notes_that_the_reference_wrote(self, pushed, side, front):
        two = side()
        content = pushed.blobs(pushed.name)[pushed.digest]
        final = two.store.blobs.path(pushed.digest)
        final.parent.mkdir(parents=True)
        half = len(content) // 2
        final.with_name(final.name + "-partial").write_bytes(content[:half] + bytes(len(content) - half))
        state = '{"N":0,"Offset":0,"Size":%d,"Completed":%d}\n'
        final.with_name(final.name + "-partial-0").write_text(state % (len(content), half))
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
        (asked,) = [each.headers["Range"] for each in front.asked("GET", pushed.digest)][1:]
        assert asked == f"bytes={half}-{len(content) - 1}"

    @pytest.mark.parametrize("note", ["", "{}", '{"N":0,"Offset":0,"Size":9', '{"N":1,"Offset":5,"Size":9}', "[1]"])
    async def test_notes_that_make_no_sense(self, pushed, side, note):
        two = side()
        final = two.store.blobs.path(pushed.digest)
        final.parent.mkdir(parents=True)
        final.with_name(final.name + "-partial-0").write_text(note)
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
        assert notes(two) == []

    async def test_notes_of_bytes_that_are_gone(self, pushed, side):
        two = side()
        final = two.store.blobs.path(pushed.digest)
        final.parent.mkdir(parents=True)
        size = pushed.store.blobs.size(pushed.digest)
        final.with_name(final.name + "-partial-0").write_bytes(parts.dumps(parts.Part(0, 0, size, size)))
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    async def test_all_had_come_but_its_name(self, pushed, side, front):
        two = side()
        final = two.store.blobs.path(pushed.digest)
        final.parent.mkdir(parents=True)
        content = pushed.blobs(pushed.name)[pushed.digest]
        final.with_name(final.name + "-partial").write_bytes(content)
        note = parts.dumps(parts.Part(0, 0, len(content), len(content)))
        final.with_name(final.name + "-partial-0").write_bytes(note)
        await two.pull(pushed.name)
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
        assert front.asked("GET", pushed.digest) == []


class TestTogether:
    async def test_two_pulls_bring_a_blob_once(self, pushed, side, front):
        front.on(Slow(16384, 0.005), path=pushed.digest, times=99)
        two = side()
        ended = await asyncio.gather(two.pull(pushed.name), two.pull(pushed.name))
        assert [steps[-1].status for steps in ended] == ["success", "success"]
        assert all(any(step.digest == pushed.digest for step in steps) for steps in ended)
        assert front.sent < 1.1 * sum(map(len, pushed.blobs(pushed.name).values())) + 5000
        assert len(two.registries._downloads) == 0

    async def test_one_may_leave(self, pushed, side, front):
        front.on(Slow(8192, 0.01), path=pushed.digest, times=99)
        two = side()
        staying = asyncio.ensure_future(two.pull(pushed.name))
        await begun(two, pushed.name, pushed.digest, 30_000)
        assert not staying.done()
        await staying
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)

    async def test_the_last_one_ends_it(self, pushed, side, front):
        front.on(Slow(8192, 0.05), path=pushed.digest, times=99)
        two = side()
        pulls = [asyncio.ensure_future(two.pull(pushed.name)) for _ in range(2)]
        for _ in range(500):
            if front.sent > 10_000:
                break
            await asyncio.sleep(0.01)
        for each in pulls:
            each.cancel()
        await asyncio.wait(pulls)
        assert len(two.registries._downloads) == 0
        sent = front.sent
        await asyncio.sleep(0.3)
        assert front.sent - sent < 50_000  # nobody asks for more

    async def test_two_servers_on_one_store(self, pushed, side, front):
        front.on(Slow(16384, 0.005), path=pushed.digest, times=99)
        two = side()
        other = side()
        other.registries._store = two.store
        await asyncio.gather(two.pull(pushed.name), other.pull(pushed.name))
        assert two.blobs(pushed.name) == pushed.blobs(pushed.name)
        assert front.sent < 1.1 * sum(map(len, pushed.blobs(pushed.name).values())) + 5000
        assert [name for name in two.files() if "partial" in name] == []


class TestPush:
    @pytest.mark.parametrize("after", [0, 60_000, 150_000])
    async def test_a_line_that_is_cut(self, side, front, name, after):
        one, two = side(), side()
        one.make(name)
        front.on(CutUpload(after), method="PATCH", path="/uploads/", times=2)
        await one.push(name)
        await two.pull(name)
        assert two.blobs(name) == one.blobs(name)

    async def test_a_registry_that_is_busy(self, side, front, name):
        one, two = side(), side()
        one.make(name)
        front.on(Answer(503, "busy"), method="PATCH", path="/uploads/")
        front.on(Answer(503, "busy"), method="PUT", path="/uploads/")
        await one.push(name)
        await two.pull(name)
        assert two.blobs(name) == one.blobs(name)

    async def test_a_registry_that_has_no_room(self, side, front, name):
        one = side()
        one.make(name)
        front.on(Answer(507, "full"), method="PATCH", path="/uploads/", times=99)
        with pytest.raises(TransferError, match=r"^max retries exceeded: 507: full$"):
            await one.push(name)

    async def test_a_manifest_that_is_refused(self, side, front, name):
        one = side()
        one.make(name)
        front.on(Answer(400, "no such type"), method="PUT", path="/manifests/")
        with pytest.raises(TransferError, match=r"^400: no such type$"):
            await one.push(name)

    async def test_two_pushes_send_a_blob_once(self, side, front, name):
        one = side()
        one.make(name, size=100_000)
        front.on(Answer(503), method="PATCH", path="/uploads/", times=3)  # time for the second to join
        ended = await asyncio.gather(one.push(name), one.push(name))
        assert [steps[-1].status for steps in ended] == ["success", "success"]
        assert len(one.registries._uploads) == 0
