"""Translation for imports of files and checks of the store."""

from typing import Final

from puna.auth.caller import current
from puna.errors import NotLocalError
from puna.go.json import replace_lone_surrogates
from puna.models.progress import TransferStep
from puna.models.upkeep.in_place import Link
from puna.models.upkeep.report import Finding, Kind, Report
from puna.models.upkeep.scan import Found, Skipped
from puna.rpc.model_answers import digest, in_place_file, progress
from puna.serving.upkeep import Failed, Imported, ImportEvent, ImportRequest, Plan
from puna_client.v1 import models_pb2

_LINKS: Final = {
    models_pb2.LINK_MODE_UNSPECIFIED: Link.AUTOMATIC,
    models_pb2.LINK_MODE_HARD: Link.HARD,
    models_pb2.LINK_MODE_SYMBOLIC: Link.SYMBOLIC,
    models_pb2.LINK_MODE_COPY: Link.COPY,
}
_KINDS: Final = {
    Kind.DAMAGED_BLOB: models_pb2.FINDING_KIND_DAMAGED_BLOB,
    Kind.MISSING_BLOB: models_pb2.FINDING_KIND_MISSING_BLOB,
    Kind.BROKEN_MANIFEST: models_pb2.FINDING_KIND_BROKEN_MANIFEST,
    Kind.BROKEN_MODEL: models_pb2.FINDING_KIND_BROKEN_MODEL,
    Kind.CLASHING_NAMES: models_pb2.FINDING_KIND_CLASHING_NAMES,
    Kind.UNREADABLE: models_pb2.FINDING_KIND_UNREADABLE,
    Kind.ORPHAN: models_pb2.FINDING_KIND_ORPHAN,
    Kind.PARTIAL: models_pb2.FINDING_KIND_PARTIAL,
    Kind.UNFINISHED: models_pb2.FINDING_KIND_UNFINISHED,
    Kind.STRAY: models_pb2.FINDING_KIND_STRAY,
    Kind.NO_BACKEND: models_pb2.FINDING_KIND_NO_BACKEND,
}


def check_local() -> None:
    """Raise NotLocalError unless the caller may name files on the server's disk.

    The caller's address says nothing: behind a proxy on the same machine every caller is on loopback.
    """
    if not current().may_name_files:
        raise NotLocalError


def import_request(request: models_pb2.ImportModelsRequest) -> ImportRequest:
    """Return an import request."""
    return ImportRequest(
        paths=tuple(request.paths),
        name=request.name,
        link=_LINKS.get(request.link_mode, Link.AUTOMATIC),
        replace=request.replace,
        dry_run=request.dry_run,
        backend=request.backend,
        format=request.format,
    )


def news(each: ImportEvent) -> models_pb2.ImportModelsResponse:
    """Return an event of an import as a message."""
    match each:
        case Plan():
            plan = models_pb2.ImportPlan(models=map(_planned, each.found), skipped=map(_skipped, each.skipped))
            return models_pb2.ImportModelsResponse(plan=plan)
        case Imported():
            made = models_pb2.ImportedModel(name=each.name.shortest, in_place=map(in_place_file, each.in_place))
            return models_pb2.ImportModelsResponse(imported=made)
        case Failed():
            failed = _skipped(each.file)
            # The file alone does not name the model, which may consist of several files.
            failed.name = each.name
            return models_pb2.ImportModelsResponse(failed=failed)
    return models_pb2.ImportModelsResponse(progress=progress(each))


def _planned(found: Found) -> models_pb2.PlannedModel:
    return models_pb2.PlannedModel(
        name=found.name,
        files=[replace_lone_surrogates(str(path)) for path in found.files],
        projectors=[replace_lone_surrogates(str(path)) for path in found.projectors],
        size_bytes=found.size,
        joined=found.is_split,
    )


def _skipped(skipped: Skipped) -> models_pb2.SkippedFile:
    return models_pb2.SkippedFile(
        path=replace_lone_surrogates(str(skipped.path)), text=replace_lone_surrogates(skipped.reason)
    )


def seen(each: TransferStep | Finding | Report) -> models_pb2.CheckStoreResponse:
    """Return an event of a store check as a message."""
    match each:
        case Finding():
            return models_pb2.CheckStoreResponse(finding=_finding(each))
        case Report():
            report = models_pb2.StoreReport(
                model_count=each.models,
                blob_count=each.blobs,
                read_bytes=each.bytes_read,
                fault_count=each.faults,
                repaired_count=each.repaired,
            )
            return models_pb2.CheckStoreResponse(report=report)
    return models_pb2.CheckStoreResponse(progress=progress(each))


def _finding(finding: Finding) -> models_pb2.StoreFinding:
    return models_pb2.StoreFinding(
        kind=_KINDS[finding.kind],
        path=replace_lone_surrogates(finding.path),
        digest=digest(finding.digest),
        models=finding.models,
        text=replace_lone_surrogates(finding.text),
        advice=replace_lone_surrogates(finding.advice),
        is_fault=finding.kind.is_fault,
        repaired=finding.repaired,
    )
