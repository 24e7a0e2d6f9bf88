"""The errors of callers without the right to call."""

from puna.errors import PunaError


class UnauthenticatedError(PunaError):
    """The caller sends no key, or one that is unknown, wrong or revoked."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(PunaError):
    """The caller's key does not allow the method."""

    reason = "PERMISSION_DENIED"


class NotExposedError(PermissionDeniedError):
    """The server does not offer the method: the setting `expose` leaves it out."""

    reason = "NOT_EXPOSED"

    def __init__(self, group: str) -> None:
        super().__init__(f"this server does not offer {group!r} to its callers", group=group)


class ModelNotAllowedError(PermissionDeniedError):
    """The caller's key does not allow the model."""

    reason = "MODEL_NOT_ALLOWED"

    def __init__(self, name: str) -> None:
        super().__init__(f"this API key may not use the model {name!r}", model=name)


class RateLimitedError(PunaError):
    """The caller's key has sent too many requests."""

    reason = "RATE_LIMITED"

    def __init__(self, text: str, retry_seconds: float) -> None:
        """`retry_seconds`: when the next request may succeed."""
        super().__init__(text)
        self.retry_seconds = retry_seconds


class QuotaExceededError(RateLimitedError):
    """The caller's key has used its tokens of the day."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, tokens: int, retry_seconds: float) -> None:
        super().__init__(f"this API key has used its {tokens} tokens of the day", retry_seconds)
