"""The client in Node.js: @grpc/grpc-js, with TypeScript by ts-proto."""

import os

import pytest
from tests.clients.projects import PROTO, copy, run
from tests.clients.readme import check, check_secure, follow


@pytest.fixture
def path(clients_python, protoc):
    """Folders with Node.js and `protoc`, for PATH."""
    return f"{clients_python.parent}{os.pathsep}{protoc.parent}"


def test_the_suite_in_node(path, variables):
    home = copy("node", "node_modules")
    environment = os.environ | variables | {"PUNA_PROTO": str(PROTO)}
    install = ("npm", "install", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
    for command in (install, ("npm", "run", "generate"), ("npm", "run", "build"), ("npm", "test")):
        run(*command, path=path, cwd=home, env=environment)


def test_the_readme_in_node(path, plain, secure, tmp_path):
    printed = follow("Node.js", tmp_path, plain.grpc, path, secure)
    check(printed)
    check_secure(printed)
