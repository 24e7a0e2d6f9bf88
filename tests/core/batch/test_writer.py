import pytest
from tests.core.batch.conftest import make

from puna.errors import InvalidRequestError, TooLargeError


def test_custom_ids_are_unique_and_named(open_batches):
    with pytest.raises(InvalidRequestError, match=r"request 3: the custom id 'a' is that of an earlier request"):
        make(open_batches(), "a", "b", "a")
    assert open_batches().store.listed("") == []


def test_an_empty_batch_is_refused(open_batches):
    with pytest.raises(InvalidRequestError, match="no request"):
        make(open_batches())


@pytest.mark.parametrize(
    ("changed", "setting"),
    [
        ({"max_batch_requests": 2}, "PUNA_MAX_BATCH_REQUESTS"),
        ({"max_file_bytes": 50}, "PUNA_MAX_FILE_BYTES"),
        ({"max_stored_bytes": 50}, "PUNA_MAX_STORED_BYTES"),
        ({"max_stored_bytes_per_key": 50}, "PUNA_MAX_STORED_BYTES_PER_KEY"),
        ({"max_batches": 1}, "PUNA_MAX_BATCHES"),
        ({"max_batches_per_key": 1}, "PUNA_MAX_BATCHES_PER_KEY"),
    ],
)
def test_limits_hold_and_leave_nothing(open_batches, changed, setting, tmp_path):
    found = open_batches(**changed)
    make(found, "x", owner="key")
    before = sorted(tmp_path.rglob("*"))
    writer = None
    with pytest.raises(TooLargeError) as raised:
        writer = found.store.writer("key", local=False, long_errors=False, window=1, metadata={}, data=b"")
        for each in "abc":
            writer.add(each, each.encode(), alone=False)
    assert raised.value.info["setting"] == setting
    if writer is not None:
        writer.close()
    assert sorted(tmp_path.rglob("*")) == before
    # What was refused is not counted: the same bytes fit again after the first batch is gone.
    found.store.delete(found.store.listed("key")[0])
    make(found, "y", owner="key")
