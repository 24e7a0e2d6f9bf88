from pathlib import Path

from puna.backend import ModelSpec
from puna.testing import BackendContract
from puna_llama_cpp import LlamaCppBackend

MODELS = Path(__file__).parents[2] / "models"


class TestWriting(BackendContract):
    backend_class = LlamaCppBackend
    entry_point = "llama_cpp"

    def spec(self):
        return ModelSpec(path=str(MODELS / "chatter.gguf"), context_length=512, parallel=2, threads=1)
