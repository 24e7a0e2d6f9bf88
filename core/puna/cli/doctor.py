"""The command `doctor`: problems of backends and store, from the server or without it."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import grpc.aio
from google.protobuf import json_format

from puna.cli import formats
from puna.cli.client import connected, unreachable
from puna.cli.errors import CommandError
from puna.cli.progress import follow
from puna.cli.tables import human_bytes
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc, server_pb2, server_pb2_grpc


async def doctor(settings: Settings, arguments: argparse.Namespace) -> int:
    """Check the backends and the store, and the formats of the files on this machine. Return 1 if faults remain.

    Without a server, the backends of this environment and the store of the settings are checked. A broken backend is a
    fault only if no other backend works.
    """
    if arguments.formats:
        return 1 if await _check_formats(settings, as_json=arguments.json, current=True) else 0
    newer = await _check_formats(settings, as_json=arguments.json, current=False)
    no_backend = await _check_backends(settings, offline=arguments.offline, as_json=arguments.json)
    answers = _offline(settings, arguments) if arguments.offline else _online(settings, arguments)
    report = models_pb2.StoreReport()
    async with aclosing(answers) as seen:
        if arguments.json:
            async for each in seen:
                if not each.HasField("progress"):
                    print(json.dumps(json_format.MessageToDict(each, preserving_proto_field_name=True)), flush=True)
                report = each.report
        else:
            await follow(_steps(seen, report), as_json=False)
    return 1 if report.fault_count or no_backend or newer else 0


async def _check_formats(settings: Settings, *, as_json: bool, current: bool) -> bool:
    """Print the formats of the files here. Return whether this version of Puna cannot use one of them.

    `current`: whether those are printed too that this version would leave as they are.
    """
    found = await asyncio.to_thread(lambda: list(formats.survey(settings)))
    for each in found:
        if current or each.change or each.fault:
            print(each.dumps() if as_json else each.line(), flush=True)
    return any(each.fault for each in found)


async def _check_backends(settings: Settings, *, offline: bool, as_json: bool) -> bool:
    """Print the broken backends. Return whether no backend works."""
    backends = await _backends(settings, offline=offline)
    broken = [each for each in backends if each.error]
    none_works = len(broken) == len(backends)
    for each in broken:
        if as_json:
            print(
                json.dumps({"backend": json_format.MessageToDict(each, preserving_proto_field_name=True)}), flush=True
            )
        else:
            print(f"{'FAULT' if none_works else 'note':<8} broken backend: {each.name}: {each.error}", flush=True)
    return none_works


async def _backends(settings: Settings, *, offline: bool) -> Sequence[server_pb2.BackendInfo]:
    if not offline:
        try:
            async with connected(settings) as channel:
                stub = server_pb2_grpc.ServerServiceStub(channel)
                return (await stub.GetServerInfo(server_pb2.GetServerInfoRequest())).backends
        except CommandError as error:
            # Only a server that is not there is replaced by this process. Any other failure of it is the answer.
            if not isinstance(error.__cause__, grpc.aio.AioRpcError) or not unreachable(error.__cause__):
                raise
    from puna.plugins import Registry

    found = await asyncio.to_thread(Registry.discover(settings).describe)
    return [server_pb2.BackendInfo(name=each.name, error=each.error) for each in found]


async def _online(settings: Settings, arguments: argparse.Namespace) -> AsyncGenerator[models_pb2.CheckStoreResponse]:
    request = models_pb2.CheckStoreRequest(repair=arguments.repair, quick=arguments.quick)
    try:
        async with connected(settings) as channel:
            async for each in models_pb2_grpc.ModelsServiceStub(channel).CheckStore(request):
                yield each
            return
    except CommandError as error:
        if not isinstance(error.__cause__, grpc.aio.AioRpcError) or not unreachable(error.__cause__):
            raise
    print(f"no server at {settings.grpc_host}: looking at {settings.models}", file=sys.stderr)
    async with aclosing(_offline(settings, arguments)) as seen:
        async for each in seen:
            yield each


async def _offline(settings: Settings, arguments: argparse.Namespace) -> AsyncGenerator[models_pb2.CheckStoreResponse]:
    # With a server these modules are not needed, and importing them takes a while.
    from puna.models.store import ModelStore
    from puna.plugins import Registry
    from puna.rpc import upkeep
    from puna.sandbox.sandbox import Sandbox
    from puna.serving.installed_backends import InstalledBackends
    from puna.serving.upkeep import check_store

    if not settings.models.is_dir():
        raise CommandError(f"{settings.models}: no such directory")
    # The sandbox is not opened as a context, so templates are read in this process. See Sandbox.facts.
    store = ModelStore(
        settings.models,
        no_prune=settings.no_prune,
        go_template=settings.go_template,
        read_template=Sandbox(settings.limits).facts,
        backends=InstalledBackends(Registry.discover(settings), settings),
    )
    async with aclosing(check_store(store, repair=arguments.repair, quick=arguments.quick)) as seen:
        async for each in seen:
            yield upkeep.seen(each)


async def _steps(
    answers: AsyncIterator[models_pb2.CheckStoreResponse], report: models_pb2.StoreReport
) -> AsyncIterator[models_pb2.CheckStoreResponse]:
    """Yield progress events and print the others."""
    async for each in answers:
        if each.HasField("progress"):
            yield each
        elif each.HasField("finding"):
            _print(each.finding)
        else:
            report.CopyFrom(each.report)
            _print_report(report)


def _print(finding: models_pb2.StoreFinding) -> None:
    kind = models_pb2.FindingKind.Name(finding.kind).removeprefix("FINDING_KIND_").replace("_", " ").lower()
    mark = "repaired" if finding.repaired else "FAULT" if finding.is_fault else "note"
    # Many texts name the path already.
    text = finding.text if finding.path in finding.text else f"{finding.path}: {finding.text}"
    print(f"{mark:<8} {kind}: {text}")
    if finding.models:
        print(f"{'':<8} of {', '.join(finding.models)}")
    if finding.advice:
        print(f"{'':<8} {finding.advice}", flush=True)


def _print_report(report: models_pb2.StoreReport) -> None:
    read = human_bytes(report.read_bytes)
    print(f"{report.model_count} models, {report.blob_count} blobs, {read} read: ", end="")
    print(
        f"{report.fault_count} faults, {report.repaired_count} repaired"
        if report.fault_count or report.repaired_count
        else "all is well"
    )
