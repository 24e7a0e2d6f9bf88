"""Documents name files that exist, targets of make that exist, and settings that are read."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts)
)
# Names that look like files of this tree, and are none.
OTHERS = {"puna/config.toml", ".puna/format.json", "Mozilla/", "build/apps/"}
FILE = re.compile(r"[\w.-]+(?:/[\w.{}-]+)*(?:/|\.(?:py|md|toml|proto|json|tmpl|c|h|gguf|tsv|yaml))")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
TARGET = re.compile(r"make ((?!wheel-)[a-z][a-z-]*)")
CODE = re.compile(r"`([^`\n]+)`")


@pytest.fixture(scope="module")
def paths() -> str:
    """Every file and folder of the tree, each between newlines, so that a name is found by how it ends."""
    listed = [
        path
        for folder in ("core", "rest_bridge", "plugins", "proto", "tests", "tools")
        for path in (ROOT / folder).rglob("*")
    ]
    return "".join(
        f"/{path.relative_to(ROOT)}{'/' if path.is_dir() else ''}\n"
        for path in listed
        if "__pycache__" not in path.parts
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_links_exist(document, paths):
    text = document.read_text()
    links = [link for link in LINK.findall(text) if "://" not in link]
    names = [code for code in CODE.findall(text) if "/" in code and FILE.fullmatch(code) and "{" not in code]
    assert [link for link in links if not (document.parent / link).exists()] == []
    assert [
        name
        for name in names
        if f"/{name}\n" not in paths
        and name not in OTHERS
        and not any((start / name).exists() for start in (ROOT, document.parent))
    ] == []


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for document in DOCUMENTS for code in CODE.findall(document.read_text()) for name in TARGET.findall(code)
    }
    assert named - targets == set()
