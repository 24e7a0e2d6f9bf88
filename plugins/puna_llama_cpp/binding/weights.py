"""A model's weights in memory, with its adapters and its vocabulary.

The tensors of a file are in memory once, however many models of the process use them with adapters of their own.
llama.cpp keeps the adapters of all of them in one list, so a model is loaded or freed under the lock LOADING.
"""

import ctypes
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib

from puna.backend import InvalidRequestError, ModelSpec
from puna_ggml_kernels.cpu_backend import load_cpu_backend
from puna_ggml_kernels.loader import huge_pages
from puna_ggml_kernels.repacking import should_repack
from puna_llama_cpp.binding.architectures import HEADS
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.turns import LOADING, TURNS
from puna_llama_cpp.binding.vocabulary import Vocabulary
from puna_llama_cpp.step_thread import unloaded_error


class LoadCancelledError(Exception):
    """The load was cancelled."""


@dataclass(eq=False, slots=True, kw_only=True)
class _Tensors:
    """The tensors of a file in memory, for one or several Weights."""

    pointer: Any  # a pointer, typed two ways in the binding
    load_mode: int
    repacked: bool
    size_bytes: int
    vram_bytes: int
    users: int = 1


_shared: dict[Hashable, _Tensors] = {}
"""The tensors that are in memory, by all that decides what they are. LOADING guards it."""


class Weights:
    """A loaded GGUF file with adapters. The constructor blocks for as long as the load takes."""

    def __init__(
        self,
        spec: ModelSpec,
        report: Callable[[float], None],
        is_cancelled: Callable[[], bool],
        *,
        allocate: bool = True,
        head: bool = False,
    ) -> None:
        """Load the file, unless its tensors are in memory already, and its adapters.

        `report` gets the progress from 0 to 1; the load ends early once `is_cancelled` returns true. Without
        `allocate`, no tensor gets memory, and adapters are left out. Such weights only tell sizes. `head`: with the
        layers of the head that drafts for the model, which the file must have (`heads.has_head`).

        Raises InvalidRequestError if llama.cpp cannot run the file, and LoadCancelledError if cancelled.
        """
        with LOADING:
            self.head = head
            """True if the layers of a head are loaded."""
            self._key = _identity(spec, head=head) if allocate else None
            captured_log().clear()
            tensors = _shared.get(self._key)
            self.shared = tensors is not None
            """Whether another model of the process had loaded the tensors before."""
            if tensors is not None:
                tensors.users += 1
            else:
                tensors = _load(spec, report, is_cancelled, allocate=allocate, head=head)
                if self._key is not None:
                    _shared[self._key] = tensors
            self._tensors = tensors
            self._adapters: list[Any] = []
            self._closed = False
            try:
                self._open(spec, allocate=allocate)
            except BaseException:
                self.close()
                raise

    def _open(self, spec: ModelSpec, *, allocate: bool) -> None:
        pointer = self.pointer
        self.load_mode = self._tensors.load_mode
        self.repacked = self._tensors.repacked
        """Whether ggml may repack the weights. Whether it does also depends on the load mode."""
        self.architecture = self.metadata("general.architecture")
        if self.architecture in HEADS and not self.head:
            raise InvalidRequestError(
                f'the architecture "{self.architecture}" only drafts for another model, whose DRAFT names it'
            )
        if lib.llama_model_has_encoder(pointer) and lib.llama_model_has_decoder(pointer) and not self.head:
            # Its decoder attends to what an encoder has read, and llama.cpp ends the process if none has.
            raise InvalidRequestError(
                f'the architecture "{self.architecture}" is an encoder with a decoder, which this backend does not run'
            )
        if lib.llama_model_is_diffusion(pointer) and not self.metadata(f"{self.architecture}.pooling_type"):
            # It fills in a text that is masked, in any order, instead of going on with one.
            raise InvalidRequestError(
                f'the architecture "{self.architecture}" writes text by diffusion, which this backend does not run'
            )
        vocab = lib.llama_model_get_vocab(pointer)
        if vocab is None:
            raise InvalidRequestError("the model has no vocabulary")
        # SentencePiece puts a space in front of a text unless the file says otherwise; detokenizing removes it again.
        sentencepiece = lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_SPM
        spaced = sentencepiece and self.metadata("tokenizer.ggml.add_space_prefix") != "false"
        self.vocabulary = Vocabulary(vocab, adds_space=spaced)
        self.context_length = lib.llama_model_n_ctx_train(pointer)
        self.embedding_length = lib.llama_model_n_embd_out(pointer)
        self.classifier_outputs = lib.llama_model_n_cls_out(pointer)
        if allocate:
            for path in spec.adapter_paths:
                self._add_adapter(path)

    @property
    def pointer(self) -> Any:  # noqa: ANN401 (a pointer, typed two ways in the binding)
        """llama.cpp's model. Raises BackendError once the weights are closed."""
        if self._closed:
            raise unloaded_error()
        return self._tensors.pointer

    @property
    def shared_bytes(self) -> tuple[int, int]:
        """The bytes of tensors that another model of the process has loaded; 0: this one has.

        The second number counts those outside the CPU's memory.
        """
        return (self._tensors.size_bytes, self._tensors.vram_bytes) if self.shared else (0, 0)

    def _add_adapter(self, path: str) -> None:
        # In a turn, since contexts read the model's list of adapters when they compute.
        with TURNS:
            adapter = lib.llama_adapter_lora_init(self.pointer, path.encode())
        if not adapter:
            raise InvalidRequestError(captured_log().last_error() or f"llama.cpp could not load the adapter {path}")
        self._adapters.append(adapter)

    def apply_adapters(self, context: lib.llama_context_p) -> None:
        """Make a context use the adapters, each at full strength."""
        if not self._adapters:
            return
        count = len(self._adapters)
        adapters = (lib.llama_adapter_lora_p_ctypes * count)(*self._adapters)
        scales = (ctypes.c_float * count)(*[1.0] * count)
        if lib.llama_set_adapters_lora(context, adapters, count, scales) != 0:
            raise InvalidRequestError(captured_log().last_error() or "llama.cpp could not use the adapters")

    def metadata(self, key: str) -> str:
        """Return a metadata value as llama.cpp prints it; empty if there is none."""
        room = 256
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, room)
            # As with snprintf, the result is the full length even if the buffer was too short.
            if length < room:
                return buffer.value.decode("utf-8", "replace") if length >= 0 else ""
            room = length + 1

    @property
    def size_bytes(self) -> int:
        """The bytes of all tensors in the file."""
        return int(lib.llama_model_size(self.pointer))

    @property
    def layers(self) -> int:
        """The number of layers, without those of a head."""
        return int(lib.llama_model_n_layer(self.pointer))

    @property
    def cache_bytes_per_token(self) -> int:
        """The bytes of one token in an f16 KV cache, by the file's metadata.

        It is an upper bound: models with sliding windows or shared layers cache less.
        """
        key, value = self._head_length("key"), self._head_length("value")
        heads_kv = max(int(lib.llama_model_n_head_kv(self.pointer)), 1)
        return self.layers * heads_kv * (key + value) * 2

    def _head_length(self, part: str) -> int:
        """Return the length of a head's keys or values: `part` is "key" or "value"."""
        # Files without an explicit length divide the width of the model equally among its heads.
        heads = max(int(lib.llama_model_n_head(self.pointer)), 1)
        width = int(lib.llama_model_n_embd(self.pointer)) // heads
        return int(self.metadata(f"{self.architecture}.attention.{part}_length") or width)

    @property
    def rotates_whole_keys(self) -> bool:
        """True if RoPE rotates whole keys, those of an indexer too, and not a part of each."""
        length = self._head_length("key")
        rotated = int(self.metadata(f"{self.architecture}.rope.dimension_count") or length)
        indexer = int(self.metadata(f"{self.architecture}.attention.indexer.key_length") or rotated)
        return length == rotated == indexer

    @property
    def rerank_template(self) -> str:
        """The text with {query} and {document} that joins the two for ranking; usually empty."""
        template = lib.llama_model_chat_template(self.pointer, b"rerank")
        return template.decode("utf-8", "replace") if template else ""

    @property
    def embeds_only(self) -> bool:
        """Whether the model generates no text: the file names a pooling, or its attention is not causal."""
        prefix = self.architecture
        return bool(self.metadata(f"{prefix}.pooling_type")) or self.metadata(f"{prefix}.attention.causal") == "false"

    def close(self) -> None:
        """Free the adapters, and the tensors if no other model uses them. A second call does nothing.

        Blocks while another model computes.
        """
        with LOADING:
            if self._closed:
                return
            self._closed = True
            self._tensors.users -= 1
            if self._tensors.users:
                with TURNS:
                    for adapter in self._adapters:
                        lib.llama_adapter_lora_free(adapter)
                return
            # With the tensors, llama.cpp frees the adapters for them.
            lib.llama_model_free(self._tensors.pointer)
            if self._key is not None:
                del _shared[self._key]


def _identity(spec: ModelSpec, *, head: bool) -> Hashable:
    """Return all that decides which tensors a load gives, and where they are."""
    try:
        file = Path(spec.path).stat()
    except OSError:
        return None  # llama.cpp says why it cannot be loaded
    changed = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)
    return spec.path, head, changed, spec.gpu_layers, spec.main_gpu, spec.use_mmap, should_repack(spec.path)


def _load(
    spec: ModelSpec, report: Callable[[float], None], is_cancelled: Callable[[], bool], *, allocate: bool, head: bool
) -> _Tensors:
    """Load the tensors of a file. Raises InvalidRequestError and LoadCancelledError."""
    # First of all, so that ggml never searches for backends in folders of its own choice (see `cpu_backend`).
    load_cpu_backend()
    lib.llama_backend_init()

    def progress(done: float, _data: object) -> bool:
        report(done)
        return not is_cancelled()

    # llama.cpp keeps a bare pointer, so the callback must stay referenced until the load returns.
    callback = lib.llama_progress_callback(progress)
    parameters = lib.llama_model_default_params()
    parameters.progress_callback = callback
    # A negative number leaves the choice to llama.cpp.
    if spec.gpu_layers >= 0:
        parameters.n_gpu_layers = spec.gpu_layers
    if spec.main_gpu is not None:
        parameters.main_gpu = spec.main_gpu
        # With one GPU chosen, no layer goes to another.
        parameters.split_mode = lib.LLAMA_SPLIT_MODE_NONE
    parameters.no_alloc, parameters.load_mtp = not allocate, head
    load_mode = _load_mode(spec) if allocate else lib.LLAMA_LOAD_MODE_NONE
    repacked = should_repack(spec.path)
    parameters.load_mode, parameters.use_extra_bufts = load_mode, repacked
    with huge_pages():
        pointer = lib.llama_model_load_from_file(spec.path.encode(), parameters)
    if not pointer:
        # A load that the progress callback ends is reported like a failure.
        if is_cancelled():
            raise LoadCancelledError
        raise InvalidRequestError(captured_log().load_error() or "llama.cpp could not load the model")
    size, on_gpus = captured_log().buffer_bytes()
    size = size or int(lib.llama_model_size(pointer))
    return _Tensors(pointer=pointer, load_mode=load_mode, repacked=repacked, size_bytes=size, vram_bytes=on_gpus)


def _load_mode(spec: ModelSpec) -> int:
    """Return llama.cpp's load mode.

    On a CPU the weights are repacked while they are read, which a mapped file does not allow. Weights that exceed the
    free memory are mapped all the same: that is slow, but the kernel kills no process for it.
    """
    if spec.use_mmap is None and lib.llama_supports_gpu_offload():
        return lib.LLAMA_LOAD_MODE_AUTO
    tight = 0 < spec.memory_bytes < Path(spec.path).stat().st_size
    mapped = tight if spec.use_mmap is None else spec.use_mmap
    return lib.LLAMA_LOAD_MODE_MMAP if mapped else lib.LLAMA_LOAD_MODE_NONE
