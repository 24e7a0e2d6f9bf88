"""Contract tests without pytest."""

from tests.core.testing.test_harness import Contract, FixedBackend

from puna.testing import run_contract


class Few(Contract):
    def test_good(self):
        """It passes."""
        self.run(self.nothing)

    def test_bad(self):
        """It fails."""
        self.run(self.failing)

    def test_odd(self):
        raise LookupError("odd")


def test_each_test_has_an_outcome():
    FixedBackend.loads = 0
    bad, good, odd = run_contract(Few)
    assert (good.name, good.description, good.failure) == ("test_good", "It passes.", "")
    assert "AssertionError: it fails" in bad.failure
    assert "LookupError: odd" in odd.failure
    # The model that the failed test used is not used again.
    assert FixedBackend.loads == 2
