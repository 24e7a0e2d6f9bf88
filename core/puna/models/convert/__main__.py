"""The program: `python -m puna.models.convert`, with a job as JSON on standard input: the arguments of `job.run`.

Lines `progress DONE TOTAL` (bytes) and `warning TEXT` go to standard output. What is wrong goes to standard error, and
the exit status tells whether it is the files (see `failure`).
"""

import json
import logging
import sys

from puna.models.convert import job
from puna.models.convert.failure import ConversionError, UnsupportedError


def main() -> int:
    """Run the program and return its exit status."""
    # The server logs such lines; standard error is only read when the program fails.
    logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="warning %(message)s")
    try:
        for done, total in job.run(**json.load(sys.stdin)):
            sys.stdout.write(f"progress {done} {total}\n")
            sys.stdout.flush()
    except (ConversionError, UnsupportedError) as error:
        sys.stderr.write(f"{error}\n")
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
