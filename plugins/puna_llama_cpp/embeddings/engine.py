"""The step loop of a model that embeds or ranks texts.

Each step evaluates one batch of texts from the requests that wait, which share the time equally (`fair_queue`). Batches
are small, so that a short text does not wait long for others: the cost of attention grows with the square of a batch.

A text's vector must not depend on the other texts of its batch. On a CPU, Puna's kernels compute each text of a batch
as if it were alone (`decode_apart`), so it has the same bits in any company. Without the kernels, llama.cpp's flash
attention computes with another precision from 64 tokens in a batch on (differences of up to 3e-4 were seen). Short
texts are then batched up to 63 tokens, and a longer text is evaluated alone.

`submit` and `cancel` run on event loops; the lock guards the queue, the running batch and the abort flag. A batch is
aborted only when all of its texts are cancelled.
"""

import math
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import AbortedError, Context
from puna_llama_cpp.embeddings.fair_queue import FairQueue, Job, Text
from puna_llama_cpp.step_thread import BatchedDelivery, StepThread, unloaded_error

CPU_BATCH = 63
"""Tokens of a batch of several texts, at most, so that they do not change each other's vectors much."""
KERNELS_BATCH = 256
"""The same with Puna's kernels. Larger batches gain nothing more, and a text that arrives waits longer for them."""
GPU_BATCH = 512
"""The same on a GPU, where small batches waste the device and whose arithmetic differs from Ollama's on a CPU anyway.
"""


def normalized(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a vector scaled to length 1 in llama-server's arithmetic: the sum in 64 bits, the factor in 32."""
    total = math.sqrt(float(np.square(vector.astype(np.float64)).sum()))
    return vector * np.float32(1.0 / total if total > 0 else 0.0)


class EmbeddingEngine:
    """Embeds texts on a context. All methods but `submit` may be called from any thread."""

    def __init__(self, context: Context, *, slots: int, batch_tokens: int, length: int) -> None:
        """Batch up to `slots` texts of `batch_tokens` tokens in all. Vectors have `length` numbers."""
        self._context, self._slots, self._length = context, slots, length
        self._batch_tokens = min(batch_tokens, context.batch_size)
        self._batch = Batch(context.batch_size)
        self._lock = threading.Lock()
        self._queue = FairQueue()
        self._evaluating: list[Text] = []
        self._delivery = BatchedDelivery()
        self._closed = False
        self._thread = StepThread("llama-embed", self._step, self._on_thread_end)
        self._thread.start()

    def submit(self, job: Job, texts: Sequence[list[int]]) -> None:
        """Queue the texts of a request of the running event loop. Raises BackendError if the model was unloaded."""
        with self._lock:
            if self._closed:
                raise unloaded_error()
            self._delivery.connect(job.results)
            self._queue.add(job, texts)
        self._thread.wake()

    def cancel(self, job: Job) -> None:
        """Drop the rest of a request, and abort the running batch if no other request needs it."""
        with self._lock:
            job.cancelled = True
            self._queue.drop(job)
            # Other requests would lose a batch of work to one that is cancelled, so the batch must be useless to all.
            if self._evaluating and all(text.job.cancelled for text in self._evaluating):
                self._context.set_abort(True)

    def step(self) -> int | None:
        """Return the number of steps so far; None while there is no work."""
        step = self._thread.step()
        return None if step is None else step + self._context.turns_passed()

    def close(self) -> None:
        """Abort the running batch and wait for the thread to end."""
        with self._lock:
            self._closed = True
            self._context.set_abort(True)
        self._thread.close()
        self._delivery.close()

    def _on_thread_end(self) -> None:
        with self._lock:
            self._closed = True
            left = {*self._queue.jobs, *(text.job for text in self._evaluating)}
        for job in left:
            if not job.cancelled:
                self._delivery.put(job.results, unloaded_error())
        self._delivery.send()

    def _step(self) -> bool:
        with self._lock:
            if self._closed:
                return False
            # The abort flag is cleared under the lock that `cancel` takes. So an abort of the last batch cannot end
            # this one, and an abort of this one cannot be lost.
            texts = self._queue.take(self._slots, self._batch_tokens)
            self._evaluating = texts
            self._context.set_abort(False)
        if not texts:
            return False
        self._batch.clear()
        for slot, text in enumerate(texts):
            self._batch.add(slot, 0, text.tokens, output=True, all_outputs=True)
        try:
            # A model with a KV memory would otherwise attend to the text that had the slot before.
            self._context.clear()
            self._context.decode_apart(self._batch, [len(text.tokens) for text in texts])
        # A batch is aborted only if all of its texts are cancelled or the model is closed, so nothing is repeated.
        except AbortedError:
            texts = []
        except BackendError as error:
            for job in {text.job for text in texts}:
                self._delivery.put(job.results, error)
            texts = []
        for slot, text in enumerate(texts):
            self._delivery.put(text.job.results, (text.index, self._context.pooled(slot, self._length)))
        with self._lock:
            # After `close`, `_on_thread_end` needs the list to fail the requests of the aborted batch.
            if not self._closed:
                self._evaluating = []
        self._delivery.send()
        return True
