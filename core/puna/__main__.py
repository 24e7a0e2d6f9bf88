"""`python -m puna`, and the program `puna`."""

import sys

from puna.cli import early


def main() -> int:
    """Run the command that the arguments name and return its exit status."""
    early.begin()
    # Imported after `begin`: these imports take long, and a signal meanwhile must end the process quietly.
    from puna.cli import signals
    from puna.cli.main import main as run

    try:
        try:
            status = run()
        finally:
            early.ignore()
    except KeyboardInterrupt:
        status = early.status_of(early.ENDING[0])
    if status > early.status_of(0):
        # A signal ended the command. The interpreter's shutdown would first let threads finish its work.
        signals.finish(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
