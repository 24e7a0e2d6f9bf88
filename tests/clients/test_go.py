"""The client in Go: grpc-go, with code by protoc-gen-go and protoc-gen-go-grpc."""

import os

from tests.clients.projects import PROTO, copy, run
from tests.clients.readme import check, check_secure, follow

ROOT_PACKAGE = "puna.dev/gen/go"
"""The prefix of the go_package of all files, which protoc leaves out of the folders."""


def test_the_suite_in_go(go_path, protoc, variables):
    home = copy("go", "bin", "cache")
    environment = os.environ | variables | {"PATH": go_path, "GOBIN": str(home / "bin"), "GOFLAGS": "-mod=readonly"}
    run("go", "install", "tool", cwd=home, env=environment)
    files = sorted(str(each.relative_to(PROTO)) for each in PROTO.glob("puna/v1/*.proto"))
    options = [
        f"--{plugin}_{option}" for plugin in ("go", "go-grpc") for option in ("out=.", f"opt=module={ROOT_PACKAGE}")
    ]
    run(protoc, f"-I{PROTO}", *options, *files, path=home / "bin", cwd=home, env=environment)
    run("go", "vet", "./...", cwd=home, env=environment)
    run("go", "test", "-count=1", "-parallel=16", "./...", cwd=home, env=environment)


def test_the_readme_in_go(go_path, protoc, plain, secure, tmp_path):
    printed = follow("Go", tmp_path, plain.grpc, protoc.parent, secure, PATH=go_path)
    check(printed)
    check_secure(printed)
