"""The same requests that Ollama was asked give its recorded answers: deltas, counts, seeds, shifts and stop strings."""

import json
from contextlib import aclosing
from pathlib import Path

import pytest

from puna.backend import Sampling, SequenceRequest, TextDelta
from puna.backend.text import complete_length

CASES = json.loads((Path(__file__).parent / "ollama_answers.json").read_text())
SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "repeat_penalty",
    "presence_penalty",
)

SENSITIVE = {"shift-keep3": 150, "shift-keep30": 150}
"""Pieces that are the same on every processor, the first context shift among them. After so many tokens at a
temperature of 1.3 the last bits of ggml's sums decide, which depend on the instruction set."""


def sampling(options):
    chosen = {key: options[key] for key in (*SAMPLING, "frequency_penalty", "seed") if key in options}
    return Sampling(**chosen)


def request(case):
    options = case["options"]
    return SequenceRequest(
        prompt=case["prompt"],
        sampling=sampling(options),
        max_tokens=options["num_predict"],
        stop=tuple(options.get("stop", ())),
        keep_tokens=options.get("num_keep", 4),
        shift=case.get("shift", True),
        top_logprobs=case.get("top"),
    )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_it_says_the_same(load, case, recorded_bits):
    model = await load(case["model"], context_length=case["options"].get("num_ctx", 4096), parallel=1)
    async with aclosing(model.generate(request(case))) as events:
        *pieces, end = [event async for event in events]
    if not recorded_bits and case["name"] in SENSITIVE:
        same = SENSITIVE[case["name"]]
        assert [piece.text for piece in pieces[:same]] == case["pieces"][:same]
        return
    assert [piece.text for piece in pieces] == case["pieces"]
    assert (end.reason, end.prompt_tokens, end.output_tokens) == (
        case["reason"],
        case["prompt_tokens"],
        case["output_tokens"],
    )
    assert all(isinstance(piece, TextDelta) for piece in pieces)
    if "logprobs" in case:
        assert_same_logprobs([piece.logprobs[-1] for piece in pieces], case["logprobs"])


def assert_same_logprobs(got, wanted):
    assert [shown(entry) for entry in got] == [entry["token"] for entry in wanted]
    assert [entry.logprob for entry in got] == pytest.approx([entry["logprob"] for entry in wanted], abs=1e-4)
    for mine, theirs in zip(got, wanted, strict=True):
        tops = theirs.get("top_logprobs", [])
        assert [shown(entry) for entry in mine.top] == [entry["token"] for entry in tops]
        assert [entry.logprob for entry in mine.top] == pytest.approx([entry["logprob"] for entry in tops], abs=1e-4)


def shown(entry):
    return entry.raw[: complete_length(entry.raw)].decode("utf-8", "replace")
