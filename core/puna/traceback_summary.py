"""What a log may say of an exception: its kind and where it came from, not its text, which may quote a prompt."""

import traceback


def summarize(error: BaseException) -> str:
    """Return the exception's kind, and the frames it went through, one a line."""
    return f"{type(error).__qualname__}\n" + "".join(traceback.format_tb(error.__traceback__)).rstrip()
