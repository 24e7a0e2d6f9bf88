"""Records fixtures again from a running Ollama.

    python -m tools.record FIXTURE... --url http://127.0.0.1:11434 [--check] [--checkout FOLDER]

FIXTURE is a path, or the end of one: `wire.json`, `jinja/prompts.json`; `all` means each. The requests are those of the
fixture, so its cases stay and only their answers are renewed. With --check nothing is written: each difference is a
line, and the exit status is 1 if there is one. tools/record/README.md tells how the server must be started.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.record.client import RecordingError, Server
from tools.record.fixtures import ROOT, Fixture, differences, table, written


def main(arguments: Sequence[str] | None = None) -> int:
    """Record or check the fixtures that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fixtures", nargs="+", metavar="FIXTURE")
    parser.add_argument("--url", required=True, help="address of the server")
    parser.add_argument("--check", action="store_true", help="list differences and write nothing")
    parser.add_argument("--checkout", type=Path, help="a folder with Ollama's sources, for known_prompts.json")
    given = parser.parse_args(arguments)
    fixtures = table(given.checkout)
    names = [name for name in fixtures if "all" in given.fixtures or name.endswith(tuple(given.fixtures))]
    if not names:
        parser.error(f"there are {', '.join(fixtures)}")
    server = Server(given.url)
    print(f"version {server.version()}", file=sys.stderr)
    return max(_renew(server, name, fixtures[name], write=not given.check) for name in names)


def _renew(server: Server, name: str, fixture: Fixture, *, write: bool) -> int:
    path = ROOT / name
    recorded = json.loads(path.read_text(encoding="utf-8"))
    try:
        new = fixture.record(server, recorded)
    except RecordingError as error:
        print(f"{name}: {error}")
        return 2
    finally:
        server.close()
    found = list(differences(recorded, new, fixture.tolerance))
    for line in found:
        print(f"{name}{line}")
    print(f"{name}: {len(found)} differences", file=sys.stderr)
    if write:
        path.write_text(written(new, fixture), encoding="utf-8")
        return 0
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
