"""The error of a group of tasks."""


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the exception that made a group of tasks fail."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
