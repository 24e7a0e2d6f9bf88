"""Typed calls of the library. Its own Python class is avoided where it overruns a buffer or keeps a state."""

import ctypes
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

CPU = Path("/proc/cpuinfo")


class NativeModel:
    """A model in the library. Freed with the last reference to it."""

    def __init__(self, path: Path, *, context_length: int, mmap: bool, library: str | None) -> None:
        """Load a model. Raises RuntimeError if the library cannot.

        `library`: "avx2", "avx", "basic" or a path; None chooses the build that fits the processor.
        """
        # Imported here, since only a host process loads the library.
        from ctransformers.llm import LLM, Config

        # Threads and sampling parameters are passed with each call, so the library keeps nothing of a request.
        config = Config(context_length=context_length, mmap=mmap)
        self._model = LLM(str(path), model_type="gguf", config=config, lib=library or _library())
        self._lock = threading.Lock()

    @property
    def context_length(self) -> int:
        """The number of tokens that the cache has room for."""
        return int(self._model.context_length)

    def tokenize(self, text: bytes) -> list[int]:
        """Return the token ids of a text without zero bytes.

        Special tokens in it are plain text. Callable at any time.
        """
        buffer = (ctypes.c_int * (len(text) + 2))()  # at most one token for each byte, and one for a space in front
        # False: the vocabulary adds BOS itself, since a file may ask for none.
        return list(buffer[: self._model.ctransformers_llm_tokenize(text, False, buffer)])

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token; none for a special one. Callable at any time."""
        with self._lock:  # the next call overwrites the buffer that holds the bytes
            return bytes(self._model.ctransformers_llm_detokenize(token))

    def evaluate(self, tokens: Sequence[int], past: int, threads: int) -> None:
        """Evaluate tokens behind the first `past` ones of the cache. The rest of the cache is dropped."""
        array = (ctypes.c_int * len(tokens))(*tokens)
        # The batch size is the number of tokens: the engine has cut the prompt already.
        if not self._model.ctransformers_llm_batch_eval(array, len(tokens), past, len(tokens), threads):
            raise RuntimeError("the library failed to evaluate tokens")

    def sample(
        self, recent: Sequence[int], *, top_k: int, top_p: float, temperature: float, penalty: float, seed: int
    ) -> int:
        """Sample the next token. The penalty applies to the tokens in `recent`."""
        array = (ctypes.c_int * len(recent))(*recent)
        return int(self._model.ctransformers_llm_sample(array, len(recent), top_k, top_p, temperature, penalty, seed))

    def logits(self) -> list[float]:
        """Return the logits of the last evaluated token."""
        return list(self._model.ctransformers_llm_logits_data()[: self._model.ctransformers_llm_logits_size()])

    def last_state(self) -> list[float]:
        """Return the embedding vector of the last evaluated token."""
        return list(self._model.ctransformers_llm_embeddings_data()[: self._model.ctransformers_llm_embeddings_size()])


def _library() -> str | None:
    """Return the build for this processor, as the library would choose it.

    None lets the library choose, which takes a second.
    """
    found = find_spec("ctransformers")
    try:
        flags = next(line for line in CPU.read_text().splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return None
    # With a build of its own in lib/local the choice is left to the library.
    if found is None or found.origin is None or (Path(found.origin).parent / "lib" / "local").is_dir():
        return None
    if "avx2" in flags:
        return "avx2"
    return "avx" if {"avx", "f16c"} <= set(flags) else "basic"
