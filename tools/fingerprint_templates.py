"""Compute core/puna/models/create/fingerprints.json from a checkout of Ollama.

    python tools/fingerprint_templates.py CHECKOUT [--compare]

Ollama keeps the chat templates that it recognises in template/index.json of its sources. This program reads the texts
there and writes their fingerprints; the texts themselves are never stored here. CHECKOUT is a folder with the sources,
or a bare repository.

Two families are left out, since Puna keeps the model's own Jinja template for them (rest_bridge/README.md says why):
Command R, and the template of Llama 3.1, which Ollama counts to Llama 3.

With --compare nothing is written. Instead the estimate is compared with the exact Levenshtein distance on mutations of
every text, and the share of texts that are recognised differently is printed by kind of mutation and by distance.
"""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "core"))

from puna.models.create import fingerprints  # noqa: E402 (the path is set above)
from puna.models.create.known_templates import NEAR  # noqa: E402

TARGET = ROOT / "core/puna/models/create" / fingerprints.FILE_NAME
INDEX = "template/index.json"
# Puna renders this family with the Jinja template of the model file.
KEPT_AS_OWN = {"command-r"}
LONGEST = 4000
"""Characters of the longest text that is taken. Llama 3.1's is the only one above it."""
BANDS = ((1, 40), (40, 80), (80, 100), (100, 120), (120, 200))
WORDS = (
    "assistant", "user", "system", "helpful", "the", "of", "question", "answer", "message", "content", "role", "loop",
    "first", "true", "you", "are",
)  # fmt: skip
Text = tuple[str, str]


def texts(checkout: Path) -> tuple[list[Text], str]:
    """Return names and texts of the templates, and the commit that they are from."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", checkout, *arguments], check=True, capture_output=True, text=True).stdout

    found = json.loads(git("show", f"HEAD:{INDEX}"))
    wanted = [(each["name"], each["template"]) for each in found]
    kept = [each for each in wanted if each[0] not in KEPT_AS_OWN and len(each[1]) <= LONGEST]
    return kept, git("rev-parse", "HEAD").strip()


def levenshtein(one: str, other: str, limit: int) -> int:
    """Return the exact distance, or `limit` if it is not less. Only cells near the diagonal are computed."""
    if abs(len(one) - len(other)) >= limit:
        return limit
    # Cells further than `limit` from the diagonal cannot lie on a path that is short enough.
    before = {column: column for column in range(min(len(other), limit) + 1)}
    for row, letter in enumerate(one, 1):
        now: dict[int, int] = {}
        for column in range(max(0, row - limit), min(len(other), row + limit) + 1):
            if column == 0:
                now[0] = row
                continue
            replaced = before.get(column - 1, limit) + (letter != other[column - 1])
            now[column] = min(replaced, before.get(column, limit) + 1, now.get(column - 1, limit) + 1)
        before = now
        # Distances never fall from one row to the next.
        if min(before.values()) >= limit:
            return limit
    return min(before[len(other)], limit)


def exact(text: str, known: Sequence[Text], limit: int) -> tuple[str | None, int]:
    """Return the nearest template as Ollama finds it, and its distance."""
    best = None
    for name, other in known:
        edits = levenshtein(other, text, limit)
        # Strictly less: of two templates at the same distance, the first in the index counts, as in Ollama.
        if edits < limit:
            best, limit = name, edits
    return best, limit


def insert(text: str, edits: int, chance: random.Random) -> str:
    """Insert a sentence, such as a system prompt."""
    place, words = chance.randrange(len(text) + 1), " ".join(chance.choices(WORDS, k=edits))[:edits]
    return text[:place] + words + text[place:]


def delete(text: str, edits: int, chance: random.Random) -> str:
    """Delete a stretch, across tags."""
    place = chance.randrange(max(1, len(text) - edits))
    return text[:place] + text[place + edits :]


def space(text: str, edits: int, chance: random.Random) -> str:
    """Insert white space between words and around tags."""
    parts = re.findall(r"\{[%{]-?|-?[%}]\}|\w+|.", text, re.DOTALL)
    for _ in range(edits):
        parts.insert(chance.randrange(len(parts) + 1), chance.choice(" \n"))
    return "".join(parts)


def trim(text: str, edits: int, chance: random.Random) -> str:
    """Add Jinja's white space control to tags."""
    for _ in range(edits):
        places = [match.end() for match in re.finditer(r"\{[%{](?!-)", text)]
        if not places:
            break
        place = chance.choice(places)
        text = text[:place] + "-" + text[place:]
    return text


def replace_words(text: str, edits: int, chance: random.Random) -> str:
    """Replace words one by one by others."""
    for _ in range(edits // 7 + 1):
        match = chance.choice([*re.finditer(r"[A-Za-z_]{3,}", text)])
        text = text[: match.start()] + chance.choice(WORDS) + text[match.end() :]
    return text


def scatter(text: str, edits: int, chance: random.Random) -> str:
    """Insert, delete and replace single characters anywhere. No author does that, but the distance counts it."""
    for _ in range(edits):
        place, letter = chance.randrange(len(text)), chr(chance.randrange(32, 127))
        text = text[:place] + chance.choice((letter + text[place:], text[place + 1 :], letter + text[place + 1 :]))
    return text


MUTATIONS: tuple[Callable[[str, int, random.Random], str], ...] = (insert, delete, space, trim, replace_words, scatter)


def compare(known: Sequence[Text], rounds: int = 20) -> None:
    """Print how often the estimate recognises another template than the exact distance does."""
    # A fixed seed, so that two versions of the estimate see the same mutations.
    chance = random.Random(1)
    marks = [fingerprints.Fingerprint.of(name, text) for name, text in known]
    wrong = [name for name, text in known if fingerprints.nearest(text, marks, NEAR) != name]
    print(f"unchanged: {len(known)} texts, {len(wrong)} recognised differently")
    for mutate in MUTATIONS:
        total: Counter[tuple[int, int]] = Counter()
        missed: Counter[tuple[int, int]] = Counter()
        extra: Counter[tuple[int, int]] = Counter()
        for _ in range(rounds):
            for low, high in BANDS:
                text = mutate(chance.choice(known)[1], chance.randrange(low, high), chance)
                best, edits = exact(text, known, BANDS[-1][1])
                band = next((each for each in BANDS if each[0] <= edits < each[1]), None)
                if band is None:
                    continue
                # Only texts nearer than NEAR are recognised, by either measure.
                expected, found = best if edits < NEAR else None, fingerprints.nearest(text, marks, NEAR)
                total[band] += 1
                # A text that is taken for another template counts as missed.
                missed[band] += expected is not None and found != expected
                extra[band] += expected is None and found is not None
        row = [f"{band[0]}-{band[1] - 1}: {missed[band]}+{extra[band]}/{total[band]}" for band in BANDS if total[band]]
        print(f"{mutate.__name__:14}", "  ".join(row))
    print("(distance: missed + taken for known / texts)")


def main(arguments: list[str]) -> int:
    """Write the fingerprints or compare; return the exit status."""
    paths = [each for each in arguments if each != "--compare"]
    if len(paths) != 1:
        print(__doc__)
        return 2
    known, commit = texts(Path(paths[0]))
    if "--compare" in arguments:
        compare(known)
        return 0
    marks = [fingerprints.Fingerprint.of(name, text) for name, text in known]
    TARGET.write_text(fingerprints.dumps(marks, f"github.com/ollama/ollama {commit} {INDEX}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
