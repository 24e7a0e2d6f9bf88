from puna.models.registry import download
from puna.models.registry.download import Download
from puna.models.registry.limits import Limits
from puna.models.registry.partial import PartialBlob


async def test_a_lock_that_comes_too_late_leaves_no_file(tmp_path, monkeypatch):
    """Another process completes the blob between the look at it and the lock, which makes the file anew."""
    final = tmp_path / "sha256-a"
    looks = iter((False, True))

    def is_present(partial, size):
        found = next(looks)
        if not found:
            final.write_bytes(b"whole")
        return found

    monkeypatch.setattr(download, "is_present", is_present)
    late = Download(PartialBlob(final), "sha256:a", 5, None, Limits())
    async with late._locked() as mine:
        assert not mine
    assert [path.name for path in tmp_path.iterdir()] == ["sha256-a"]
