"""`python -m tools.bench.raw MODEL`: llama.cpp alone, one stream, tokens drawn greedily in C."""

import argparse
import ctypes
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import llama_cpp.llama_cpp as lib
from tools.bench.work import text

from puna_llama_cpp.binding.machine import threads_for

_CONTEXT = 4096
_BATCH = 512
_WARM_UP = 8


@dataclass(frozen=True, slots=True)
class Run:
    """One answer."""

    arrivals: list[float]
    """Seconds from the beginning of the prompt's evaluation to each token."""
    text: str


@lib.llama_log_callback
def _silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    pass


class Loop:
    """A loaded model with a context of one sequence."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load it into memory, as the servers do on a CPU; 0 `threads` are as many as Puna takes."""
        lib.llama_log_set(_silent, ctypes.c_void_p(0))
        lib.llama_backend_init()
        weights = lib.llama_model_default_params()
        weights.load_mode = lib.LLAMA_LOAD_MODE_NONE
        self._model = lib.llama_model_load_from_file(str(path).encode(), weights)
        if not self._model:
            raise ValueError(f"llama.cpp cannot load {path}")
        self._vocabulary = lib.llama_model_get_vocab(self._model)
        context = lib.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch = _CONTEXT, _BATCH, _BATCH
        threads = threads or threads_for(path.stat().st_size)
        context.n_threads = context.n_threads_batch = threads
        context.no_perf = True
        self._context = lib.llama_init_from_model(self._model, context)
        self._greedy = lib.llama_sampler_init_greedy()

    def close(self) -> None:
        """Free all of it."""
        lib.llama_sampler_free(self._greedy)
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    def write(self, prompt: str, count: int) -> Run:
        """Write `count` tokens after a prompt of at most a batch, whatever they are."""
        lib.llama_memory_clear(lib.llama_get_memory(self._context), False)
        given = prompt.encode()
        tokens = (ctypes.c_int32 * _BATCH)()
        length = lib.llama_tokenize(self._vocabulary, given, len(given), tokens, _BATCH, True, True)
        if length <= 0:
            raise ValueError(f"a prompt has one to {_BATCH} tokens")
        batch = lib.llama_batch_get_one(tokens, length)
        drawn = (ctypes.c_int32 * 1)()
        arrivals, written = [], []
        began = time.perf_counter()
        for _ in range(count):
            if status := lib.llama_decode(self._context, batch):
                raise RuntimeError(f"llama_decode failed with status {status}")
            drawn[0] = lib.llama_sampler_sample(self._greedy, self._context, -1)
            batch = lib.llama_batch_get_one(drawn, 1)
            arrivals.append(time.perf_counter() - began)
            written.append(drawn[0])
        return Run(arrivals, b"".join(self._piece(token) for token in written).decode("utf-8", "replace"))

    def _piece(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(256)
        length = lib.llama_token_to_piece(self._vocabulary, token, room, 256, 0, True)
        return room.raw[: max(length, 0)]


def main() -> None:
    """Measure once, after a few tokens of warm-up."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.raw", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", default=text(24, 1))
    parser.add_argument("--threads", type=int, default=0, help="default: as Puna")
    parser.add_argument("--json", action="store_true", help="print each token's time, and the text")
    told = parser.parse_args()
    loop = Loop(told.model, told.threads)
    loop.write(told.prompt, _WARM_UP)
    run = loop.write(told.prompt, told.tokens)
    loop.close()
    print(json.dumps(asdict(run)) if told.json else f"{told.tokens / run.arrivals[-1]:.1f} tokens/s")


if __name__ == "__main__":
    main()
