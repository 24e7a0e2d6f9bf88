"""Converting in this process, and asking llama.cpp what it makes of the result."""

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest
from gguf import GGUFReader
from llama_cpp import Llama

from puna.models.convert import job


class Converted:
    """A file that was written, and the engine on it."""

    def __init__(self, path):
        self.path = path

    def keys(self):
        reader = GGUFReader(self.path)
        return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}

    def tensors(self):
        return {each.name: each for each in GGUFReader(self.path).tensors}

    def logits(self, tokens, lora=None):
        """Return what llama.cpp thinks comes behind the tokens."""
        model = Llama(str(self.path), n_ctx=64, n_gpu_layers=0, n_threads=1, verbose=False, lora_path=lora)
        try:
            model.eval(tokens)
            return np.ctypeslib.as_array(lib.llama_get_logits(model.ctx), (model.n_vocab(),)).copy()
        finally:
            model.close()

    def tokenize(self, *texts):
        """Return the tokens of texts by their own text, special ones included."""
        model = Llama(str(self.path), vocab_only=True, verbose=False)
        try:
            names = self.keys()["tokenizer.ggml.tokens"]
            return [[names[token] for token in model.tokenize(text.encode(), special=True)] for text in texts]
        finally:
            model.close()

    def ends(self):
        """Return the tokens that end an answer."""
        model = Llama(str(self.path), vocab_only=True, verbose=False)
        try:
            vocabulary = lib.llama_model_get_vocab(model.model)
            return [place for place in range(model.n_vocab()) if lib.llama_vocab_is_eog(vocabulary, place)]
        finally:
            model.close()


def files_of(path):
    return {each.relative_to(path).as_posix(): str(each) for each in path.rglob("*") if each.is_file()}


@pytest.fixture
def convert(tmp_path):
    """Convert a folder, given as its path."""

    def done(path, base=None):
        target = tmp_path / f"{path.name}.gguf"
        progress = list(job.run(files_of(path), str(target), base))
        assert progress[-1][0] == progress[-1][1]
        return Converted(target)

    return done
