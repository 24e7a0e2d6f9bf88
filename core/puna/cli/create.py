"""`create`: from a Modelfile, from another model, or from a GGUF file."""

import argparse
import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import grpc.aio

from puna.cli import modelfile
from puna.cli.client import connected
from puna.cli.errors import CommandError
from puna.cli.progress import follow
from puna.settings import Settings
from puna.v1 import models_pb2, models_pb2_grpc

CHUNK = 1 << 20
PATTERNS = (
    ("model*.safetensors", "*/model*.safetensors"),
    ("consolidated*.safetensors",),
    ("adapter*.safetensors",),  # the reference's own command finds no adapters
    ("pytorch_model*.bin",),
    ("consolidated*.pth",),
    ("*.gguf",),
    ("*.bin",),
)
COMPANIONS = ("*.json", "*/*.json", "chat_template.jinja", "tokenizer.model")


async def create(settings: Settings, told: argparse.Namespace) -> None:
    """Make a model."""
    request = models_pb2.CreateModelRequest(
        name=told.name, template=told.template, system=told.system, backend=told.backend, quantize=told.quantize or ""
    )
    files: dict[str, list[Path]] = {"files": [], "adapters": [], "draft_files": []}
    if told.source:
        setattr(request, "from", told.source)
    elif told.gguf:
        files["files"] = [told.gguf]
    else:
        _read_modelfile(told.file, request, files)
    async with connected(settings) as channel:
        stub = models_pb2_grpc.ModelsServiceStub(channel)
        for field, paths in files.items():
            for name, path in _named(paths).items():
                getattr(request, field).add(name=name, digest=await upload(stub, path))
        request.has_files = bool(request.files)
        await follow(stub.CreateModel(request), as_json=told.json)


def _read_modelfile(path: Path | None, request: models_pb2.CreateModelRequest, files: dict[str, list[Path]]) -> None:
    path = path or Path("Modelfile")
    folder = path.parent
    commands = (
        modelfile.parse(modelfile.decode(path.read_bytes())) if path.exists() else [modelfile.Command("from", ".")]
    )
    sources: list[Path] = []
    for each in commands:
        if each.is_parameter:
            continue
        if each.name == "from":
            found = expand(each.value, folder)
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
    """Return the path that a Modelfile names: `~` is a home, the rest is relative to the Modelfile's folder."""
    path = Path(text).expanduser()
    return path if path.is_absolute() else folder / path


def model_files(path: Path) -> list[Path]:
    """Return the files that make a model: a file itself, or what a folder holds. Raises CommandError."""
    if path.is_file():
        return [path]
    for patterns in PATTERNS:
        found = _inside(path, patterns)
        if found:
            return found if found[0].suffix == ".gguf" else found + _inside(path, COMPANIONS)
    raise CommandError("no Modelfile or safetensors files found")


def _inside(folder: Path, patterns: Iterable[str]) -> list[Path]:
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    for path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CommandError(f"insecure path: {path}")
    return found


def _named(paths: list[Path]) -> dict[str, Path]:
    """Give files the names they are sent under: base names, or relative to their common folder."""
    if len(paths) == 1:
        return {paths[0].name: paths[0]}
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    return {path.relative_to(root).as_posix(): path for path in paths}


async def upload(stub: "models_pb2_grpc.ModelsServiceAsyncStub", path: Path) -> str:
    """Store a file as a blob unless it is there; return its digest."""
    digest = await asyncio.to_thread(_digest, path)
    try:
        await stub.StatBlob(models_pb2.StatBlobRequest(digest=digest))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        await stub.UploadBlob(_parts(path, digest))
    return digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


async def _parts(path: Path, digest: str) -> AsyncGenerator[models_pb2.UploadBlobRequest]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield models_pb2.UploadBlobRequest(digest=digest, size_bytes=size)
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield models_pb2.UploadBlobRequest(chunk=chunk)
