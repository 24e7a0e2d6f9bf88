"""Measures llamita-embed on a running server: ``python tools/measure_embedding.py --url http://127.0.0.1:11434``.

Asks ``/api/embed`` for the texts of ``train_demo/neighbours.py`` (none of them trained on) and prints how often the
nearest text has the same meaning, beside two measures that only compare words. Needs nothing but the standard library.
"""

import argparse
import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

# The training tools are modules of this folder and no installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from train_demo.neighbours import Task, cosine, rare_words, recall, shared_words, tasks


def embed(url: str, model: str, texts: Sequence[str]) -> list[list[float]]:
    """Return the vectors of some texts, by one request."""
    body = json.dumps({"model": model, "input": list(texts)}).encode()
    request = urllib.request.Request(f"{url}/api/embed", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)["embeddings"]


def measured(url: str, model: str, task: Task) -> float:
    """Return the model's recall@1."""
    queries, texts = embed(url, model, task.queries), embed(url, model, task.texts)
    return recall(task, lambda i: [cosine(queries[i], text) for text in texts])


def main() -> int:
    """Prints a Markdown table; exits with 1 if the model is below ``--at-least`` in a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:11434")
    parser.add_argument("--model", default="llamita-embed")
    parser.add_argument("--at-least", type=float, default=0.0, help="wanted recall, 0..1")
    options = parser.parse_args()
    print(f"| nearest to a text is | queries | texts | {options.model} | shared words | rare words |")
    print("|---|--:|--:|--:|--:|--:|")
    worst = 1.0
    for task in tasks():
        rates = (
            measured(options.url, options.model, task),
            recall(task, shared_words(task)),
            recall(task, rare_words(task)),
        )
        # The exit status is about the model alone. The other two columns are for comparison.
        worst = min(worst, rates[0])
        shown = " | ".join(f"{100 * rate:.1f} %" for rate in rates)
        print(f"| {task.name} | {len(task.queries)} | {len(task.texts)} | {shown} |")
    return int(worst < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
