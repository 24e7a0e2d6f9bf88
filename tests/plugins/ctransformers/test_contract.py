"""The contract of every backend, with the demo model."""

from pathlib import Path

from puna.backend import ModelSpec
from puna.testing import BackendContract
from puna_ctransformers import CTransformersBackend

DEMO = Path(__file__).parents[3] / "core/puna/demo/llamita.gguf"


class TestCTransformers(BackendContract):
    backend_class = CTransformersBackend
    prompt = "<|user|>Why is the sky blue?<|assistant|>"
    entry_point = "ctransformers"

    def spec(self):
        return ModelSpec(path=str(DEMO), context_length=256)
