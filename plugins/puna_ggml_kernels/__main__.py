"""`python -m puna_ggml_kernels` says whether the kernels can be used here, and otherwise why not.

`make` runs it after each installation, so that a llama.cpp that the kernels do not fit is noticed then. The exit status
is 1 only if something is wrong with the installation.
"""

import logging
import sys
import time

from puna_ggml_kernels.loader import UnavailableError, load


def main() -> int:
    """Load the kernels, print the outcome and return the exit status."""
    start = time.perf_counter()
    try:
        load()
    except UnavailableError as error:
        print(f"llama.cpp runs without Puna's kernels, and more slowly: {error}")
        return int(error.level > logging.INFO)
    print(f"llama.cpp runs with Puna's kernels (loaded and compared in {time.perf_counter() - start:.2f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
