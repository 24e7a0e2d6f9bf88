"""/api/create, and the progress lines of create, pull and push."""

import re
from collections.abc import Mapping
from typing import Final, Literal, Protocol

from puna.go import json as gojson
from puna.go.json_scanner import Document, Node
from puna_client.v1 import models_pb2
from puna_rest.errors import RestError
from puna_rest.gobody.decoder import AbortError, unmarshal
from puna_rest.gobody.kinds import Slice, String
from puna_rest.translate.messages import messages
from puna_rest.translate.options import Body, raw_object

_QUANTIZING: Final = "0" * 19
"""The digest that Ollama writes while it quantizes. Its clients show a bar only for lines with a digest."""
_RELATIVE: Final = re.compile(r"\.|(?!\.{1,2}(?:/|$))[^/]+(?:/(?!\.{1,2}(?:/|$))[^/]+)*")


class HasProgress(Protocol):
    """A message of a job: its progress, or the model at its end."""

    @property
    def progress(self) -> models_pb2.JobProgress:
        """The progress."""

    def HasField(self, field_name: Literal["progress"], /) -> bool:  # noqa: N802 - protobuf's name
        """Return whether the message has progress."""


class JobError(RestError):
    """An error that Ollama finds only once the job runs, and so reports as the job's error."""


def request(document: Document, body: Body) -> models_pb2.CreateModelRequest:
    """Return the CreateModelRequest of a body. Raises RestError, and JobError for errors of the running job."""
    for files in (body["files"], body["draft_files"]):
        for name, digest in (files or {}).items():
            if not _RELATIVE.fullmatch(name):
                raise RestError(400, "file path must be relative")
            if not digest:
                raise RestError(400, "invalid digest format")
    if body["draft_quantize"] and not body["draft_files"]:
        raise RestError(400, "--draft-quantize requires a DRAFT model")
    # The order of the checks is Ollama's: of several faults a client reads the first.
    if not all((body["adapters"] or {}).values()):
        raise RestError(400, "invalid digest format")
    parameters, info, options = body["parameters"], body["info"], body["backend_options"]
    # Without a source, the core reports that first; Ollama reads the license later.
    licenses = _licenses(document, body["license"]) if body["from"] or body["files"] or body["backend"] else []
    return models_pb2.CreateModelRequest(
        name=body["model"] or body["name"],
        from_model=body["from"],
        files=_files(body["files"]),
        has_files=body["files"] is not None,
        adapters=_files(body["adapters"]),
        draft_files=_files(body["draft_files"]),
        template=body["template"],
        system=body["system"],
        licenses=licenses,
        parameters_json=raw_object(document, parameters) if parameters is not None else "",
        messages=messages(body["messages"]),
        quantize=body["quantize"] or body["quantization"],  # the older name
        draft_quantize=body["draft_quantize"],
        renderer=body["renderer"],
        parser=body["parser"],
        requires=body["requires"],
        remote_host=body["remote_host"],
        info_json=raw_object(document, info) if info is not None else "",
        # Ollama has none of these.
        backend=body["backend"],
        format=body["format"],
        upstream=body["upstream"],
        backend_options_json=raw_object(document, options) if options is not None else "",
    )


def line(message: HasProgress) -> str:
    """Return one progress line without its newline; an empty text for what Ollama does not report.

    Ollama reports neither the model at the end nor how far a conversion is.
    """
    if not message.HasField("progress"):
        return ""
    step = message.progress
    if step.phase == models_pb2.JOB_PHASE_CONVERTING and step.total_bytes:
        return ""
    out = '{"status":' + gojson.string(step.status)
    digest = _QUANTIZING if step.phase == models_pb2.JOB_PHASE_QUANTIZING else step.digest
    if digest:
        out += ',"digest":' + gojson.string(digest)
    if step.total_bytes:
        out += f',"total":{step.total_bytes}'
    if step.completed_bytes:
        out += f',"completed":{step.completed_bytes}'
    return out + "}"


def _files(files: Mapping[str, str] | None) -> list[models_pb2.FileBlob]:
    return [models_pb2.FileBlob(name=name, digest=digest) for name, digest in (files or {}).items()]


def _licenses(document: Document, node: Node | None) -> list[str]:
    if node is None:
        return []
    if node.kind == "string":
        return [node.value] if node.value else []
    try:
        texts = unmarshal(document, node, Slice(String()))
    except AbortError as error:
        raise JobError(500, str(error)) from None
    assert isinstance(texts, list)
    return texts
