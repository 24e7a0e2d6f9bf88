import pytest

from puna.batch.quota import Quota, check_number
from puna.errors import TooLargeError
from puna.limits import Limits


def test_bytes_are_bounded_in_all_and_per_key():
    quota = Quota(Limits(max_stored_bytes=10, max_stored_bytes_per_key=6))
    quota.add("one", 6)
    for owner, size in (("one", 1), ("two", 5), ("", 5)):
        with pytest.raises(TooLargeError):
            quota.add(owner, size)
    # What was refused was not counted.
    quota.add("two", 4)
    quota.remove("one", 6)
    quota.add("", 6)


def test_callers_without_a_key_share_the_whole():
    quota = Quota(Limits(max_stored_bytes=10, max_stored_bytes_per_key=6))
    quota.add("", 10)


def test_what_must_be_stored_is_counted_beyond_the_limit():
    quota = Quota(Limits(max_stored_bytes=10))
    quota.force("one", 11)
    with pytest.raises(TooLargeError):
        quota.add("two", 1)
    quota.remove("one", 11)
    quota.add("two", 10)


def test_a_limit_of_0_is_none():
    check_number("files", 10**9, 2**63 - 1, "X")
    with pytest.raises(TooLargeError, match="there are 3 files of this key, which is the limit; X changes it"):
        check_number("files", 3, 3, "X", " of this key")
