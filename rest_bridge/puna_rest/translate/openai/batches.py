"""Batches and files as the openai package reads them.

The output file and the error file of a batch are its results. Their ids are made of the batch's id, and their lines are
written when they are read.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from puna.go import json as gojson
from puna.go.json_scanner import BodyError, parse
from puna_client.v1 import batch_pb2, files_pb2
from puna_rest.gobody.decoder import decode
from puna_rest.gobody.kinds import String, Struct

WINDOW: Final = "24h"
"""The only completion window of the API."""
PURPOSE: Final = "batch"
_OUTPUT_PURPOSE: Final = "batch_output"
_ORIGIN: Final = Struct("openai.BatchOrigin", {"endpoint": String(), "input_file_id": String()})
_RESULT_FILE: Final = re.compile(r"file-(output|errors)-([0-9a-f]{1,64})")
_STATUS: Final = {
    batch_pb2.BATCH_STATE_QUEUED: "in_progress",
    batch_pb2.BATCH_STATE_RUNNING: "in_progress",
    batch_pb2.BATCH_STATE_DONE: "completed",
    batch_pb2.BATCH_STATE_CANCELLED: "cancelled",
    batch_pb2.BATCH_STATE_EXPIRED: "expired",
    batch_pb2.BATCH_STATE_REVOKED: "failed",
}


@dataclass(frozen=True, slots=True)
class ResultFile:
    """The output file or the error file of a batch."""

    batch_id: str
    has_errors: bool

    @property
    def kind(self) -> batch_pb2.BatchResultKind.ValueType:
        """The results that it has."""
        return batch_pb2.BATCH_RESULT_KIND_ERRORS if self.has_errors else batch_pb2.BATCH_RESULT_KIND_ANSWERS

    @property
    def id(self) -> str:
        """Id of the file."""
        return f"file-{'errors' if self.has_errors else 'output'}-{self.batch_id.removeprefix('batch_')}"

    def size_in(self, batch: batch_pb2.Batch) -> int:
        """Return the bytes of its stored results; 0 if there is no such file."""
        ended = batch.HasField("end_time")
        return (batch.error_bytes if self.has_errors else batch.answer_bytes) if ended else 0


def result_file(id_: str) -> ResultFile | None:
    """Return the result file of an id; None if the id is that of another file."""
    if (match := _RESULT_FILE.fullmatch(id_)) is None:
        return None
    return ResultFile(f"batch_{match[2]}", match[1] == "errors")


def result_files(batch: batch_pb2.Batch) -> list[ResultFile]:
    """Return the result files that a batch has."""
    both = (ResultFile(batch.id, has_errors) for has_errors in (False, True))
    return [each for each in both if each.size_in(batch)]


def origin(endpoint: str, input_file_id: str) -> bytes:
    """Return what a batch keeps of its request, for the batch's `client_data`."""
    return gojson.dumps({"endpoint": endpoint, "input_file_id": input_file_id}).encode()


def origin_of(batch: batch_pb2.Batch) -> dict[str, str] | None:
    """Return what a batch kept of its request; None if it was not made over this API."""
    try:
        found = decode(parse(batch.client_data), _ORIGIN)
    except BodyError:
        return None
    return found if isinstance(found, dict) and found["endpoint"] else None


def batch_object(batch: batch_pb2.Batch, kept: dict[str, str]) -> dict[str, Any]:
    """Return a batch. `kept`: its origin."""
    # A newer core may have further states, and then says by the time of the end whether one is final.
    status = _STATUS.get(batch.state, "in_progress")
    ids = {each.has_errors: each.id for each in result_files(batch)}
    end = _seconds(batch.end_time) if batch.HasField("end_time") else None

    def at(*states: str) -> int | None:
        return end if status in states else None

    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": kept["endpoint"],
        "errors": None,
        "input_file_id": kept["input_file_id"],
        "completion_window": WINDOW,
        "status": status,
        "output_file_id": ids.get(False),
        "error_file_id": ids.get(True),
        "created_at": _seconds(batch.create_time),
        "in_progress_at": _seconds(batch.start_time) if batch.HasField("start_time") else None,
        "expires_at": _seconds(batch.expire_time),
        "finalizing_at": at("completed"),
        "completed_at": at("completed"),
        "failed_at": at("failed"),
        "expired_at": at("expired"),
        "cancelling_at": at("cancelled"),
        "cancelled_at": at("cancelled"),
        "request_counts": {
            "total": batch.request_count,
            "completed": batch.completed_count,
            "failed": batch.failed_count,
        },
        "metadata": dict(batch.metadata) or None,
    }


def file_object(file: files_pb2.File) -> dict[str, Any]:
    """Return a file that a client uploaded."""
    return _file(file.id, file.size_bytes, file.create_time, file.delete_time, file.name, file.purpose)


def result_file_object(file: ResultFile, batch: batch_pb2.Batch) -> dict[str, Any]:
    """Return a result file of a batch."""
    name = f"{batch.id}_{'errors' if file.has_errors else 'output'}.jsonl"
    return _file(file.id, file.size_in(batch), batch.end_time, batch.delete_time, name, _OUTPUT_PURPOSE)


def _file(id_: str, size: int, created: Timestamp, deleted: Timestamp, name: str, purpose: str) -> dict[str, Any]:
    return {
        "id": id_,
        "object": "file",
        "bytes": size,
        "created_at": _seconds(created),
        "expires_at": _seconds(deleted),
        "filename": name,
        "purpose": purpose,
        "status": "processed",
    }


def page(found: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """Return a page of a list."""
    return {
        "object": "list",
        "data": found,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
        "has_more": more,
    }


def _seconds(moment: Timestamp) -> int:
    return int(moment.seconds)
