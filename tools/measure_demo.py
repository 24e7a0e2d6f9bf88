"""Measures llamita's skills on a running server: ``python tools/measure_demo.py --url http://127.0.0.1:11434``.

Sends the cases of ``train_demo/cases.py`` (none of them trained on) to ``/api/chat`` and prints a row for each skill.
Needs nothing but the standard library.
"""

import argparse
import json
import sys
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# The training tools are modules of this folder and no installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from train_demo.cases import Case, cases
from train_demo.graders import Reply, right, stopped, thought_as_asked

ALONG_THE_WAY = ("thinks when asked, and only then", "stops by itself")  # judged in every answer


def ask(url: str, model: str, case: Case, temperature: float, seed: int) -> Reply:
    """Send a case as one request without streaming, and return the reply."""
    body: dict[str, Any] = {
        "model": model,
        "messages": list(case.messages),
        "think": case.think,
        "stream": False,
        # The limit of tokens ends an answer that would not stop by itself, which then counts against the model.
        "options": {"temperature": temperature, "seed": seed, "num_predict": 300, "num_ctx": 2048},
    }
    if case.tools:
        body["tools"] = [tool.schema() for tool in case.tools]
    request = urllib.request.Request(f"{url}/api/chat", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        got = json.load(answer)
    message = got["message"]
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]
    return Reply(message.get("content", ""), message.get("thinking", ""), calls, got.get("done_reason", ""))


def measured(options: argparse.Namespace, asked: list[Case], temperature: float) -> dict[str, list[bool]]:
    """Return, for each skill, whether each answer at one temperature was right."""
    results: dict[str, list[bool]] = defaultdict(list)
    # At temperature 0 every seed gives the same answer, so one round is enough.
    work = [(case, seed) for case in asked for seed in range(1, 1 + (options.rounds if temperature else 1))]

    def one(job: tuple[Case, int]) -> Reply:
        return ask(options.url, options.model, job[0], temperature, job[1])

    with ThreadPoolExecutor(options.jobs) as pool:
        # `map` keeps the order of the work, whichever answer comes first.
        for (case, _), reply in zip(work, pool.map(one, work), strict=True):
            verdicts = right(case, reply), thought_as_asked(case, reply), stopped(reply)
            for skill, verdict in zip((case.skill, *ALONG_THE_WAY), verdicts, strict=True):
                results[skill].append(verdict)
            if options.show and not all(verdicts):
                print(f"- {case.skill} (temperature {temperature:g}, think {case.think})")
                print(f"  asked  {case.messages[-1]['content']!r}\n  wanted {case.expected!r}\n  got    {reply}")
    return {skill: results[skill] for skill in [*dict.fromkeys(case.skill for case in asked), *ALONG_THE_WAY]}


def main() -> int:
    """Prints a Markdown table; exits with 1 if a skill is below ``--at-least`` at temperature 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:11434")
    parser.add_argument("--model", default="llamita")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8])
    parser.add_argument("--rounds", type=int, default=1, help="how often each case is asked at a temperature above 0")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--at-least", type=float, default=0.0, help="wanted rate, 0..1")
    parser.add_argument("--skill", help="only skills whose name contains this")
    parser.add_argument("--show", action="store_true", help="print the failures")
    options = parser.parse_args()
    asked = [case for case in cases() if not options.skill or options.skill in case.skill]
    tables = {temperature: measured(options, asked, temperature) for temperature in options.temperatures}
    heads = [f"temperature {t:g}" for t in options.temperatures]
    print("| skill | n | " + " | ".join(heads) + " |\n|---|--:|" + "--:|" * len(heads))
    for skill in tables[options.temperatures[0]]:
        rates = [f"{100 * sum(tables[t][skill]) / len(tables[t][skill]):.1f} %" for t in options.temperatures]
        print(f"| {skill} | {len(tables[options.temperatures[0]][skill])} | " + " | ".join(rates) + " |")
    first = tables[options.temperatures[0]]
    return int(any(sum(rows) < options.at_least * len(rows) for rows in first.values()))


if __name__ == "__main__":
    sys.exit(main())
