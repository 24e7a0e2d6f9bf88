"""The error of a group of tasks."""


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the exception that made a group of tasks fail."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        # The first one is the cause: it made the group cancel the others.
        error = error.exceptions[0]
    return error
