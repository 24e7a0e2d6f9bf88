"""The command `create`."""

import argparse
import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path

import grpc.aio

from puna.cli import modelfile
from puna.cli.client import connected
from puna.cli.errors import CommandError
from puna.cli.progress import follow
from puna.cli.texts import readable
from puna.gguf import reader as gguf
from puna.models.create import quantization
from puna.settings import Settings
from puna.v1 import models_pb2, models_pb2_grpc

CHUNK = 1 << 20
# The first group that matches wins. A folder often holds one model in several formats.
PATTERNS = (
    ("model*.safetensors", "*/model*.safetensors"),
    ("consolidated*.safetensors",),
    ("adapter*.safetensors",),  # Ollama's command ignores adapters here
    ("pytorch_model*.bin",),
    ("consolidated*.pth",),
    ("*.gguf",),
    ("*.bin",),
)
# The converter needs the configuration and the tokenizer beside the weights.
COMPANIONS = ("*.json", "*/*.json", "chat_template.jinja", "tokenizer.model")


async def create(settings: Settings, arguments: argparse.Namespace) -> None:
    """Create a model from a Modelfile, another model, a GGUF file or a folder."""
    # Checked before gigabytes are hashed and uploaded.
    if arguments.quantize:
        quantization.check(arguments.quantize)
    request = models_pb2.CreateModelRequest(
        name=arguments.name,
        template=arguments.template,
        system=arguments.system,
        backend=arguments.backend,
        quantize=arguments.quantize or "",
    )
    files: dict[str, list[Path]] = {"files": [], "adapters": [], "draft_files": []}
    if arguments.source:
        setattr(request, "from", arguments.source)
    elif arguments.gguf:
        files["files"] = [_checked(arguments.gguf)]
    else:
        _read_modelfile(arguments.file, request, files)
    async with (
        connected(settings) as channel,
        aclosing(_steps(models_pb2_grpc.ModelsServiceStub(channel), request, files)) as steps,
    ):
        await follow(steps, as_json=arguments.json)


async def _steps(
    stub: "models_pb2_grpc.ModelsServiceAsyncStub", request: models_pb2.CreateModelRequest, files: dict[str, list[Path]]
) -> AsyncGenerator[models_pb2.CreateModelResponse]:
    """Upload the files and create the model; yield the progress."""
    for field, paths in files.items():
        for name, path in _named(paths).items():
            digest = ""
            async with aclosing(upload(stub, path)) as steps:
                async for step in steps:
                    digest = step.progress.digest or digest
                    yield step
            getattr(request, field).add(name=readable(name), digest=digest)
    request.has_files = bool(request.files)
    call = stub.CreateModel(request)
    try:
        async for response in call:
            yield response
    finally:
        call.cancel()


def _read_modelfile(path: Path | None, request: models_pb2.CreateModelRequest, files: dict[str, list[Path]]) -> None:
    path = path or Path("Modelfile")
    folder = path.parent
    commands = (
        # Without a Modelfile, the folder itself is the model.
        modelfile.parse(modelfile.decode(path.read_bytes())) if path.exists() else [modelfile.Command("from", ".")]
    )
    sources: list[Path] = []
    for each in commands:
        if each.is_parameter:
            continue
        if each.name == "from":
            found = expand(each.value, folder)
            # FROM names a path or a model. As in Ollama, a path that exists wins.
            if found.exists():
                sources += model_files(found)
            else:
                setattr(request, "from", each.value)
        elif each.name in ("adapter", "draft"):
            found = expand(each.value, folder)
            if not found.exists():
                raise CommandError(f"{found}: no such file or directory")
            files["adapters" if each.name == "adapter" else "draft_files"] = model_files(found)
        elif each.name == "license":
            request.licenses.append(each.value)
        elif each.name == "message":
            request.messages.add(role=each.role, content=each.value)
        elif each.name == "requires":
            request.requires = modelfile.check_requires(each.value)
        else:
            setattr(request, each.name, each.value)
    files["files"] = sources
    if values := modelfile.parameters(commands):
        request.parameters_json = json.dumps(values)


def expand(text: str, folder: Path) -> Path:
    """Return the path that a Modelfile names. `~` is expanded; a relative path begins at the Modelfile's folder."""
    path = Path(text).expanduser()
    return path if path.is_absolute() else folder / path


def model_files(path: Path) -> list[Path]:
    """Return the files of a model: the file itself, or the files of a folder. Raises CommandError."""
    if path.is_file():
        return [path if path.suffix == ".safetensors" else _checked(path)]
    for patterns in PATTERNS:
        found = _inside(path, patterns)
        if found:
            return found if found[0].suffix == ".gguf" else found + _inside(path, COMPANIONS)
    raise CommandError("no Modelfile or safetensors files found")


def _checked(path: Path) -> Path:
    """Return the path if it is a GGUF file. Raises CommandError."""
    if not gguf.is_gguf(path):
        raise CommandError(f"{path} is no GGUF file")
    return path


def _inside(folder: Path, patterns: Iterable[str]) -> list[Path]:
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    for path in found:
        # A link in a downloaded folder must not upload files from elsewhere on this disk.
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CommandError(f"insecure path: {path}")
    return found


def _named(paths: list[Path]) -> dict[str, Path]:
    """Return the files by the names of the request: base names, or names relative to their common folder."""
    if len(paths) == 1:
        return {paths[0].name: paths[0]}
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    return {path.relative_to(root).as_posix(): path for path in paths}


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
            await call.write(models_pb2.UploadBlobRequest(digest=digest, size_bytes=size))
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
        progress=models_pb2.TransferProgress(status=status, digest=digest, total_bytes=total, completed_bytes=completed)
    )
