"""Write the catalogue of error reasons into proto/README.md, or with --check say whether it is stale.

The catalogue comes from the classes of errors, so each reason is described once.
"""

import sys
from pathlib import Path

from puna.errors import PunaError
from puna.rpc.status import code_of
from puna_rest.errors import BY_REASON

README = Path(__file__).parent.parent / "proto" / "README.md"
BEGIN, END = "<!-- reasons: written by tools/list_reasons.py -->", "<!-- end of the reasons -->"


def kinds(kind: type[PunaError] = PunaError) -> list[type[PunaError]]:
    """Return a class of errors and those that derive from it, in the order of their definition."""
    return [kind, *(each for below in kind.__subclasses__() for each in kinds(below))]


def catalogue() -> str:
    """Return the catalogue as Markdown."""
    found: dict[str, tuple[str, int, str]] = {}
    for kind in kinds():
        # Subclasses that have no reason of their own share that of their base, which is described.
        code = code_of(kind.__new__(kind)).name
        text = "A fault of the server." if kind is PunaError else (kind.__doc__ or "").strip().splitlines()[0]
        found.setdefault(kind.reason, (code, BY_REASON[kind.reason], text))
    lines = ["| reason | gRPC status | HTTP status | meaning |", "|---|---|---|---|"]
    lines += [f"| `{reason}` | {code} | {status} | {text} |" for reason, (code, status, text) in sorted(found.items())]
    return "\n".join(lines)


def main() -> int:
    """Write or check; return the exit status."""
    text = README.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{README} lacks the markers of the catalogue")
        return 1
    fresh = f"{before}{BEGIN}\n\n{catalogue()}\n\n{END}{after}"
    if "--check" in sys.argv:
        print("the catalogue of reasons is " + ("up to date" if fresh == text else "stale: run tools/list_reasons.py"))
        return int(fresh != text)
    README.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
