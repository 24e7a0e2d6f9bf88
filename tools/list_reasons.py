"""Write the catalogue of error reasons into proto/README.md and the client for Python, or with --check compare.

The catalogue comes from the classes of errors, so each reason is described once.
"""

import subprocess
import sys
from pathlib import Path

from puna.errors import PunaError
from puna.rpc.status import code_of
from puna_rest.errors import BY_REASON

README = Path(__file__).parent.parent / "proto" / "README.md"
CLIENT = README.parent / "python/puna_client/reasons.py"
STATUSES = ("INTERNAL", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED")
"""Reasons that are called like their status."""
BEGIN, END = "<!-- reasons: written by tools/list_reasons.py -->", "<!-- end of the reasons -->"


def kinds(kind: type[PunaError] = PunaError) -> list[type[PunaError]]:
    """Return a class of errors and those that derive from it, in the order of their definition."""
    return [kind, *(each for below in kind.__subclasses__() for each in kinds(below))]


def found() -> dict[str, tuple[str, int, str]]:
    """Return gRPC status, HTTP status and meaning of each reason."""
    reasons: dict[str, tuple[str, int, str]] = {}
    for kind in kinds():
        # Subclasses that have no reason of their own share that of their base, which is described.
        code = code_of(kind.__new__(kind)).name
        text = "A fault of the server." if kind is PunaError else (kind.__doc__ or "").strip().splitlines()[0]
        reasons.setdefault(kind.reason, (code, BY_REASON[kind.reason], text))
    return reasons


def catalogue() -> str:
    """Return the catalogue as Markdown."""
    lines = ["| reason | gRPC status | HTTP status | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{reason}` | {code} | {status} | {text} |" for reason, (code, status, text) in sorted(found().items())
    ]
    return "\n".join(lines)


def client_classes() -> str:
    """Return the Python module with the client's class for each reason."""
    # The client's class of a status is also that of the reason with the same name.
    chosen = {reason: each for reason, each in sorted(found().items()) if reason not in STATUSES}
    bases = ", ".join(sorted({_class(code) for code, _, _ in chosen.values()}))
    lines = [
        '"""The errors by reason. Written by tools/list_reasons.py from the catalogue of the server. Do not edit."""',
        "",
        f"from puna_client.errors import {bases}",
        "",
        "__all__ = [",
        *(f'"{_class(reason)}",' for reason in chosen),
        "]",
    ]
    for reason, (code, _, text) in chosen.items():
        lines += ["", "", f'class {_class(reason)}({_class(code)}, reason="{reason}"):', f'    """{text}"""']
    return _formatted("\n".join(lines) + "\n")


def _class(name: str) -> str:
    return name.title().replace("_", "") + "Error"


def _formatted(text: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["check", "--fix-only"], ["format"]):
        words = [ruff, *command, "--quiet", "--stdin-filename", CLIENT, "-"]
        text = subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> int:
    """Write or check; return the exit status."""
    text = README.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{README} lacks the markers of the catalogue")
        return 1
    fresh = f"{before}{BEGIN}\n\n{catalogue()}\n\n{END}{after}"
    classes = client_classes()
    if "--check" in sys.argv:
        stale = fresh != text or not CLIENT.exists() or CLIENT.read_text() != classes
        print("the catalogue of reasons is " + ("stale: run tools/list_reasons.py" if stale else "up to date"))
        return int(stale)
    README.write_text(fresh)
    CLIENT.write_text(classes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
