"""The table of recorded fixtures: which recorder makes each again, and how the file is written."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tools.record import body_errors, generated, parsed, prompts, wire
from tools.record.client import Server

ROOT = Path(__file__).parents[2]
Recorder = Callable[[Server, Any], Any]


@dataclass(frozen=True)
class Fixture:
    """A recorded file."""

    record: Recorder
    """Returns the fixture with the answers of the server to the requests that it holds."""
    depth: int = 1
    """Levels of the value that are spread over lines."""
    tolerance: float = 0.0
    """Difference that numbers may have. Sums have other last bits on other processors."""
    ascii_only: bool = False


def _templates() -> Mapping[str, str]:
    recorded = json.loads((ROOT / "tests/core/prompt/jinja/prompts.json").read_text(encoding="utf-8"))
    return {each["name"]: each["template"] for each in recorded}


def table(checkout: Path | None = None) -> dict[str, Fixture]:
    """Return the fixtures by their path.

    checkout: a folder with Ollama's sources, which known_prompts.json needs.
    """
    return {
        "tests/core/models/create/known_prompts.json": Fixture(partial(prompts.known, checkout=checkout), depth=3),
        "tests/core/prompt/builtin/answers.json": Fixture(parsed.builtin),
        "tests/core/prompt/builtin/families.json": Fixture(prompts.builtin),
        "tests/core/prompt/builtin/parsers.json": Fixture(parsed.builtin),
        "tests/core/prompt/builtin/renderers.json": Fixture(prompts.builtin),
        "tests/core/prompt/go_template/streams.json": Fixture(parsed.go_templates),
        "tests/core/prompt/jinja/answers.json": Fixture(
            lambda server, recorded: parsed.jinja(server, recorded, _templates()), depth=3
        ),
        "tests/core/prompt/jinja/prompts.json": Fixture(prompts.jinja, depth=3),
        "tests/core/prompt/rendered.json": Fixture(prompts.go_templates, depth=1),
        "tests/plugins/llama_cpp/embeddings/embeddings.json": Fixture(generated.embeddings, tolerance=1e-6),
        "tests/plugins/llama_cpp/ollama_answers.json": Fixture(generated.answers, tolerance=1e-4),
        "tests/plugins/llama_cpp/vision/images.json": Fixture(generated.images),
        "tests/rest_bridge/gobody/go_errors.json": Fixture(body_errors.record, depth=2, ascii_only=True),
        "tests/rest_bridge/wire.json": Fixture(wire.record),
    }


RECORDED_ELSEWHERE = {
    "tests/conformance/golden.json": "tests/conformance/conformance.py",
    "tests/conformance/known.json": "written by hand: names of cases that may differ from golden.json",
    "tests/real/texts.json": "written by hand: texts to tokenize",
}
"""JSON files of tests/ that are not recorded here, with what makes them."""


def written(value: Any, fixture: Fixture) -> str:  # noqa: ANN401
    """Return the text of a fixture's file: one line for each value below its depth."""
    return "".join(_lines(value, fixture.depth, fixture.ascii_only)) + "\n"


def _lines(value: Any, depth: int, ascii_only: bool) -> Iterator[str]:  # noqa: ANN401
    if not depth or not value or not isinstance(value, dict | list):
        yield json.dumps(value, ensure_ascii=ascii_only)
        return
    yield "{\n" if isinstance(value, dict) else "[\n"
    entries = value.items() if isinstance(value, dict) else ((None, each) for each in value)
    for number, (key, entry) in enumerate(entries):
        yield ",\n" if number else ""
        yield "" if key is None else json.dumps(key, ensure_ascii=ascii_only) + ": "
        yield from _lines(entry, depth - 1, ascii_only)
    yield "\n}" if isinstance(value, dict) else "\n]"


def differences(old: Any, new: Any, tolerance: float, place: str = "") -> Iterator[str]:  # noqa: ANN401
    """Yield a line for each place at which two values differ."""
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    if numbers and not isinstance(old, bool) and not isinstance(new, bool):
        if abs(old - new) > tolerance:
            yield f"{place}: {old} recorded, {new} now"
    elif isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in old:
            yield from differences(old[key], new[key], tolerance, f"{place}[{key!r}]")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, tolerance, f"{place}[{number}]")
    elif old != new:
        yield f"{place}: {old!r} recorded, {new!r} now"
