"""The client in Rust: tonic, with code by tonic-prost-build."""

import os
import shutil

import pytest
from tests.clients.projects import HERE, KEPT, PROTO, run
from tests.clients.readme import check, check_secure, follow

BUILT = {
    "CARGO_TARGET_DIR": str(KEPT / "rust"),
    "CARGO_INCREMENTAL": "0",
    "CARGO_PROFILE_DEV_DEBUG": "none",
    "CARGO_TERM_QUIET": "true",
    "RUST_BACKTRACE": "0",
}
"""What both tests tell cargo, so that the second one finds the libraries that the first one has compiled."""


@pytest.fixture(autouse=True, scope="module")
def cargo():
    """Rust, which no package index has."""
    if not shutil.which("cargo"):
        pytest.fail("cargo is missing: install Rust 1.88 or newer (https://rustup.rs)", pytrace=False)


def test_the_suite_in_rust(protoc, variables):
    # Most tests wait, so they may run at the same time on a machine with few cores.
    environment = os.environ | variables | BUILT | {"PUNA_PROTO": str(PROTO), "RUST_TEST_THREADS": "8"}
    run("cargo", "test", "--locked", cwd=HERE / "rust", env=environment, path=protoc.parent)


def test_the_readme_in_rust(protoc, plain, secure, tmp_path):
    printed = follow("Rust", tmp_path, plain.grpc, protoc.parent, secure, **BUILT)
    check(printed)
    check_secure(printed)
