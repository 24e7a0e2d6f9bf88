"""The plugin's entry point: the Backend class that a host process imports.

Importing this module loads neither llama.cpp nor numpy. They come with the first model, in its host process.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from puna.backend import Backend, LoadedModel, MemoryEstimate, ModelSpec

if TYPE_CHECKING:
    from puna_llama_cpp.estimate import MemoryEstimator
    from puna_llama_cpp.loading import LoadedParts


class LlamaCppBackend(Backend):
    """Loads GGUF models with llama.cpp."""

    def __init__(self) -> None:
        self._estimator: MemoryEstimator | None = None
        self._estimating = threading.Lock()

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Load the weights and create a context in a thread.

        A cancelled load ends at llama.cpp's next progress report, and its memory is freed before this returns.
        """
        opened = await _open_in_thread(spec, report)
        return opened.start()

    async def estimate_memory(self, spec: ModelSpec, /) -> MemoryEstimate:
        """Open the model without its weights, and have llama.cpp count what it would allocate."""
        return await asyncio.to_thread(self._estimate, spec)

    def _estimate(self, spec: ModelSpec) -> MemoryEstimate:
        with self._estimating:
            if self._estimator is None:
                _install_kernels(spec)
                from puna_llama_cpp.estimate import MemoryEstimator

                self._estimator = MemoryEstimator()
            return self._estimator.estimate(spec)

    def _close_estimator(self, estimator: "MemoryEstimator") -> None:
        # After an estimate that still runs.
        with self._estimating:
            estimator.close()

    async def aclose(self) -> None:
        """Free what the last estimate left."""
        if self._estimator is not None:
            await asyncio.to_thread(self._close_estimator, self._estimator)


def _install_kernels(spec: ModelSpec) -> None:
    """Load Puna's kernels unless an option says otherwise. Call it before anything imports llama.cpp."""
    if spec.backend_options.get("kernels", True):
        from puna_ggml_kernels import loader

        # Before anything loads llama.cpp: the linker takes the first library that has a function of a name.
        loader.install()
        loader.set_exact(exact=bool(spec.backend_options.get("exact_kernels", False)))


async def _open_in_thread(spec: ModelSpec, report: Callable[[float], None]) -> "LoadedParts":
    loop = asyncio.get_running_loop()
    cancelled = threading.Event()

    def work() -> "LoadedParts":
        _install_kernels(spec)
        # Imported here, since it loads llama.cpp, which must come after the kernels.
        from puna_llama_cpp.loading import open_model

        return open_model(spec, lambda done: _report_on_loop(loop, report, done), cancelled.is_set)

    # Shielded, since a thread cannot be cancelled: it is asked to stop, and whatever it still produces is closed here.
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait({working})
        if not working.exception():
            working.result().close()
        raise


def _report_on_loop(loop: asyncio.AbstractEventLoop, report: Callable[[float], None], done: float) -> None:
    loop.call_soon_threadsafe(report, done)
