"""The contract of every backend, with the weights of the demo model."""

import pytest

from puna.backend import ModelSpec
from puna.testing import BackendContract
from puna_ctranslate2 import CTranslate2Backend


@pytest.mark.usefixtures("_folders")
class TestDecoder(BackendContract):
    backend_class = CTranslate2Backend
    prompt = "<|user|>Why is the sky blue?<|assistant|>"
    entry_point = "ctranslate2"
    temperature_first = True
    model_format = "ctranslate2"

    @pytest.fixture
    def _folders(self, decoder):
        self.folder = decoder

    def spec(self):
        return ModelSpec(path=str(self.folder), format="ctranslate2", context_length=64)
