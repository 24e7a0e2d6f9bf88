"""Every error that the server raises on purpose, independent of any transport.

The position in the tree says whose fault an error is. The text of an error is written here and nowhere else, since
clients read it; many texts are Ollama's, to the byte. Programs read `reason`, which puna.rpc.status maps to a gRPC
status code, and puna_rest.errors to an HTTP status. puna.auth.errors and puna.batch.errors have more.

PunaError
├── InvalidRequestError            the request cannot be served as it is
│   ├── ModelRequiredError
│   ├── InvalidModelNameError
│   ├── CapabilityMissingError     the model lacks a capability
│   ├── ContextOverflowError
│   ├── InputTooLongError
│   ├── EngineRefusedError         the engine would refuse a request that is already running
│   │   └── TemplateRefusedError   the model's chat template raises for this conversation
│   ├── UnsupportedConstraintError
│   ├── InvalidDigestError
│   ├── DigestMismatchError
│   ├── InvalidCreateError
│   ├── MediaUnsupportedError
│   ├── OptionRangeError
│   ├── ToolsRefusedError          the engine would not accept the tools
│   └── InvalidTokenError
├── OptionTypeError                an option's value has the wrong type
├── InvalidFormatError             `format` is neither "json" nor a schema
├── TemplateError                  a template cannot be read or run
│   └── TemplateLimitError         it exceeds a limit
├── UnknownRendererError
├── NotFoundError
│   ├── ModelNotFoundError
│   └── BlobNotFoundError
├── UnsupportedOperationError      the model does not support the operation
│   ├── DemandUnsupportedError     the backend cannot give the answer the form that the request demands
│   ├── EmbeddingsUnsupportedError
│   └── RankingUnsupportedError
├── CreateFailedError              a model cannot be created from valid input
├── CloudDisabledError
├── NotLocalError                  only callers on this machine may name its files
├── RegistryNotAllowedError        the operator does not allow this registry
├── QueueFullError
├── TooLargeError                  a request, or all requests together, exceed a limit
├── ClientStalledError             a client stopped sending or reading
├── ServerEndingError              the server is shutting down
├── StoreFailedError               the disk is full, read-only or broken
├── TransferError                  a registry, or the network to it, failed
├── BackendNotFoundError           a model names a backend that is not installed
├── LoadFailedError                the backend could not load the model; more kinds in puna.runtime.errors
│   ├── OutOfMemoryError           there is not enough memory
│   └── DamagedModelError          a file of the model is missing or changed
├── BackendCrashedError            the backend's process died
├── BackendUnavailableError        the backend cannot serve the request now
└── BackendFailedError             the backend raised an unexpected error
"""

import json
from typing import ClassVar


class PunaError(Exception):
    """Base of every error this package raises on purpose. Its text is shown to the client."""

    reason: ClassVar[str] = "INTERNAL"
    """The `reason` of google.rpc.ErrorInfo."""
    text: ClassVar[str] = ""
    """The text if the error is raised without one."""
    early: bool = False
    """True if a kind of error that usually occurs while a request runs was raised before. REST headers differ then."""

    def __init__(self, text: str | None = None, **info: object) -> None:
        """`info` holds the variables of the text for programs, such as `model` or `limit`."""
        super().__init__(self.text if text is None else text)
        self.info: dict[str, object] = info


class InvalidRequestError(PunaError):
    """The request cannot be served as it is. `info` may have the path of the `field` that is wrong."""

    reason = "INVALID_REQUEST"


class ModelRequiredError(InvalidRequestError):
    """The request names no model."""

    reason = "MODEL_REQUIRED"
    text = "model is required"


class InvalidModelNameError(InvalidRequestError):
    """The model's name is not a valid name."""

    reason = "INVALID_MODEL_NAME"
    text = "invalid model name"


class CapabilityMissingError(InvalidRequestError):
    """The model lacks a capability that the request needs."""

    reason = "CAPABILITY_MISSING"


class ContextOverflowError(InvalidRequestError):
    """The prompt is longer than the context."""

    reason = "CONTEXT_OVERFLOW"
    text = (
        "the prompt is longer than the context length currently available to the model; shorten the prompt, "
        "adjust the context length in settings, or use a model with a longer context length"
    )


class InputTooLongError(InvalidRequestError):
    """A text to embed is longer than the context."""

    reason = "INPUT_TOO_LONG"
    text = "the input length exceeds the context length"


class EngineRefusedError(InvalidRequestError):
    """The engine refuses a request that is already running. The text is that of Ollama's engine."""

    reason = "ENGINE_REFUSED"


class UnsupportedConstraintError(InvalidRequestError):
    """A constraint cannot be enforced. The text names the part that is not supported."""

    reason = "UNSUPPORTED_CONSTRAINT"


class InvalidDigestError(InvalidRequestError):
    """A digest that is not "sha256:" with 64 hexadecimal digits."""

    reason = "INVALID_DIGEST"
    text = "invalid digest format"


class DigestMismatchError(InvalidRequestError):
    """The uploaded bytes do not have the digest."""

    reason = "DIGEST_MISMATCH"

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f'digest mismatch, expected "{expected}", got "{got}"', expected=expected, got=got)


class InvalidCreateError(InvalidRequestError):
    """A model cannot be created from the request."""

    reason = "INVALID_CREATE"


class TemplateRefusedError(EngineRefusedError):
    """The model's chat template raises for this conversation. The text is the JSON of Ollama's runner."""

    def __init__(self, message: str) -> None:
        fields = {"code": 400, "message": message, "type": "invalid_request_error"}
        super().__init__(json.dumps({"error": fields}, ensure_ascii=False, separators=(",", ":")))
        self.message = message


class ToolsRefusedError(InvalidRequestError):
    """Tools of an unknown kind. The text is the JSON of Ollama's runner."""

    reason = "TOOLS_REFUSED"

    def __init__(self, message: str) -> None:
        fields = {"code": 500, "message": message, "type": "server_error"}
        super().__init__(json.dumps({"error": fields}, ensure_ascii=False, separators=(",", ":")))


class MediaUnsupportedError(InvalidRequestError):
    """The conversation has images or sounds, and the model takes none."""

    reason = "MEDIA_UNSUPPORTED"
    text = (
        '{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, '
        'you may need to provide the mmproj","type":"server_error"}}'
    )


class InvalidTokenError(InvalidRequestError):
    """A token id that the vocabulary does not have."""

    reason = "INVALID_TOKEN"


class OptionTypeError(PunaError):
    """An option's value has the wrong type."""

    reason = "OPTION_TYPE"

    def __init__(self, name: str, wanted: str) -> None:
        """`wanted` ends the sentence, for example "type integer" or "an array of strings"."""
        super().__init__(f'option "{name}" must be of {wanted}', field=name)


class OptionRangeError(InvalidRequestError):
    """An option's value is out of range."""

    reason = "OPTION_RANGE"

    def __init__(self, name: str, wanted: str) -> None:
        """`wanted` ends the sentence, for example "finite" or "at most 512 (PUNA_MAX_THREADS)"."""
        super().__init__(f'option "{name}" must be {wanted}', field=name)


class InvalidFormatError(PunaError):
    """`format` is neither "json" nor a schema."""

    reason = "INVALID_FORMAT"


class TemplateError(PunaError):
    """A template cannot be read or run."""

    reason = "TEMPLATE_FAILED"


class TemplateLimitError(TemplateError):
    """A template exceeds a limit of size, time, memory or output."""

    reason = "TEMPLATE_LIMIT"

    def __init__(self, limit: str, variable: str) -> None:
        """`limit` is the bound with its unit, `variable` the setting's name."""
        super().__init__(f"template exceeds the limit of {limit} ({variable})", limit=limit, setting=variable)


class UnknownRendererError(PunaError):
    """The model's configuration names a renderer that does not exist."""

    reason = "UNKNOWN_RENDERER"

    def __init__(self, name: str) -> None:
        super().__init__(f'unknown renderer "{name}"', renderer=name)


class NotFoundError(PunaError):
    """The named object does not exist."""

    reason = "NOT_FOUND"


class ModelNotFoundError(NotFoundError):
    """The store has no model of this name."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, name: str, text: str | None = None) -> None:
        super().__init__(text or f"model '{name}' not found", model=name)


class BlobNotFoundError(NotFoundError):
    """The store has no such blob."""

    reason = "BLOB_NOT_FOUND"


class UnsupportedOperationError(PunaError):
    """The model does not support the operation."""

    reason = "UNSUPPORTED_OPERATION"


class DemandUnsupportedError(UnsupportedOperationError):
    """The request demands what the backend of the model cannot do."""

    def __init__(self, backend: str, what: str) -> None:
        super().__init__(f"backend {backend!r} does not support {what}", backend=backend)


class EmbeddingsUnsupportedError(UnsupportedOperationError):
    """The model does not embed."""

    reason = "EMBEDDINGS_UNSUPPORTED"
    text = "This server does not support embeddings. Start it with `--embeddings`"


class RankingUnsupportedError(UnsupportedOperationError):
    """The model does not rank."""

    reason = "RANKING_UNSUPPORTED"


class CreateFailedError(PunaError):
    """A model cannot be created: a file is invalid, or the quantizer refuses it."""

    reason = "CREATE_FAILED"


class CloudDisabledError(PunaError):
    """The model runs in Ollama's cloud only, which this server does not call."""

    reason = "CLOUD_DISABLED"

    def __init__(self, what: str = "remote model is unavailable") -> None:
        super().__init__(f"ollama cloud is disabled: {what}")


class NotLocalError(PunaError):
    """The call names files on the server's disk, and its caller may not."""

    reason = "NOT_LOCAL"
    text = "files on the server's disk can be named only on the server's Unix socket or with a key that allows it"


class RegistryNotAllowedError(PunaError):
    """PUNA_ALLOWED_REGISTRIES is set and does not list this registry."""

    reason = "REGISTRY_NOT_ALLOWED"

    def __init__(self, registry: str) -> None:
        super().__init__(f"PUNA_ALLOWED_REGISTRIES does not list the registry {registry}", registry=registry)


class QueueFullError(PunaError):
    """More requests wait than OLLAMA_MAX_QUEUE, or the setting of the model, allows."""

    reason = "QUEUE_FULL"
    text = "server busy, please try again.  maximum pending requests exceeded"


class TooLargeError(PunaError):
    """A request, or all requests together, exceed a limit."""

    reason = "TOO_LARGE"


class ClientStalledError(PunaError):
    """A client stopped sending its request or reading its answer."""

    reason = "CLIENT_STALLED"
    text = "the client does not read its answer"


class ServerEndingError(PunaError):
    """The server is shutting down: it refuses new requests and cancels slow ones."""

    reason = "SERVER_ENDING"
    text = "the server is shutting down"


class StoreFailedError(PunaError):
    """The disk is full, read-only or broken."""

    reason = "STORE_FAILED"

    def __init__(self, error: OSError) -> None:
        text = error.strerror or str(error)
        super().__init__((f"{error.filename}: " if error.filename else "") + text[:1].lower() + text[1:])


class TransferError(PunaError):
    """A registry, or the network to it, failed."""

    reason = "TRANSFER_FAILED"


class BackendNotFoundError(PunaError):
    """A model names a backend that no installed plugin provides."""

    reason = "BACKEND_NOT_FOUND"


class LoadFailedError(PunaError):
    """The backend could not load the model."""

    reason = "LOAD_FAILED"


class OutOfMemoryError(LoadFailedError):
    """There is not enough memory for the model."""


class DamagedModelError(LoadFailedError):
    """A file of the model is missing or changed."""

    reason = "MODEL_DAMAGED"

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"model '{name}' is damaged: {what}; pull or create it again, or ask puna doctor", model=name)


class BackendCrashedError(PunaError):
    """The host process died. The text has the cause and the last lines of its output; `info` may have the `node`."""

    reason = "BACKEND_CRASHED"


class BackendUnavailableError(PunaError):
    """The backend cannot serve the request now, for example because an upstream is busy or down."""

    reason = "BACKEND_UNAVAILABLE"
    retry_seconds = 1.0


class BackendFailedError(PunaError):
    """The backend raised an error that its contract does not name."""

    reason = "BACKEND_FAILED"
