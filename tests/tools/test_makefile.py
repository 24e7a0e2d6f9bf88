"""The Makefile as a newcomer meets it."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_help_lists_every_target_that_is_no_file():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert all(len(each) == 2 for each in listed)
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [name for name, _ in listed] == " ".join(phony).split()


def test_every_folder_of_tests_belongs_to_a_target():
    makefile = (ROOT / "Makefile").read_text()
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    assert {name for name in folders if f"tests/{name}" not in makefile} == set()
