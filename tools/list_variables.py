"""Write the index of environment variables and settings into core/README.md, or with --check say whether it is stale.

The index comes from puna.variables and from the fields of puna.limits.Limits, so each variable is described once.
"""

import ast
import dataclasses
import sys
from itertools import pairwise
from pathlib import Path

from puna import limits
from puna.limits import DEFAULT_LIMITS, PREFIX, Limits
from puna.variables import INTERNAL, VARIABLES

README = Path(__file__).parent.parent / "core" / "README.md"
BEGIN, END = "<!-- variables: written by tools/list_variables.py -->", "<!-- end of the variables -->"


def described() -> dict[str, str]:
    """Return the text below each field of Limits."""
    # Python keeps no docstrings of fields, so they are read from the source.
    tree = ast.parse(Path(limits.__file__).read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Limits")
    texts: dict[str, str] = {}
    # The docstring of a field is the statement after it.
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            assert isinstance(text.value, ast.Constant)
            texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts


def index() -> str:
    """Return the index as Markdown."""
    lines = [
        "| variable | type | default | what it sets | read by | key in the file |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{each.name}` | {each.kind} | {each.default or '-'} | {each.about} | {', '.join(each.read_by)} "
            f"| {f'`{each.key}`' if each.key else '-'} |"
            for each in VARIABLES
        ),
        "",
        "The bounds; their keys stand in the file's table `[limits]`:",
        "",
        "| variable | type | default | what it bounds |",
        "|---|---|---|---|",
    ]
    texts = described()
    for field in dataclasses.fields(Limits):
        default = getattr(DEFAULT_LIMITS, field.name)
        kind = "integer" if isinstance(default, int) else "seconds"
        lines.append(f"| `{PREFIX}{field.name.upper()}` | {kind} | {default} | {texts[field.name]} |")
    lines += ["", "Set by the core for its own processes, not by users:", ""]
    lines += [f"- `{name}`: {text}." for name, text in INTERNAL.items()]
    return "\n".join(lines)


def main() -> int:
    """Write or check; return the exit status."""
    text = README.read_text()
    # Only the text between the markers is generated; the rest of the file is written by hand.
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{README} lacks the markers of the index")
        return 1
    fresh = f"{before}{BEGIN}\n\n{index()}\n\n{END}{after}"
    if "--check" in sys.argv:
        print("the index of variables is " + ("up to date" if fresh == text else "stale: run tools/list_variables.py"))
        return int(fresh != text)
    README.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
