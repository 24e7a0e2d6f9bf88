"""The client in Rust: tonic, with code by tonic-prost-build."""

import os
import shutil

import pytest
from tests.clients.projects import HERE, KEPT, PROTO, run


def cargo():
    """Return the path of cargo."""
    return shutil.which("cargo") or pytest.fail(
        "cargo is missing: install Rust 1.88 or newer (https://rustup.rs)", pytrace=False
    )


def test_the_suite_in_rust(protoc, variables):
    # Most tests wait, so they may run at the same time on a machine with few cores.
    settings = {"PUNA_PROTO": str(PROTO), "RUST_TEST_THREADS": "8", "RUST_BACKTRACE": "0", "CARGO_TERM_QUIET": "true"}
    environment = os.environ | variables | settings | {"CARGO_TARGET_DIR": str(KEPT / "rust")}
    run(cargo(), "test", "--locked", cwd=HERE / "rust", env=environment, path=protoc.parent)
