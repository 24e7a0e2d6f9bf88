"""Send the same requests to two servers and print where their answers first differ, byte by byte.

    tools/compare.py http://127.0.0.1:11500 http://127.0.0.1:11434 --cases tests/conformance/cases.py [--only REGEX]
    tools/compare.py http://127.0.0.1:11500 http://127.0.0.1:11434 --requests requests.ndjson

A file of requests has one JSON object a line: {"method": "POST", "path": "/api/show", "body": {...}}, or "raw" with
text in place of "body". Values that change from run to run (times, durations, ids, digests) are left out, as in the
recorded cases. Exit status 0 when nothing differs.
"""

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
AROUND = 60
"""Characters shown on either side of the first difference."""


def load(path: Path) -> ModuleType:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The tests are no package, and their recorder knows which parts of an answer change from run to run.
conformance = load(ROOT / "tests/conformance/conformance.py")


def cases(told: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the requests, each with an id."""
    if told.requests:
        for number, line in enumerate(told.requests.read_text().splitlines(), 1):
            if line.strip():
                yield {"id": f"line {number}", "method": "POST"} | json.loads(line)
        return
    digests = {}
    # The cases name model files by digest, so both servers get the files first.
    for file in sorted(told.models.glob("*.gguf")):
        data = file.read_bytes()
        digests[file.name] = f"sha256:{conformance.hashlib.sha256(data).hexdigest()}"
        for base in (told.first, told.second):
            conformance.send(base, {"method": "POST", "path": "/api/blobs/" + digests[file.name], "raw": data})
    yield from conformance.load_cases(told.cases, digests)


def describe(answer: dict[str, Any], case: dict[str, Any]) -> str:
    """Return status, compared headers and body as one text, without values that change from run to run."""
    headers = "".join(f"{name}: {value}\n" for name, value in sorted(answer["headers"].items()))
    return f"{answer['status']}\n{headers}\n{conformance.scrub(answer['body'], case)}"


def first_difference(one: str, two: str) -> str | None:
    """Return the first difference of two texts with the text around it; None if they are equal."""
    if one == two:
        return None
    # Where one text is the beginning of the other, they differ at the shorter one's end.
    place = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    around = slice(max(0, place - AROUND), place + AROUND)
    return f"at character {place}:\n  first  {one[around]!r}\n  second {two[around]!r}"


def main() -> int:
    """Compare all answers, print the differences, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="URL of a server, such as Ollama")
    parser.add_argument("second", help="URL of the other")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--cases", type=Path, default=ROOT / "tests/conformance/cases.py")
    what.add_argument("--requests", type=Path)
    parser.add_argument("--models", type=Path, default=ROOT / "tests/models")
    parser.add_argument("--only", default="", help="regular expression for the ids of cases")
    told = parser.parse_args()
    asked = different = 0
    for case in cases(told):
        # Requests that --only leaves out are sent all the same: later cases need the models that earlier ones create.
        one, two = (conformance.send(base, case) for base in (told.first, told.second))
        if told.only and not re.search(told.only, case["id"]):
            continue
        asked += 1
        if found := first_difference(describe(one, case), describe(two, case)):
            different += 1
            print(f"--- {case['id']}: {case['method']} {case['path']}\n{found}")
    print(f"{asked} requests, {different} answers differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
