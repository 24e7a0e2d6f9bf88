"""Measure the shape of the codebase: the figures that tests/test_house.py holds to budgets.

Generated code is left out. Run it to see the figures and the places that are largest.
"""

import ast
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("proto/python", "core", "rest_bridge", "plugins")
GENERATED = ("proto/python/puna_client/v1/", "proto/python/puna_client/interop/v1/", "core/puna/backend/v1/")
WITHOUT_RULES = {
    "core/puna/capabilities.py": "a table of names; tests of the models and the builtin parsers read it",
    "core/puna/cli/errors.py": "an exception without behaviour",
    "core/puna/cli/texts.py": "constants",
    "core/puna/go/space.py": "a constant",
    "proto/python/puna_client/answers.py": "values without behaviour; tests of the readers make them",
    "proto/python/puna_client/reasons.py": "written by tools/list_reasons.py",
    **dict.fromkeys(
        (
            *("core/puna/testing/constraints.py", "core/puna/testing/context.py", "core/puna/testing/generating.py"),
            *("core/puna/testing/loading.py", "core/puna/testing/logprobs.py", "core/puna/testing/penalties.py"),
            *("core/puna/testing/sampling.py", "core/puna/testing/sequences.py", "core/puna/testing/stopping.py"),
            *("core/puna/testing/tokens.py", "core/puna/testing/vectors.py", "core/puna/testing/chat.py"),
        ),
        "contract tests themselves; the mutants of tests/plugins/mutants test them",
    ),
}
"""Modules that need no test file of their own, and the reason."""


@dataclass
class Shape:
    """Figures of a set of source files. Names are `path:line name`."""

    files: dict[str, int] = field(default_factory=dict)
    """Path to lines."""
    functions: dict[str, int] = field(default_factory=dict)
    """Name to lines."""
    undocumented: list[str] = field(default_factory=list)
    public: int = 0
    unannotated: list[str] = field(default_factory=list)
    globals: list[str] = field(default_factory=list)
    ignores: list[str] = field(default_factory=list)
    bare_ignores: list[str] = field(default_factory=list)
    broad_excepts: list[str] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """Lines in all."""
        return sum(self.files.values())


def python_files(root: Path, *folders: str) -> Iterator[Path]:
    """Yield the files written by hand under folders of the root."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            # Generated code has no budget, and a virtual environment is not ours.
            if not name.startswith(GENERATED) and ".venv" not in path.parts:
                yield path


def test_file(module: str) -> str:
    """Return where the unit tests of a module belong: the tree below tests mirrors the tree of the sources."""
    top, package, *rest = Path(module).with_suffix("").parts
    folder = f"plugins/{package.removeprefix('puna_')}" if top == "plugins" else top
    return "/".join(["tests", folder, *rest[:-1], f"test_{rest[-1]}.py"])


def untested(root: Path = ROOT) -> tuple[list[str], int]:
    """Return the modules that hold rules and lack a test file at its mirrored place, and the count of all modules.

    Packages' `__init__` and `__main__` do not count.
    """
    names = [path.relative_to(root).as_posix() for path in python_files(root, *SOURCES) if path.name[:2] != "__"]
    modules = [name for name in names if name not in WITHOUT_RULES]
    return [name for name in modules if not (root / test_file(name)).exists()], len(modules)


def measure(root: Path = ROOT, folders: tuple[str, ...] = SOURCES) -> Shape:
    """Read all files once."""
    shape = Shape()
    for path in python_files(root, *folders):
        _measure_file(path, path.relative_to(root).as_posix(), shape)
    return shape


def _measure_file(path: Path, name: str, shape: Shape) -> None:
    text = path.read_text()
    shape.files[name] = text.count("\n")
    tree = ast.parse(text)
    for node, public in _definitions(tree):
        here = f"{name}:{node.lineno} {node.name}"
        if public:
            shape.public += 1
            if ast.get_docstring(node) is None:
                shape.undocumented.append(here)
        if not isinstance(node, ast.ClassDef):
            shape.functions[here] = (node.end_lineno or node.lineno) - node.lineno + 1
            if not _annotated(node):
                shape.unannotated.append(here)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            shape.globals.append(f"{name}:{node.lineno}")
        if isinstance(node, ast.ExceptHandler) and _swallows_all(node):
            shape.broad_excepts.append(f"{name}:{node.lineno}")
    with path.open("rb") as file:
        # Tokens and not lines, so that strings that contain these words do not count.
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT and ("noqa" in token.string or "type: ignore" in token.string):
                shape.ignores.append(f"{name}:{token.start[0]}")
                # An ignore without a code hides every finding of its line, also those of rules to come.
                if "noqa:" not in token.string and "ignore[" not in token.string:
                    shape.bare_ignores.append(f"{name}:{token.start[0]}")


def _definitions(
    tree: ast.AST, *, public: bool = True
) -> Iterator[tuple[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            visible = public and not node.name.startswith("_")
            yield node, visible
            # Definitions inside a function or a private class are private.
            yield from _definitions(node, public=visible and isinstance(node, ast.ClassDef))
        else:
            yield from _definitions(node, public=public)


def _swallows_all(node: ast.ExceptHandler) -> bool:
    """Return whether a handler catches every exception and does not raise it again."""
    broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
    last = node.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def _annotated(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    # Type checkers know the types of self and cls.
    named = [each for each in arguments if each is not None and each.arg not in ("self", "cls")]
    return node.returns is not None and all(each.annotation is not None for each in named)


def main() -> int:
    """Print the figures."""
    shape = measure()
    tests = sum(path.read_text().count("\n") for path in python_files(ROOT, "tests"))
    lengths = sorted(shape.functions.values())
    print(f"{len(shape.files)} files, {shape.lines} lines, median {statistics.median(shape.files.values()):.0f}")
    print(f"functions: median {statistics.median(lengths):.0f}, p95 {lengths[int(len(lengths) * 0.95)]}")
    print(f"documented {1 - len(shape.undocumented) / shape.public:.1%}, test lines : lines {tests / shape.lines:.2f}")
    missing, modules = untested()
    print(f"modules with a test file of their name: {modules - len(missing)} of {modules}; without one:")
    for name in missing:
        print(f"  {name}")
    for title, table in (("longest files", shape.files), ("longest functions", shape.functions)):
        print(title + ":")
        for name, size in sorted(table.items(), key=lambda item: -item[1])[:8]:
            print(f"  {size:5} {name}")
    for title in ("undocumented", "unannotated", "globals", "bare_ignores", "broad_excepts"):
        found = getattr(shape, title)
        print(f"{title}: {len(found)} {' '.join(found[:12])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
