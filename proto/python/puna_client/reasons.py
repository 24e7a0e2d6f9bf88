"""The errors by reason. Written by tools/list_reasons.py from the catalogue of the server. Do not edit."""

from puna_client.errors import (
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)

__all__ = [
    "BackendCrashedError",
    "BackendFailedError",
    "BackendNotFoundError",
    "BackendUnavailableError",
    "BatchExpiredError",
    "BlobNotFoundError",
    "CapabilityMissingError",
    "ClientStalledError",
    "CloudDisabledError",
    "ConfigurationInvalidError",
    "ContextOverflowError",
    "CreateFailedError",
    "DigestMismatchError",
    "EmbeddingsUnsupportedError",
    "EngineRefusedError",
    "InputTooLongError",
    "InvalidCreateError",
    "InvalidDigestError",
    "InvalidFormatError",
    "InvalidModelNameError",
    "InvalidRequestError",
    "InvalidTokenError",
    "LoadFailedError",
    "MediaUnsupportedError",
    "ModelDamagedError",
    "ModelNotAllowedError",
    "ModelNotFoundError",
    "ModelRequiredError",
    "ModelUnreadableError",
    "NodeUnavailableError",
    "NotExposedError",
    "NotLocalError",
    "OptionRangeError",
    "OptionTypeError",
    "QueueFullError",
    "QuotaExceededError",
    "RankingUnsupportedError",
    "RateLimitedError",
    "RegistryNotAllowedError",
    "RegistryUnauthorizedError",
    "RemoteModelNotFoundError",
    "ServerEndingError",
    "StoreFailedError",
    "TemplateFailedError",
    "TemplateLimitError",
    "TooLargeError",
    "ToolsRefusedError",
    "TransferFailedError",
    "UnknownRendererError",
    "UnsupportedConstraintError",
    "UnsupportedOperationError",
]


class BackendCrashedError(UnavailableError, reason="BACKEND_CRASHED"):
    """The host process died. The text has the cause and the last lines of its output; `info` may have the `node`."""


class BackendFailedError(InternalError, reason="BACKEND_FAILED"):
    """The backend raised an error that its contract does not name."""


class BackendNotFoundError(FailedPreconditionError, reason="BACKEND_NOT_FOUND"):
    """A model names a backend that no installed plugin provides."""


class BackendUnavailableError(UnavailableError, reason="BACKEND_UNAVAILABLE"):
    """The backend cannot serve the request now, for example because an upstream is busy or down."""


class BatchExpiredError(DeadlineExceededError, reason="BATCH_EXPIRED"):
    """A request of a batch did not run within the completion window."""


class BlobNotFoundError(NotFoundError, reason="BLOB_NOT_FOUND"):
    """The store has no such blob."""


class CapabilityMissingError(FailedPreconditionError, reason="CAPABILITY_MISSING"):
    """The model lacks a capability that the request needs."""


class ClientStalledError(DeadlineExceededError, reason="CLIENT_STALLED"):
    """A client stopped sending its request or reading its answer."""


class CloudDisabledError(PermissionDeniedError, reason="CLOUD_DISABLED"):
    """The model runs in Ollama's cloud only, which this server does not call."""


class ConfigurationInvalidError(FailedPreconditionError, reason="CONFIGURATION_INVALID"):
    """The configuration file cannot be read, or has mistakes. The text names each with its line."""


class ContextOverflowError(InvalidArgumentError, reason="CONTEXT_OVERFLOW"):
    """The prompt is longer than the context."""


class CreateFailedError(FailedPreconditionError, reason="CREATE_FAILED"):
    """A model cannot be created: a file is invalid, or the quantizer refuses it."""


class DigestMismatchError(InvalidArgumentError, reason="DIGEST_MISMATCH"):
    """The uploaded bytes do not have the digest."""


class EmbeddingsUnsupportedError(UnimplementedError, reason="EMBEDDINGS_UNSUPPORTED"):
    """The model does not embed."""


class EngineRefusedError(InvalidArgumentError, reason="ENGINE_REFUSED"):
    """The engine refuses a request that is already running. The text is that of Ollama's engine."""


class InputTooLongError(InvalidArgumentError, reason="INPUT_TOO_LONG"):
    """A text to embed is longer than the context."""


class InvalidCreateError(InvalidArgumentError, reason="INVALID_CREATE"):
    """A model cannot be created from the request."""


class InvalidDigestError(InvalidArgumentError, reason="INVALID_DIGEST"):
    """A digest that is not "sha256:" with 64 hexadecimal digits."""


class InvalidFormatError(InvalidArgumentError, reason="INVALID_FORMAT"):
    """`format` is neither "json" nor a schema."""


class InvalidModelNameError(InvalidArgumentError, reason="INVALID_MODEL_NAME"):
    """The model's name is not a valid name."""


class InvalidRequestError(InvalidArgumentError, reason="INVALID_REQUEST"):
    """The request cannot be served as it is. `info` may have the path of the `field` that is wrong."""


class InvalidTokenError(InvalidArgumentError, reason="INVALID_TOKEN"):
    """A token id that the vocabulary does not have."""


class LoadFailedError(FailedPreconditionError, reason="LOAD_FAILED"):
    """The backend could not load the model."""


class MediaUnsupportedError(InvalidArgumentError, reason="MEDIA_UNSUPPORTED"):
    """The conversation has images or sounds, and the model takes none."""


class ModelDamagedError(DataLossError, reason="MODEL_DAMAGED"):
    """A file of the model is missing or changed."""


class ModelNotAllowedError(PermissionDeniedError, reason="MODEL_NOT_ALLOWED"):
    """The caller's key does not allow the model."""


class ModelNotFoundError(NotFoundError, reason="MODEL_NOT_FOUND"):
    """The store has no model of this name."""


class ModelRequiredError(InvalidArgumentError, reason="MODEL_REQUIRED"):
    """The request names no model."""


class ModelUnreadableError(FailedPreconditionError, reason="MODEL_UNREADABLE"):
    """The file is not readable as GGUF."""


class NodeUnavailableError(UnavailableError, reason="NODE_UNAVAILABLE"):
    """A node cannot run a host: it cannot be reached, does not accept this core, or lacks what the model needs."""


class NotExposedError(PermissionDeniedError, reason="NOT_EXPOSED"):
    """The server does not offer the method: the setting `expose` leaves it out."""


class NotLocalError(PermissionDeniedError, reason="NOT_LOCAL"):
    """The call names files on the server's disk, and its caller may not."""


class OptionRangeError(InvalidArgumentError, reason="OPTION_RANGE"):
    """An option's value is out of range."""


class OptionTypeError(InvalidArgumentError, reason="OPTION_TYPE"):
    """An option's value has the wrong type."""


class QueueFullError(ResourceExhaustedError, reason="QUEUE_FULL"):
    """More requests wait than OLLAMA_MAX_QUEUE, or the setting of the model, allows."""


class QuotaExceededError(ResourceExhaustedError, reason="QUOTA_EXCEEDED"):
    """The caller's key has used its tokens of the day."""


class RankingUnsupportedError(UnimplementedError, reason="RANKING_UNSUPPORTED"):
    """The model does not rank."""


class RateLimitedError(ResourceExhaustedError, reason="RATE_LIMITED"):
    """The caller's key has sent too many requests."""


class RegistryNotAllowedError(PermissionDeniedError, reason="REGISTRY_NOT_ALLOWED"):
    """PUNA_ALLOWED_REGISTRIES is set and does not list this registry."""


class RegistryUnauthorizedError(UnauthenticatedError, reason="REGISTRY_UNAUTHORIZED"):
    """The registry wants credentials, and there are none or it refused them."""


class RemoteModelNotFoundError(NotFoundError, reason="REMOTE_MODEL_NOT_FOUND"):
    """The registry has no model of this name."""


class ServerEndingError(UnavailableError, reason="SERVER_ENDING"):
    """The server is shutting down: it refuses new requests and cancels slow ones."""


class StoreFailedError(FailedPreconditionError, reason="STORE_FAILED"):
    """The disk is full, read-only or broken."""


class TemplateFailedError(InvalidArgumentError, reason="TEMPLATE_FAILED"):
    """A template cannot be read or run."""


class TemplateLimitError(InvalidArgumentError, reason="TEMPLATE_LIMIT"):
    """A template exceeds a limit of size, time, memory or output."""


class ToolsRefusedError(InvalidArgumentError, reason="TOOLS_REFUSED"):
    """Tools of an unknown kind. The text is the JSON of Ollama's runner."""


class TooLargeError(ResourceExhaustedError, reason="TOO_LARGE"):
    """A request, or all requests together, exceed a limit."""


class TransferFailedError(UnavailableError, reason="TRANSFER_FAILED"):
    """A registry, or the network to it, failed."""


class UnknownRendererError(FailedPreconditionError, reason="UNKNOWN_RENDERER"):
    """The model's configuration names a renderer that does not exist."""


class UnsupportedConstraintError(InvalidArgumentError, reason="UNSUPPORTED_CONSTRAINT"):
    """A constraint cannot be enforced. The text names the part that is not supported."""


class UnsupportedOperationError(UnimplementedError, reason="UNSUPPORTED_OPERATION"):
    """The model does not support the operation."""
