"""Runs contract tests without pytest, for programs and for authors of other languages."""

import unittest
from collections.abc import Iterator
from dataclasses import dataclass

from puna.testing.harness import ContractBase


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one contract test has ended."""

    name: str
    description: str
    """What the test demands, and what to do if it fails."""
    failure: str = ""
    """The traceback of a test that failed; empty for one that passed."""


def run_contract(contract: type[ContractBase]) -> Iterator[Outcome]:
    """Run all tests of a contract class, one after the other, and yield how each has ended."""
    tests = contract()
    try:
        for name in sorted(each for each in dir(contract) if each.startswith("test_")):
            method = getattr(tests, name)
            result = unittest.TestResult()
            # unittest turns every exception of the test into a traceback, also those of the tested code.
            unittest.FunctionTestCase(method).run(result)
            failures = [text for _, text in (*result.failures, *result.errors)]
            yield Outcome(name, method.__doc__ or "", "\n".join(failures))
    finally:
        contract.teardown_class()
