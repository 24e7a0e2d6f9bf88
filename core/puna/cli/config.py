"""`puna config`: checks the configuration file, and has a running server read it again."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from puna.configuration import ConfigurationError, load
from puna.errors import PunaError
from puna.settings import Settings, config_path, from_environment


def run(arguments: argparse.Namespace) -> int:
    """Check the file; return 1 if there is any mistake, and print each with its line."""
    path: Path = arguments.file or arguments.config or config_path()
    try:
        load(path)
        # The file alone, so that a variable of this shell hides no mistake; but with the home folder's own place.
        settings = from_environment({}, path)
        faults = _faults(settings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Error: {path}: {error.strerror}", file=sys.stderr)
        return 1
    for text in faults:
        print(f"{path}: {text}", file=sys.stderr)
    if not faults:
        print(f"{path}: no mistakes")
    return 1 if faults else 0


async def reload(settings: Settings) -> None:
    """Have the server read its configuration again, and print what has changed."""
    from puna.cli.client import connected
    from puna_client.v1 import server_pb2, server_pb2_grpc

    async with connected(settings) as channel:
        stub = server_pb2_grpc.ServerServiceStub(channel)
        found = await stub.ReloadConfiguration(server_pb2.ReloadConfigurationRequest())
    print(f"changed: {', '.join(found.changed)}" if found.changed else "nothing has changed")
    if found.pending:
        print(f"changes with the next start: {', '.join(found.pending)}")


def _faults(settings: Settings) -> list[str]:
    """Return what the file says wrongly about things outside of it: backends, certificates, keys."""
    from puna.cli import access
    from puna.plugins import Registry
    from puna.runtime import backend_options

    found: list[str] = []
    registry = Registry.discover(settings)
    options: Mapping[str, Mapping[str, object]] = settings.backend_options
    for name, given in options.items():
        try:
            manifest = registry.get(name).manifest
            assert manifest is not None, "a backend that can be used has a manifest"
            backend_options.of_operator(manifest, given)
        except PunaError as error:
            found.append(f"backends.{name}: {error}")
    for model in settings.model_settings.tables:
        try:
            if model.backend:
                registry.get(model.backend)
        except PunaError as error:
            found.append(f"model.{model.name}.backend: {error}")
    try:
        if (files := access.tls_files(settings)) is not None:
            files.stamp()
            files.context()
    except OSError as error:
        place = f"{os.fspath(error.filename)}: " if error.filename else ""
        found.append(f"tls_certificate: {place}{error.strerror or error}")
    try:
        access.gate(settings)
    except OSError as error:
        found.append(f"keys: {error.strerror}")
    return found
