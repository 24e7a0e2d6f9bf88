"""The errors that a backend raises on purpose.

They cross the socket between host and core by their kind and text. Any other exception of a plugin reaches the core as
BackendFailedError.
"""


class BackendError(Exception):
    """Base of the errors that a backend raises on purpose. The user sees its text."""


class InvalidRequestError(BackendError):
    """The request cannot be served as it is. The text says why."""


class PromptTooLongError(BackendError):
    """The prompt does not fit into the context."""

    def __init__(self, prompt_tokens: int, context_length: int) -> None:
        """Both numbers count tokens."""
        super().__init__(f"the prompt has {prompt_tokens} tokens, the context {context_length}")
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class UnavailableError(BackendError):
    """The backend cannot serve the request now, for example because an upstream is busy. It may succeed later."""


class UnsupportedError(BackendError):
    """The model or the backend does not support the operation."""
