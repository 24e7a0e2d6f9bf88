"""The command `import`: models from files that stay where they are."""

import argparse
import json
import sys
from collections.abc import AsyncIterable, AsyncIterator

from google.protobuf import json_format

from puna.cli.client import connected
from puna.cli.progress import follow
from puna.cli.show import in_place_row
from puna.cli.tables import human_bytes
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc

LINKS = {
    "auto": models_pb2.LINK_MODE_UNSPECIFIED,
    "hard": models_pb2.LINK_MODE_HARD,
    "symbolic": models_pb2.LINK_MODE_SYMBOLIC,
    "copy": models_pb2.LINK_MODE_COPY,
}


async def import_models(settings: Settings, arguments: argparse.Namespace) -> int:
    """Import files and folders. Return 1 if a model could not be created."""
    # The server may run in another folder. Links are kept: the user's path is the one that stays in place.
    paths = [str(path.expanduser().absolute()) for path in arguments.paths]
    request = models_pb2.ImportModelsRequest(
        paths=paths,
        name=arguments.name,
        link_mode=LINKS[arguments.link],
        replace=arguments.replace,
        dry_run=arguments.dry_run,
        backend=arguments.backend,
        format=arguments.format,
    )
    failures: list[models_pb2.SkippedFile] = []
    async with connected(settings) as channel:
        news = models_pb2_grpc.ModelsServiceStub(channel).ImportModels(request)
        if arguments.json:
            async for each in news:
                print(json.dumps(json_format.MessageToDict(each, preserving_proto_field_name=True)), flush=True)
                # The exit status counts failures, also where scripts read the JSON.
                if each.HasField("failed"):
                    failures.append(each.failed)
        else:
            await follow(_steps(news, failures, dry_run=arguments.dry_run), as_json=False)
    return 1 if failures else 0


async def _steps(
    news: AsyncIterable[models_pb2.ImportModelsResponse], failures: list[models_pb2.SkippedFile], *, dry_run: bool
) -> AsyncIterator[models_pb2.ImportModelsResponse]:
    """Yield progress events and print the others."""
    async for each in news:
        if each.HasField("plan"):
            _print_plan(each.plan, dry_run=dry_run)
        elif each.HasField("imported"):
            kept = [f"{path} ({how})" for path, how, _ in map(in_place_row, each.imported.in_place)]
            print(f"imported {each.imported.name}" + (": " + ", ".join(kept) if kept else ""), flush=True)
        elif each.HasField("failed"):
            failures.append(each.failed)
            print(f"Error: {each.failed.name}: {each.failed.text}", file=sys.stderr)
        else:
            yield each


def _print_plan(plan: models_pb2.ImportPlan, *, dry_run: bool) -> None:
    for each in plan.skipped:
        print(f"skipping {each.path}: {each.text}", file=sys.stderr)
    if not plan.models:
        print("nothing to import", file=sys.stderr)
    # Without a dry run each model is reported when it is imported.
    for model in plan.models if dry_run else ():
        how = ", joined into a copy" if model.joined else ""
        print(f"{model.name} ({human_bytes(model.size_bytes)}{how})")
        for path in (*model.files, *model.projectors):
            print(f"    {path}")
