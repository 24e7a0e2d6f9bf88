"""Loads the kernels of native/ in front of ggml's functions of the same names, and switches them on.

The dynamic linker binds a name to the first library in the global scope that exports it. So the kernels' library is
loaded with its names global, and llama.cpp's libraries after it: ggml then calls the kernels, which pass on to ggml's
own functions what they do not compute themselves. Only Linux binds names this way.

The kernels stay off, and ggml computes everything itself, where one of these is missing:

- a Linux system, and the library, which is built only where there is a compiler for x86-64;
- a version of ggml in VERSIONS, built as shared libraries: native/ggml_abi.h mirrors the structs of those versions;
- all functions that the kernels replace or call (a build with -DGGML_LLAMAFILE=OFF lacks one);
- a processor, and a ggml compiled, with the instruction sets that the kernels use;
- ggml's bits: see `self_check`.
"""

import ctypes
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from puna_ggml_kernels import sources

_log = logging.getLogger(__name__)
LIBRARY: Final = Path(__file__).parent / "native" / "kernels.so"
VERSIONS: Final = ("0.25.3",)
"""Versions of ggml that the kernels are known to fit. README.md says how to add one."""
TILED_PREFILL_ROWS: Final = 64
"""Tokens of one sequence in a batch from which ggml computes their attention in tiles, with 32-bit sums."""
MAX_SEQUENCES: Final = 64
"""Sequences of a batch, at most, that can get the bits of batches of their own."""
SHORTEST_PREFILL: Final = 2
"""Tokens of one sequence in a batch that tell prefill from decoding."""

_INTERFACE: Final = {
    "puna_sources": (ctypes.c_char_p,),
    "puna_tensor_size": (ctypes.c_size_t,),
    "puna_set_functions": (None, ctypes.c_void_p),
    "puna_supported": (ctypes.c_bool,),
    "puna_enable": (None, ctypes.c_bool),
    "puna_set_exact": (None, ctypes.c_bool),
    "puna_set_tiled_from": (None, ctypes.c_int),
    "puna_set_prompts": (None, ctypes.c_void_p, ctypes.c_int),
    "puna_set_batch_invariant": (None, ctypes.c_int),
    "puna_set_huge_pages": (None, ctypes.c_bool),
    "puna_set_sequences": (None, ctypes.c_void_p, ctypes.c_int),
    "puna_top_candidates": (
        ctypes.c_int,
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int),
    ),
    "puna_matmul_calls": (ctypes.c_long,),
    "puna_expert_calls": (ctypes.c_long,),
    "puna_f16_calls": (ctypes.c_long,),
    "puna_gelu_calls": (ctypes.c_long,),
    "puna_attention_calls": (ctypes.c_long,),
    "puna_norm_calls": (ctypes.c_long,),
    "puna_planned_graphs": (ctypes.c_long,),
    "puna_sleeping_graphs": (ctypes.c_long,),
    "puna_barrier_sleeps": (ctypes.c_long,),
}
"""The library's own functions, which replace none of ggml's: result type, then argument types."""


_INSTALLED: Final[list[ctypes.CDLL]] = []
"""The library, once `install` has switched the kernels on."""


class UnavailableError(Exception):
    """The kernels cannot be used in this process."""

    def __init__(self, reason: str, *, expected: bool = False) -> None:
        """`expected`: true if nothing is wrong, as on another processor."""
        super().__init__(reason)
        self.level = logging.INFO if expected else logging.WARNING


@cache
def install() -> ctypes.CDLL | None:
    """Load the library and then llama.cpp's, and switch the kernels on; None if that is not possible.

    The first call in a process decides, and logs why the kernels are off. It must come before llama.cpp is imported.
    """
    try:
        # A failure is cached too: once llama.cpp is loaded, a second attempt would come too late to take ggml's place.
        _INSTALLED.append(load())
    except UnavailableError as error:
        _log.log(error.level, "ggml runs without Puna's kernels: %s", error)
        return None
    return _INSTALLED[0]


def installed() -> ctypes.CDLL | None:
    """Return the library if `install` has switched the kernels on in this process. Loads nothing."""
    # `install` itself would load the library. Each step of a model asks, so its cache is not asked either.
    return _INSTALLED[0] if _INSTALLED else None


def step_function() -> Callable[..., int] | None:
    """Return the function puna_step of native/step.c; None: the kernels are not installed.

    Unlike the library's other functions it is called without Python's lock, since it evaluates a batch.
    """
    if installed() is None:
        return None
    function = ctypes.CDLL(str(LIBRARY)).puna_step
    function.restype, function.argtypes = ctypes.c_int, (ctypes.c_void_p,) * 5
    return function


def load() -> ctypes.CDLL:
    """Do what `install` does. Raises UnavailableError; then ggml computes everything itself."""
    _check_installation()
    library = _open_library()

    from puna_ggml_kernels import cpu_backend, ggml, self_check  # loads llama.cpp

    try:
        functions, missing = ggml.own_functions()
    except cpu_backend.NoCpuBackendError as error:
        raise UnavailableError(str(error)) from error
    # From here on ggml calls the library. ggml never calls a function that it does not export.
    library.puna_set_functions(ctypes.byref(functions))
    if missing:
        raise UnavailableError(f"llama.cpp was built without {', '.join(missing)}")
    if not library.puna_supported():
        raise UnavailableError("the processor has no AVX-512 VNNI", expected=True)
    if without := ggml.missing_instructions():
        raise UnavailableError(f"llama.cpp was compiled without {', '.join(without)}")
    if ggml.tensor_bytes() != library.puna_tensor_size():
        raise UnavailableError("struct ggml_tensor has another size than the kernels were compiled with")
    # Last of all the comparison, which needs the kernels switched on. No model runs yet.
    library.puna_enable(True)
    if different := self_check.differences(library):
        library.puna_enable(False)
        raise UnavailableError(f"they differ from ggml's own functions: {', '.join(different)}")
    return library


def set_exact(*, exact: bool) -> None:
    """Choose whether products have ggml's bits, as they have at first.

    Otherwise each type has one order of additions for any number of columns, so that a sequence has the same bits in
    any company, and some types are added up faster.

    The choice holds for the whole process. Not while a model runs.
    """
    library = installed()
    if library is not None:
        library.puna_set_exact(exact)


def set_order(*, tiled_from: int, invariant_sequences: int = 0, prompts: Sequence[int] | None = None) -> None:
    """Choose between orders of additions where ggml has several. Without the kernels ggml chooses by the batch's size.

    `tiled_from`: rows of queries of a sequence from which attention is tiled, at most TILED_PREFILL_ROWS. Tiled
    attention gives a row the bits that it has in a large batch. llama.cpp divides a batch, so that even one row may be
    left over. `invariant_sequences`: the batch holds newest tokens and draft tokens of so many sequences, up to 32 in
    all, and each gets the bits that it has in a batch of newest tokens alone; 0: the size of the batch decides.
    `prompts`: the sequences whose tokens have the order of a prompt, while all others have that of sampled ones. Unless
    ggml's bits are wanted (`set_exact`), the attention of a token then depends on nothing that is evaluated beside it,
    and `tiled_from` counts only where the kernels leave attention to ggml. Heads of fewer than 64 elements, which toy
    models have, keep ggml's orders. None: the number of tokens decides.

    The order holds for the whole process. What runs beside the batch without a mask, such as an image encoder, keeps
    ggml's order of attention; its products of 32 columns or fewer do not.
    """
    library = installed()
    if library is not None:
        library.puna_set_tiled_from(tiled_from)
        library.puna_set_batch_invariant(invariant_sequences)
        if prompts is None:
            library.puna_set_prompts(None, -1)
        else:
            library.puna_set_prompts((ctypes.c_int32 * len(prompts))(*prompts), len(prompts))


def set_sequences(lengths: Sequence[int]) -> bool:
    """Give each of the sequences of the next batches the bits that it has in a batch of its own.

    `lengths`: the number of tokens of each, in the order of the batch; none: a batch is computed as a whole again.
    False: the kernels are off or the sequences too many, and ggml's order depends on the whole batch. Holds for the
    whole process.
    """
    library = installed()
    if library is None or len(lengths) > MAX_SEQUENCES:
        return False
    library.puna_set_sequences((ctypes.c_int32 * len(lengths))(*lengths), len(lengths))
    return True


@contextmanager
def huge_pages() -> Iterator[None]:
    """Within this context, large buffers of ggml take huge pages, where the kernels are on and the system has them.

    It is meant for weights, since such a buffer takes its memory as a whole.
    """
    library = installed()
    if library is not None:
        library.puna_set_huge_pages(True)
    try:
        yield
    finally:
        if library is not None:
            library.puna_set_huge_pages(False)


def _open_library() -> ctypes.CDLL:
    """Load the library and make its names global."""
    # With local names at first: a library from other sources must not take the place of ggml's functions.
    # PyDLL keeps Python's lock, which another thread would take in the microseconds of a call, and keep for longer.
    library = ctypes.PyDLL(str(LIBRARY))
    try:
        for name, (result, *arguments) in _INTERFACE.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        same = library.puna_sources().decode() == sources.digest(LIBRARY.parent)
    except AttributeError:
        same = False
    if not same:
        raise UnavailableError(f"{LIBRARY} was built from other sources; install again")
    ctypes.CDLL(str(LIBRARY), mode=ctypes.RTLD_GLOBAL)  # the same library, its names now in the global scope
    return library


def _check_installation() -> None:
    """Check all that can be checked before llama.cpp is loaded. Afterwards it is too late to take ggml's place."""
    if sys.platform != "linux":
        raise UnavailableError("they are for Linux", expected=True)
    if not LIBRARY.exists():
        raise UnavailableError(f"{LIBRARY} was not built, for want of a compiler for x86-64 Linux", expected=True)
    if "llama_cpp" in sys.modules:
        raise UnavailableError("llama.cpp was loaded before them")
    # The package is located and not imported, since its import loads llama.cpp.
    found = importlib.util.find_spec("llama_cpp")
    if found is None or not found.origin:
        raise UnavailableError("llama-cpp-python is not installed", expected=True)
    # The file's name is the only sign of ggml's version that can be read without loading it.
    folder = Path(found.origin).parent / "lib"
    if not any((folder / f"libggml-base.so.{version}").exists() for version in VERSIONS):
        raise UnavailableError(f"llama.cpp has no shared library of ggml {' or '.join(VERSIONS)}")
