"""The projector, which encodes images into vectors for one model: llama.cpp's mtmd, with its lifetime.

`encode` turns a prompt with markers into tokens and image chunks. The text is divided at its markers, the files are
decoded into bitmaps, and mtmd lays out the whole prompt in one call, since some projectors look at what stands before
an image. Then each chunk is taken from the embedding cache or encoded. Of an image that was encoded lately, mtmd gets a
bitmap with its size and no pixels, which saves decoding the file. If such an image's chunk has left the cache
meanwhile, the prompt is laid out again with all files decoded.

Several threads may call `encode`. mtmd encodes one chunk at a time, under a lock; a thread that waited for the lock
looks into the cache again. An encoding cannot be interrupted, so a cancelled one is completed and its chunk is cached.
"""

import ctypes
import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp.llama_cpp as lib
import llama_cpp.mtmd_cpp as mtmd
import numpy as np
from numpy.typing import NDArray

from puna.backend import BackendError, InvalidRequestError, ModelSpec, PromptTooLongError
from puna_llama_cpp.binding import architectures, memory_breakdown
from puna_llama_cpp.binding.context import FLASH_ATTENTION, Context
from puna_llama_cpp.binding.native_log import captured_log
from puna_llama_cpp.binding.operations import check_projector
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.vision import image_decoder
from puna_llama_cpp.vision.embedding_cache import ChunkKey, EmbeddingCache, ImageKey, ImageSize
from puna_llama_cpp.vision.image_tokens import ImageChunk, PlacedChunk, PromptImages

MAX_IMAGES = 256
"""Images in one prompt."""
MAX_TOTAL_PIXELS = 2 * image_decoder.MAX_PIXELS
"""Pixels of all images of a prompt, which are in memory at the same time."""

# Ollama's error texts, which clients show unchanged.
_LOAD_ERROR = "Failed to load image or audio file"
_MARKER_ERROR = "Failed to tokenize prompt"
_MARKER = re.compile(r"\[img-(\d+)\]")


class EncodingCancelledError(Exception):
    """The request that needs these images was cancelled, or the model is being unloaded."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt with images: its token ids, below zero where image vectors stand, and the image chunks."""

    tokens: list[int]
    images: PromptImages


def _parameters(weights: Weights, spec: ModelSpec) -> Any:  # noqa: ANN401 (a structure of the binding)
    parameters = mtmd.mtmd_context_params_default()
    parameters.use_gpu = spec.gpu_layers != 0
    parameters.print_timings = False
    parameters.flash_attn_type = FLASH_ATTENTION.get(spec.flash_attention, lib.LLAMA_FLASH_ATTN_TYPE_AUTO)
    parameters.image_min_tokens = architectures.MIN_IMAGE_TOKENS.get(weights.architecture, -1)
    return parameters


def memory_by_device(weights: Weights, spec: ModelSpec) -> dict[str, int]:
    """Return the bytes that the projector would take, by device; empty: the machine's own memory."""
    captured_log().attach(mtmd.mtmd_helper_log_set)
    found = memory_breakdown.of_projector(spec.projector_paths[0], _parameters(weights, spec))
    # A projector that cannot be read is an error of the load, whose text says why.
    return found or {"": Path(spec.projector_paths[0]).stat().st_size}


class Projector:
    """Encodes images for one model. Close it before the weights."""

    def __init__(self, weights: Weights, spec: ModelSpec, threads: int) -> None:
        """Load the first projector file. Raises InvalidRequestError if it is none, or not one for this model."""
        captured_log().attach(mtmd.mtmd_helper_log_set)
        parameters = _parameters(weights, spec)
        parameters.n_threads = threads
        check_projector(spec.projector_paths[0])
        pointer = mtmd.mtmd_init_from_file(spec.projector_paths[0].encode(), weights.pointer, parameters)
        if not pointer:
            raise InvalidRequestError(captured_log().load_error() or "llama.cpp could not load the projector")
        self._pointer = pointer
        self._width = int(lib.llama_model_n_embd_inp(weights.pointer))
        self.vision = bool(mtmd.mtmd_support_vision(pointer))
        self.size_bytes = Path(spec.projector_paths[0]).stat().st_size
        """The bytes of its weights. llama.cpp's log counts only the buffers."""
        self._encode_lock = threading.Lock()
        self._cache = EmbeddingCache()

    def close(self) -> None:
        """Free the projector. A second call does nothing."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            mtmd.mtmd_free(pointer)

    def encode(
        self, text: str, media: tuple[bytes, ...], salt: str, context: Context, is_cancelled: Callable[[], bool]
    ) -> EncodedPrompt:
        """Return the tokens and image chunks of a prompt in which "[img-N]" marks the place of image N.

        Blocks while images are encoded that are not in the cache under this salt. Raises InvalidRequestError for a file
        that is no image, is too large or has no marker; PromptTooLongError if the prompt exceeds the context;
        EncodingCancelledError once `is_cancelled` returns true.
        """
        if is_cancelled():
            raise EncodingCancelledError
        began = time.monotonic_ns()
        keys = [ImageKey(salt, hashlib.sha256(data).hexdigest()) for data in media]
        sizes = [self._cache.size(each) for each in keys]
        try:
            tokens, placed = self._tokens(text, media, keys, sizes, context, is_cancelled)
        except _CacheMissError:
            tokens, placed = self._tokens(text, media, keys, [None] * len(media), context, is_cancelled)
        return EncodedPrompt(tokens, PromptImages(placed, time.monotonic_ns() - began))

    def _tokens(
        self,
        text: str,
        media: tuple[bytes, ...],
        keys: list[ImageKey],
        sizes: list[ImageSize | None],
        context: Context,
        is_cancelled: Callable[[], bool],
    ) -> tuple[list[int], list[PlacedChunk]]:
        """Do the work of `encode`.

        Images with a known size are not decoded; raises _CacheMissError if one of them must be.
        """
        with ExitStack() as stack:
            bitmaps = _bitmaps(stack, media, sizes)
            chunks = self._chunks(stack, _parts(text, len(media)), bitmaps)
            length = sum(mtmd.mtmd_input_chunk_get_n_tokens(chunk) for chunk in chunks)
            # Checked before anything is encoded, which takes seconds for each image.
            if length >= context.length:
                raise PromptTooLongError(length, context.length)
            # The chunks of an image have no ids of their own, so their place within the image identifies them.
            parts: Counter[int] = Counter()
            tokens: list[int] = []
            placed = []
            for chunk in chunks:
                if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                    tokens += _text_tokens(chunk)
                    continue
                image_number = int(mtmd.mtmd_input_chunk_get_id(chunk) or b"0")
                layout = self._layout(chunk)
                key = ChunkKey(keys[image_number], parts[image_number], layout.origin.tobytes())
                parts[image_number] += 1
                chunk_embedding = self._cache.get(key)
                # The image's bitmap has a size and no pixels, so this chunk cannot be encoded from it.
                if chunk_embedding is None and sizes[image_number]:
                    raise _CacheMissError
                chunk_embedding = chunk_embedding or self._encode(key, chunk, layout, is_cancelled)
                placed.append(PlacedChunk(len(tokens), chunk_embedding))
                tokens += [chunk_embedding.token] * len(chunk_embedding.vectors)
            # Last, since a stored size promises that all chunks of the image were encoded.
            for each, bitmap in zip(keys, bitmaps, strict=True):
                self._cache.put_size(each, ImageSize(mtmd.mtmd_bitmap_get_nx(bitmap), mtmd.mtmd_bitmap_get_ny(bitmap)))
        return tokens, placed

    def _chunks(
        self, stack: ExitStack, parts: list[str | int], bitmaps: list[mtmd.mtmd_bitmap_p]
    ) -> list[mtmd.mtmd_input_chunk_p]:
        """Lay out a prompt as text chunks and image chunks, which are valid until the stack is closed."""
        # mtmd reads through bare pointers until the layout is done, so Python must keep what they point to.
        inputs, kept_alive = [], []
        for part in parts:
            part_input = mtmd.mtmd_input_part()
            if isinstance(part, int):
                part_input.bitmap = bitmaps[part]
            else:
                data = part.encode()
                # The flags are those of prompts without images: BOS is added, and special tokens in the text count.
                text_input = mtmd.mtmd_input_text(data, len(data), True, True)
                kept_alive.append(text_input)
                part_input.text = ctypes.pointer(text_input)
            inputs.append(ctypes.pointer(part_input))
        chunks = mtmd.mtmd_input_chunks_init()
        stack.callback(mtmd.mtmd_input_chunks_free, chunks)
        array = (ctypes.POINTER(mtmd.mtmd_input_part) * len(inputs))(*inputs)
        if mtmd.mtmd_tokenize_from_parts(self._pointer, chunks, array, len(inputs), True) != 0:
            raise InvalidRequestError(_MARKER_ERROR)
        return [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(mtmd.mtmd_input_chunks_size(chunks))]

    def _encode(
        self, key: ChunkKey, chunk: mtmd.mtmd_input_chunk_p, layout: "_ChunkLayout", is_cancelled: Callable[[], bool]
    ) -> ImageChunk:
        with self._encode_lock:
            # Looked at after the wait for the lock, which may have lasted for several images of other requests.
            if is_cancelled():
                raise EncodingCancelledError
            if chunk_embedding := self._cache.get(key):
                return chunk_embedding
            if mtmd.mtmd_encode_chunk(self._pointer, chunk) != 0:
                raise BackendError(captured_log().last_error() or "llama.cpp could not encode the image")
            output = mtmd.mtmd_get_output_embd(self._pointer)
            # A copy, since mtmd uses its output buffer again for the next chunk.
            vectors = np.ctypeslib.as_array(output, (layout.origin.shape[1], self._width)).copy()
            length = int(mtmd.mtmd_input_chunk_get_n_pos(chunk))
            causal = not mtmd.mtmd_decode_use_non_causal(self._pointer, chunk)
            chunk_embedding = ImageChunk(self._cache.new_token(), vectors, layout.origin, layout.step, length, causal)
            self._cache.put(key, chunk_embedding)
            return chunk_embedding

    def _layout(self, chunk: mtmd.mtmd_input_chunk_p) -> "_ChunkLayout":
        """Return the positions of a chunk's vectors. With some projectors they depend on the images before it."""
        count = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        if not mtmd.mtmd_decode_use_mrope(self._pointer):
            return _ChunkLayout(np.arange(count, dtype=np.int32)[np.newaxis], np.ones((1, count), np.int32))
        image = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        found = []
        # Two layouts, one position apart: their difference shows which coordinates move with the image.
        for start in (0, 1):
            array = (mtmd.mtmd_decoder_pos * count)()
            mtmd.mtmd_helper_image_get_decoder_pos(image, start, array)
            t, x, y, z = np.frombuffer(memoryview(array), np.int32).reshape(count, 4).T
            # mtmd's struct has width before height, and llama.cpp's batches have height before width.
            found.append(np.stack([t, y, x, z]))
        return _ChunkLayout(found[0], found[1] - found[0])


class _ChunkLayout(NamedTuple):
    """The base_positions and the position_step of an ImageChunk."""

    origin: NDArray[np.int32]
    step: NDArray[np.int32]


class _CacheMissError(Exception):
    """A chunk of an image that was not decoded is no longer in the cache."""


def _parts(text: str, count: int) -> list[str | int]:
    """Divide a text at the first marker of each of `count` images. Image numbers stand between the parts."""
    parts: list[str | int] = []
    end = 0
    for match in _MARKER.finditer(text):
        number = int(match[1])
        # A prompt may quote a marker again. Only its first place stands for the image.
        if number < count and number not in parts:
            parts += [text[end : match.start()], number]
            end = match.end()
    parts.append(text[end:])
    if sum(isinstance(part, int) for part in parts) < count:
        raise InvalidRequestError(_MARKER_ERROR)
    return [part for part in parts if part != ""]


def _bitmaps(stack: ExitStack, media: tuple[bytes, ...], sizes: list[ImageSize | None]) -> list[mtmd.mtmd_bitmap_p]:
    """Return mtmd bitmaps with the image numbers as ids, valid until the stack is closed.

    Known sizes give empty bitmaps.
    """
    if len(media) > MAX_IMAGES:
        raise InvalidRequestError(f"there are more than {MAX_IMAGES} images")
    bitmaps, total = [], 0
    for number, (data, size) in enumerate(zip(media, sizes, strict=True)):
        if size:
            bitmap = mtmd.mtmd_bitmap_init(*size, None)
        else:
            image = np.ascontiguousarray(_decode(data, number))
            height, width, _ = image.shape
            # Counted image by image, so that no more than one image beyond the bound is ever decoded.
            total += height * width
            if total > MAX_TOTAL_PIXELS:
                raise InvalidRequestError(f"the images have more than {MAX_TOTAL_PIXELS} pixels together")
            bitmap = mtmd.mtmd_bitmap_init(width, height, image.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        stack.callback(mtmd.mtmd_bitmap_free, bitmap)
        mtmd.mtmd_bitmap_set_id(bitmap, str(number).encode())
        bitmaps.append(bitmap)
    return bitmaps


def _decode(data: bytes, number: int) -> NDArray[np.uint8]:
    try:
        return image_decoder.decode_image(data)
    except image_decoder.ImageTooLargeError as error:
        limit = f"image {number + 1} has more than {image_decoder.MAX_PIXELS} pixels"
        raise InvalidRequestError(limit) from error
    except image_decoder.UnreadableImageError as error:
        raise InvalidRequestError(_LOAD_ERROR) from error


def _text_tokens(chunk: mtmd.mtmd_input_chunk_p) -> list[int]:
    count = ctypes.c_size_t()
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return list(tokens[: count.value])
