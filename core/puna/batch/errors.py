"""The errors of requests of batches."""

from puna.errors import PunaError


class BatchExpiredError(PunaError):
    """A request of a batch did not run within the completion window."""

    reason = "BATCH_EXPIRED"
    text = "the request did not run within the completion window of its batch"
