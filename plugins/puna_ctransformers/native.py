"""The library's calls, with types. Its own Python class is passed by where it overruns a buffer or keeps a state."""

import ctypes
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

CPU = Path("/proc/cpuinfo")


class NativeModel:
    """A model in the library. Freed when nobody refers to it any more."""

    def __init__(self, path: Path, *, context_length: int, mmap: bool, library: str | None) -> None:
        """`library`: "avx2", "avx" or "basic"; None: what the CPU can. RuntimeError: the library cannot load it."""
        from ctransformers.llm import LLM, Config  # heavy; only the host needs it

        config = Config(context_length=context_length, mmap=mmap)
        self._model = LLM(str(path), model_type="gguf", config=config, lib=library or _library())
        self._lock = threading.Lock()

    @property
    def context_length(self) -> int:
        """Tokens that there is room for."""
        return int(self._model.context_length)

    def tokenize(self, text: bytes) -> list[int]:
        """Return the ids of a text without zero bytes, special tokens not looked for. Callable at any time."""
        room = (ctypes.c_int * (len(text) + 2))()  # at worst a token for each byte, and a space in front
        return list(room[: self._model.ctransformers_llm_tokenize(text, False, room)])

    def piece(self, token: int) -> bytes:
        """Return a token's bytes; none for a special one. Callable at any time."""
        with self._lock:  # the bytes lie in a buffer that the next call writes over
            return bytes(self._model.ctransformers_llm_detokenize(token))

    def evaluate(self, tokens: Sequence[int], past: int, threads: int) -> None:
        """Evaluate tokens after the first `past` ones of the cache. Whatever was behind those is forgotten."""
        array = (ctypes.c_int * len(tokens))(*tokens)
        if not self._model.ctransformers_llm_batch_eval(array, len(tokens), past, len(tokens), threads):
            raise RuntimeError("the library failed to evaluate tokens")

    def sample(
        self, recent: Sequence[int], *, top_k: int, top_p: float, temperature: float, penalty: float, seed: int
    ) -> int:
        """Draw the next token; the penalty is for those in `recent`."""
        array = (ctypes.c_int * len(recent))(*recent)
        return int(self._model.ctransformers_llm_sample(array, len(recent), top_k, top_p, temperature, penalty, seed))

    def logits(self) -> list[float]:
        """Return what the last evaluated token says about the next."""
        return list(self._model.ctransformers_llm_logits_data()[: self._model.ctransformers_llm_logits_size()])

    def state(self) -> list[float]:
        """Return the vector of the last evaluated token."""
        return list(self._model.ctransformers_llm_embeddings_data()[: self._model.ctransformers_llm_embeddings_size()])


def _library() -> str | None:
    """Return the build for our CPU, as the library would choose it; asking it takes a second. None: it must choose."""
    found = find_spec("ctransformers")
    try:
        flags = next(line for line in CPU.read_text().splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return None
    if found is None or found.origin is None or (Path(found.origin).parent / "lib" / "local").is_dir():
        return None
    if "avx2" in flags:
        return "avx2"
    return "avx" if {"avx", "f16c"} <= set(flags) else "basic"
