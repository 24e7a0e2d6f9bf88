"""Describes an exception for the log without its text, which may quote a prompt."""

import traceback


def summarize(error: BaseException) -> str:
    """Return the exception's class and the frames of its traceback, one per line."""
    # format_tb shows lines of source code, never values. The exception's own text is left out.
    return f"{type(error).__qualname__}\n" + "".join(traceback.format_tb(error.__traceback__)).rstrip()
