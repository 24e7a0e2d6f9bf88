"""What can go wrong, in words that know no transport. Each class says whose fault it is by where it stands.

PunaError
├── InvalidRequestError            the client asked for something that makes no sense
│   ├── ModelRequiredError
│   ├── InvalidModelNameError
│   ├── CapabilityMissingError     the model cannot do that
│   ├── ContextOverflowError
│   ├── InputTooLongError
│   ├── EngineRefusedError         what the engine would say of a request that is already being run
│   │   └── TemplateRefusedError   a model's own chat template raises on this conversation
│   ├── UnsupportedConstraintError
│   ├── InvalidDigestError
│   ├── DigestMismatchError
│   ├── InvalidCreateError
│   ├── MediaUnsupportedError
│   ├── ToolsRefusedError          tools that the engine would not take
│   └── InvalidTokenError
├── OptionTypeError                an option's value has the wrong type
├── InvalidFormatError             `format` is neither "json" nor a schema
├── TemplateError                  a template cannot be read or run
│   └── TemplateLimitError         it is larger, or does more, than the settings allow
├── UnknownRendererError
├── NotFoundError
│   ├── ModelNotFoundError
│   └── BlobNotFoundError
├── UnsupportedOperationError      this kind of model has no such operation
│   ├── EmbeddingsUnsupportedError
│   └── RankingUnsupportedError
├── CreateFailedError              a model cannot be made, whoever is to blame
├── CloudDisabledError
├── NotLocalError                  who speaks of this machine's disk must be on this machine
├── RegistryNotAllowedError        the operator's list of registries does not have this one
├── QueueFullError
├── TooLargeError                  a request, or all together, have more bytes than they may
├── ClientStalledError             a client does not send or read what it should
├── ServerEndingError              the server takes no more requests, and ends those that take too long
├── StoreFailedError               the disk refuses: it is full, or may not be written, or fails
├── TransferError                  a registry or the way to it failed
├── BackendNotFoundError           a model asks for a backend that is not installed
├── LoadFailedError                the backend could not load the model
│   ├── OutOfMemoryError           there is no room for it
│   └── DamagedModelError          a file of it is not what it was
├── BackendCrashedError            the backend's process died
└── BackendFailedError             the backend raised

puna.rpc.status turns these into gRPC status codes by `reason`, puna_rest.errors into HTTP statuses; texts are written
here and nowhere else, since clients read them.
"""

import json
from typing import ClassVar


class PunaError(Exception):
    """Base of every error this package raises on purpose. Its text is shown to the client."""

    reason: ClassVar[str] = "INTERNAL"
    """What a program reads: the `reason` of google.rpc.ErrorInfo."""
    early: bool = False
    """Whether it came up before the request was run, if it is of a kind that mostly comes up later."""


class InvalidRequestError(PunaError):
    """The client asked for something that makes no sense."""

    reason = "INVALID_REQUEST"


class ModelRequiredError(InvalidRequestError):
    """No model is named."""

    reason = "MODEL_REQUIRED"

    def __init__(self) -> None:
        super().__init__("model is required")


class InvalidModelNameError(InvalidRequestError):
    """The name breaks the rules for names."""

    reason = "INVALID_MODEL_NAME"

    def __init__(self, text: str = "invalid model name") -> None:
        super().__init__(text)


class CapabilityMissingError(InvalidRequestError):
    """The model cannot do that."""

    reason = "CAPABILITY_MISSING"


class ContextOverflowError(InvalidRequestError):
    """The prompt is longer than the context."""

    reason = "CONTEXT_OVERFLOW"

    def __init__(self, text: str | None = None) -> None:
        super().__init__(
            text
            or "the prompt is longer than the context length currently available to the model; shorten the prompt, "
            "adjust the context length in settings, or use a model with a longer context length"
        )


class InputTooLongError(InvalidRequestError):
    """A text to embed is longer than the context."""

    reason = "INPUT_TOO_LONG"

    def __init__(self, text: str = "the input length exceeds the context length") -> None:
        super().__init__(text)


class EngineRefusedError(InvalidRequestError):
    """What the engine says of a request that is already being run; the text is the engine's."""

    reason = "ENGINE_REFUSED"


class UnsupportedConstraintError(InvalidRequestError):
    """A grammar or schema that cannot be enforced; the text names the part."""

    reason = "UNSUPPORTED_CONSTRAINT"


class InvalidDigestError(InvalidRequestError):
    """Not "sha256:" and 64 hexadecimal digits."""

    reason = "INVALID_DIGEST"

    def __init__(self) -> None:
        super().__init__("invalid digest format")


class DigestMismatchError(InvalidRequestError):
    """Uploaded bytes are not those of the digest."""

    reason = "DIGEST_MISMATCH"

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f'digest mismatch, expected "{expected}", got "{got}"')


class InvalidCreateError(InvalidRequestError):
    """A model cannot be made from this."""

    reason = "INVALID_CREATE"


class TemplateRefusedError(EngineRefusedError):
    """A model's own chat template raises on this conversation. The text is JSON, as the reference's runner says it."""

    def __init__(self, message: str) -> None:
        fields = {"code": 400, "message": message, "type": "invalid_request_error"}
        super().__init__(json.dumps({"error": fields}, ensure_ascii=False, separators=(",", ":")))
        self.message = message


class ToolsRefusedError(InvalidRequestError):
    """Tools of a kind that no engine knows. The text is JSON, as the reference's runner says it."""

    reason = "TOOLS_REFUSED"

    def __init__(self, message: str) -> None:
        fields = {"code": 500, "message": message, "type": "server_error"}
        super().__init__(json.dumps({"error": fields}, ensure_ascii=False, separators=(",", ":")))


class MediaUnsupportedError(InvalidRequestError):
    """The conversation has pictures or sounds, and the model takes none."""

    reason = "MEDIA_UNSUPPORTED"

    def __init__(self) -> None:
        super().__init__(
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
        """`wanted` is such as "type integer" or "an array of strings"."""
        super().__init__(f'option "{name}" must be of {wanted}')


class OptionRangeError(InvalidRequestError):
    """An option's value is out of range."""

    reason = "OPTION_RANGE"

    def __init__(self, name: str, wanted: str) -> None:
        """`wanted` is such as "finite", or "at most 512 (PUNA_MAX_THREADS)"."""
        super().__init__(f'option "{name}" must be {wanted}')


class InvalidFormatError(PunaError):
    """`format` is neither "json" nor a schema."""

    reason = "INVALID_FORMAT"


class TemplateError(PunaError):
    """A template cannot be read or run."""

    reason = "TEMPLATE_FAILED"


class TemplateLimitError(TemplateError):
    """A template is larger, or does more, than the settings allow."""

    reason = "TEMPLATE_LIMIT"

    def __init__(self, limit: str, variable: str) -> None:
        """`limit` is the bound with its unit, `variable` the setting's name."""
        super().__init__(f"template exceeds the limit of {limit} ({variable})")


class UnknownRendererError(PunaError):
    """The model's configuration names a renderer that does not exist."""

    reason = "UNKNOWN_RENDERER"

    def __init__(self, name: str) -> None:
        super().__init__(f'unknown renderer "{name}"')


class NotFoundError(PunaError):
    """What is named does not exist."""

    reason = "NOT_FOUND"


class ModelNotFoundError(NotFoundError):
    """The name matches no model of the store."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, name: str, text: str | None = None) -> None:
        super().__init__(text or f"model '{name}' not found")


class BlobNotFoundError(NotFoundError):
    """The store has no such blob."""

    reason = "BLOB_NOT_FOUND"


class UnsupportedOperationError(PunaError):
    """This kind of model has no such operation."""

    reason = "UNSUPPORTED_OPERATION"


class EmbeddingsUnsupportedError(UnsupportedOperationError):
    """The model makes no vectors."""

    reason = "EMBEDDINGS_UNSUPPORTED"

    def __init__(self) -> None:
        super().__init__("This server does not support embeddings. Start it with `--embeddings`")


class RankingUnsupportedError(UnsupportedOperationError):
    """The model ranks nothing."""

    reason = "RANKING_UNSUPPORTED"


class CreateFailedError(PunaError):
    """A model cannot be made: a file is not what it should be, or the quantizer refuses it."""

    reason = "CREATE_FAILED"


class CloudDisabledError(PunaError):
    """A model that only a cloud could run."""

    reason = "CLOUD_DISABLED"

    def __init__(self, what: str = "remote model is unavailable") -> None:
        super().__init__(f"ollama cloud is disabled: {what}")


class NotLocalError(PunaError):
    """The call speaks of files on the server's disk, and comes from another machine."""

    reason = "NOT_LOCAL"

    def __init__(self) -> None:
        super().__init__("files on the server's disk can be imported only by callers on the same machine")


class RegistryNotAllowedError(PunaError):
    """The operator lists the registries that may be used, and this is none of them."""

    reason = "REGISTRY_NOT_ALLOWED"

    def __init__(self, registry: str) -> None:
        super().__init__(f"registry {registry} is not allowed: PUNA_ALLOWED_REGISTRIES does not list it")


class QueueFullError(PunaError):
    """Too many requests wait."""

    reason = "QUEUE_FULL"

    def __init__(self) -> None:
        super().__init__("server busy, please try again.  maximum pending requests exceeded")


class TooLargeError(PunaError):
    """A request, or all requests together, have more bytes than a limit allows."""

    reason = "TOO_LARGE"


class ClientStalledError(PunaError):
    """A client does not send or read what it should."""

    reason = "CLIENT_STALLED"

    def __init__(self, text: str = "the client does not read its answer") -> None:
        super().__init__(text)


class ServerEndingError(PunaError):
    """The server takes no more requests, and ends those that take too long."""

    reason = "SERVER_ENDING"

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class StoreFailedError(PunaError):
    """The disk refuses: it is full, or may not be written, or fails."""

    reason = "STORE_FAILED"

    def __init__(self, error: OSError) -> None:
        text = error.strerror or str(error)
        super().__init__((f"{error.filename}: " if error.filename else "") + text[:1].lower() + text[1:])


class TransferError(PunaError):
    """A registry, or the way to it, failed."""

    reason = "TRANSFER_FAILED"


class BackendNotFoundError(PunaError):
    """A model asks for a backend that no installed plugin provides."""

    reason = "BACKEND_NOT_FOUND"


class LoadFailedError(PunaError):
    """The backend could not load the model."""

    reason = "LOAD_FAILED"


class OutOfMemoryError(LoadFailedError):
    """There is no room for the model."""


class DamagedModelError(LoadFailedError):
    """A file of the model is gone, or is not what it was."""

    reason = "MODEL_DAMAGED"

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"model '{name}' is damaged: {what}; pull or create it again, or ask puna doctor")


class BackendCrashedError(PunaError):
    """The backend's process died; the text has the signal and its last words."""

    reason = "BACKEND_CRASHED"


class BackendFailedError(PunaError):
    """The backend raised while it ran a model."""

    reason = "BACKEND_FAILED"
