"""The right backend passes all contract tests, with both vocabularies."""

import pytest
from tests.plugins.mutants.engine import HEADER, TinyBackend

from puna.backend import ModelSpec
from puna.testing import BackendContract


def write_model(folder, kind):
    path = folder / f"{kind}.tiny"
    path.write_bytes(HEADER + kind.encode())
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return {kind: write_model(folder, kind) for kind in ("bytes", "words")}


class Right(BackendContract):
    backend_class = TinyBackend
    kind = ""

    @pytest.fixture(autouse=True)
    def model_file(self, models):
        self.path = models[self.kind]

    def spec(self):
        return ModelSpec(path=str(self.path), context_length=256)


class TestBytes(Right):
    kind = "bytes"


class TestWords(Right):
    kind = "words"
