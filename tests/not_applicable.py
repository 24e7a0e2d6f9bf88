"""Leaves out tests that mean nothing on this machine, and has the summary of the run say so.

Such a test lacks no tool, so it is not skipped: a processor or a kernel is what the machine has.
"""

import pytest

LINES = pytest.StashKey[list[str]]()


def leave_out(config, items, others, text):
    """Deselect the tests `others`. The summary says how many, followed by `text`, which has the reason."""
    if not others:
        return
    config.stash.setdefault(LINES, []).append(f"{len(others)} {text}")
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
