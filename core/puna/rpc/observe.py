"""The list of running calls, through which ServerService shows and cancels them."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from puna.errors import PunaError, ServerEndingError
from puna.rpc.error_boundary import CancelledByRequestError
from puna.serving.activity import Activity, Entry


@contextmanager
def observed(activity: Activity, model: str, method: str) -> Generator[Entry]:
    """Keep the current call in the list while the block runs; yield its entry.

    CancelledByRequestError: CancelRequests cancelled the call. ServerEndingError: shutdown has begun, or has cancelled
    the call.
    """
    with activity.entered(model, method) as entry:
        try:
            yield entry
        except PunaError as error:
            if model:
                error.info.setdefault("model", model)
            raise
        except asyncio.CancelledError:
            # The end of the server comes first: a call that was also cancelled by id gets the status on which clients
            # retry.
            if entry.ended:
                raise ServerEndingError from None
            if entry.cancelled:
                raise CancelledByRequestError from None
            raise
