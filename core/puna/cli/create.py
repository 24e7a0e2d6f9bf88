"""The command `create`."""

import argparse
import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from puna.cli import modelfile
from puna.cli.client import connected
from puna.cli.errors import CommandError
from puna.cli.progress import follow
from puna.cli.sources import checked, expand, model_files, named, opaque_files
from puna.cli.texts import readable
from puna.gguf import reader as gguf
from puna.models.create import quantization
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc, server_pb2, server_pb2_grpc

CHUNK = 1 << 20
GGUF = "gguf"
LONGEST_MODELFILE = 16 << 20
"""Bytes up to which a file is looked at whether it is a Modelfile."""


@dataclass(slots=True)
class Sources:
    """The paths on this machine from which a model is made."""

    paths: list[Path] = field(default_factory=list)
    adapters: list[Path] = field(default_factory=list)
    drafts: list[Path] = field(default_factory=list)


async def create(settings: Settings, arguments: argparse.Namespace) -> None:
    """Create a model from a Modelfile, another model, files of any format, or the name of a model at an upstream."""
    # Checked before gigabytes are hashed and uploaded.
    if arguments.quantize:
        quantization.check(arguments.quantize)
    request = models_pb2.CreateModelRequest(
        name=arguments.name,
        template=arguments.template,
        system=arguments.system,
        quantize=arguments.quantize or "",
    )
    sources = Sources()
    options: dict[str, object] = {}
    capabilities: list[str] = []
    if arguments.source:
        request.from_model = arguments.source
    elif arguments.gguf:
        sources.paths = [checked(arguments.gguf)]
    elif arguments.folder:
        sources.paths = [_folder(arguments.folder)]
    elif (arguments.backend or arguments.format) and arguments.file and _is_model(arguments.file):
        sources.paths = [arguments.file]
    elif not arguments.upstream and (arguments.file or not arguments.backend or _has_modelfile()):
        read_modelfile(arguments.file, request, sources, options, capabilities)
    # The command line wins over the Modelfile.
    request.backend = arguments.backend or request.backend
    request.format = arguments.format or request.format
    request.upstream = arguments.upstream or request.upstream
    options |= _pairs(arguments.option)
    if options:
        request.backend_options_json = json.dumps(options)
    if capabilities := arguments.capability or capabilities:
        request.info_json = json.dumps({"capabilities": capabilities})
    async with connected(settings) as channel:
        formats = await _formats(channel, request.backend)
        files = _named_files(sources, as_they_are=_are_opaque(request.format, formats, sources.paths))
        stub = models_pb2_grpc.ModelsServiceStub(channel)
        async with aclosing(_steps(stub, request, files)) as steps:
            await follow(steps, as_json=arguments.json)


async def _formats(channel: "grpc.aio.Channel", backend: str) -> Sequence[str] | None:
    """Return the formats that a backend of the server serves; None if no backend is named. Raises CommandError."""
    if not backend:
        return None
    answer = await server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    found = next((each for each in answer.backends if each.name == backend), None)
    # The server refuses such a backend, too, but only after gigabytes have been uploaded.
    if found is None:
        installed = ", ".join(each.name for each in answer.backends) or "none"
        raise CommandError(f"backend {backend!r} is not installed (installed: {installed})")
    if found.error:
        raise CommandError(f"backend {backend!r} is broken: {found.error}")
    return found.formats


def _are_opaque(format_: str, formats: Sequence[str] | None, paths: Sequence[Path]) -> bool:
    """Return whether the server stores the files as they are. `formats` are those of the named backend."""
    if format_ or formats is None:
        return format_ not in ("", GGUF)
    if GGUF not in formats or list(formats) == [GGUF]:
        return GGUF not in formats
    return not any(gguf.is_gguf(path) if path.is_file() else any(path.glob("*.gguf")) for path in paths)


def _named_files(sources: Sources, *, as_they_are: bool) -> dict[str, dict[str, Path]]:
    """Return the files to upload by the fields of the request, and by their names."""
    files: dict[str, Path] = {}
    if as_they_are:
        for path in sources.paths:
            found = opaque_files(path)
            if clash := files.keys() & found.keys():
                raise CommandError(f"two files have the name {min(clash)}")
            files |= found
    else:
        files = named([file for path in sources.paths for file in model_files(path)])
    return {"files": files, "adapters": named(sources.adapters), "draft_files": named(sources.drafts)}


async def _steps(
    stub: "models_pb2_grpc.ModelsServiceAsyncStub",
    request: models_pb2.CreateModelRequest,
    files: dict[str, dict[str, Path]],
) -> AsyncGenerator[models_pb2.CreateModelResponse]:
    """Upload the files and create the model; yield the progress."""
    for field_name, paths in files.items():
        for name, path in paths.items():
            digest = ""
            async with aclosing(upload(stub, path)) as steps:
                async for step in steps:
                    digest = step.progress.digest or digest
                    yield step
            getattr(request, field_name).add(name=readable(name), digest=digest)
    request.has_files = bool(request.files)
    call = stub.CreateModel(request)
    try:
        async for response in call:
            yield response
    finally:
        call.cancel()


def read_modelfile(
    path: Path | None,
    request: models_pb2.CreateModelRequest,
    sources: Sources,
    options: dict[str, object],
    capabilities: list[str],
) -> None:
    """Read a Modelfile into a request, and what the request has no simple field for into the other arguments."""
    path = path or Path("Modelfile")
    folder = path.parent
    commands = (
        # Without a Modelfile, the folder itself is the model.
        modelfile.parse(modelfile.decode(path.read_bytes())) if path.exists() else [modelfile.Command("from", ".")]
    )
    for each in commands:
        if each.is_parameter:
            continue
        if each.name == "from":
            found = expand(each.value, folder)
            # FROM names a path or a model. As in Ollama, a path that exists wins.
            if found.exists():
                sources.paths.append(found)
            else:
                request.from_model = each.value
        elif each.name in ("adapter", "draft"):
            found = expand(each.value, folder)
            if not found.exists():
                raise CommandError(f"{found}: no such file or directory")
            if each.name == "adapter":
                sources.adapters = model_files(found)
            else:
                sources.drafts = model_files(found)
        elif each.name == "license":
            request.licenses.append(each.value)
        elif each.name == "message":
            request.messages.add(role=each.role, content=each.value)
        elif each.name == "requires":
            request.requires = modelfile.check_requires(each.value)
        elif each.name == "backend_option":
            options[each.key] = each.value
        elif each.name == "capability":
            capabilities.append(each.value)
        else:
            setattr(request, "format" if each.name == "backend_format" else each.name, each.value)
    if values := modelfile.parameters(commands):
        request.parameters_json = json.dumps(values)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise CommandError(f"{path}: no such directory")
    return path


def _has_modelfile() -> bool:
    return Path("Modelfile").exists()


def _is_model(path: Path) -> bool:
    """Return whether a file is a model's and no Modelfile: --file names either."""
    # A Modelfile may have a long license in it, but it is no weights of a model.
    return path.stat().st_size > LONGEST_MODELFILE or not modelfile.is_modelfile(path.read_bytes())


def _pairs(texts: Sequence[str]) -> dict[str, object]:
    """Return the options of a backend from texts of the form NAME=VALUE. Raises CommandError."""
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise CommandError(f"--option takes NAME=VALUE, not {text!r}")
        found[name] = value
    return found


async def upload(
    stub: "models_pb2_grpc.ModelsServiceAsyncStub", path: Path
) -> AsyncGenerator[models_pb2.CreateModelResponse]:
    """Upload a file as a blob unless the store has it; yield the progress. Steps after hashing have the digest."""
    title, hasher = readable(path.name), hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        # The file is read twice. The digest must be known before the upload, and the file may not fit into memory.
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            await asyncio.to_thread(hasher.update, chunk)
            yield _step(f"hashing {title}", size, file.tell())
    digest = f"sha256:{hasher.hexdigest()}"
    try:
        await stub.StatBlob(models_pb2.StatBlobRequest(digest=digest))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        call = stub.UploadBlob()
        try:
            # The size lets the server refuse a blob that is too large before it receives anything.
            await call.write(models_pb2.UploadBlobRequest(config=models_pb2.BlobConfig(digest=digest, size_bytes=size)))
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    await call.write(models_pb2.UploadBlobRequest(chunk=chunk))
                    yield _step(f"uploading {title}", size, file.tell(), digest)
            await call.done_writing()
            await call
        except asyncio.InvalidStateError:  # the server has ended the call; its status has the reason
            await call
        finally:
            call.cancel()
    yield _step(f"using {title}", size, size, digest)


def _step(status: str, total: int, completed: int, digest: str = "") -> models_pb2.CreateModelResponse:
    return models_pb2.CreateModelResponse(
        progress=models_pb2.JobProgress(status=status, digest=digest, total_bytes=total, completed_bytes=completed)
    )
