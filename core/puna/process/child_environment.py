"""The environment of child processes.

A child runs native code over untrusted files: a host loads a pulled model, a quantizer reads an uploaded one. It
therefore gets only the variables with which it finds its libraries and devices; passwords and tokens of the server stay
with the server. PUNA_PASS_ENVIRONMENT names further variables, separated by commas; a name may end with `*`.
"""

import os
import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Final

PASS: Final = "PUNA_PASS_ENVIRONMENT"

_NAMES: Final = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES"),
        *("VIRTUAL_ENV", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_DATA_DIRS", "GLIBC_TUNABLES"),
    )
)
_PREFIXES: Final = (
    *("LC_", "PYTHON", "MALLOC_", "ASAN_", "UBSAN_", "COV_CORE_", "COVERAGE_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "VECLIB_"),
    *("GGML_", "LLAMA_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "GPU_", "HIP_", "HSA_", "ROCM_", "ROCR_"),
    *("ROCBLAS_", "AMD_", "VK_", "MESA_", "SYCL_", "ONEAPI_", "ZE_", "MTL_", "METAL_"),
)
_OURS: Final = ("PUNA_", "DOCKER_AUTH_CONFIG")
"""Variables with the server's own passwords and tokens begin so."""
# The prefixes are wide: `LLAMA_` or `CUDA_` may begin the name of a token that a user has set.
_SECRET: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|_KEY|AUTH")


def environment(environ: Mapping[str, str] = os.environ, *, names: Collection[str] = ()) -> dict[str, str]:
    """Return the variables of `environ` that a child process gets.

    `names` are further ones, which a plugin asks for; they may end with `*` and never name a variable of Puna's own.
    Other names that look like secrets are left out.
    """
    wanted = [each.strip() for each in environ.get(PASS, "").split(",") if each.strip()]
    return {
        name: value
        for name, value in environ.items()
        if name in _NAMES
        or (name.startswith(_PREFIXES) and not _SECRET.search(name))
        # The names of the operator and of a plugin pass even if they look like secrets.
        or any(fnmatchcase(name, pattern) for pattern in wanted)
        or (not name.startswith(_OURS) and any(fnmatchcase(name, pattern) for pattern in names))
    }
