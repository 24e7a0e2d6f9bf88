"""Calls are listed while they last, and can be cancelled by others."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from puna.errors import ServerEndingError
from puna.rpc.wall import CancelledByRequestError
from puna.serving.activity import Activity, Entry


@contextmanager
def observed(activity: Activity, model: str, method: str) -> Generator[Entry]:
    """List the current call for as long as the block lasts.

    CancelledByRequestError: a request cancelled it. ServerEndingError: the server takes no calls, or has ended it.
    """
    with activity.entered(model, method) as entry:
        try:
            yield entry
        except asyncio.CancelledError:
            if entry.ended:
                raise ServerEndingError from None
            if entry.cancelled:
                raise CancelledByRequestError from None
            raise
