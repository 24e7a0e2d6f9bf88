"""How people type: fillers, other case, slips of the finger; and one question with its answer."""

from train_demo.conversation import Turn
from train_demo.phrasings import PHRASES
from train_demo.words import Random

Episode = list[Turn]


def roughen(rng: Random, text: str) -> str:
    """Other case, no full stop, a filler in front, a slip of the finger: how people type."""
    if rng.random() < 0.22:
        front = rng.choice(PHRASES["front"])
        keep = text.split(" ")[0] in {"I", "I'm"} or rng.random() < 0.3
        text = front + (text if keep else text[:1].lower() + text[1:])
    elif rng.random() < 0.12:
        text += rng.choice(PHRASES["back"])
    chance = rng.random()
    if chance < 0.12:
        text = text.lower()
    elif chance < 0.15:
        text = text.upper()
    if rng.random() < 0.15:
        text = text.rstrip("?.!")
    elif rng.random() < 0.05:
        text = text.rstrip("?.!") + rng.choice(("!", "??", "?!", "...", " ?", "?"))
    if rng.random() < 0.1:
        parts = text.split(" ")
        if len(parts) > 3:
            if rng.random() < 0.5:
                parts.insert(
                    rng.randrange(len(parts)), rng.choice(("please", "really", "just", "um", "exactly", "actually"))
                )
            else:
                at = rng.randrange(len(parts))
                if parts[at].lower().strip("?.,") in {
                    "the",
                    "a",
                    "is",
                    "of",
                    "do",
                    "does",
                    "in",
                    "are",
                    "me",
                    "that",
                    "so",
                }:
                    del parts[at]
        text = " ".join(parts)
    if rng.random() < 0.05 and len(text) > 12:
        at = rng.randrange(1, len(text) - 2)
        if text[at].isalpha() and text[at + 1].isalpha():
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def roughen_front(rng: Random, text: str) -> str:
    """Only a filler in front: what comes after must be copied."""
    return rng.choice(PHRASES["front"]) + text


_SAME = {
    "largest": ("biggest", "greatest"),
    "biggest": ("largest", "greatest"),
    "fastest": ("quickest", "swiftest"),
    "What is ": ("What's ", "Say what is ", "What exactly is "),
    "Which ": ("What ",),
    "What ": ("Which ",),
    "Why ": ("Why exactly ", "For what reason ", "How come "),
    "How many ": ("What number of ", "How much "),
    "Tell me about ": ("Talk about ", "Say something about ", "Explain ", "What about ", "Describe "),
    "Who ": ("Which person ", "What man "),
    "are there": ("exist", "do we have", "are known"),
    " the ": (" a ", " that ", " "),
    " does ": (" will ", " would ", " can "),
    " a ": (" the ", " one ", " any "),
}
_SMALL = {
    "the",
    "a",
    "an",
    "is",
    "are",
    "of",
    "do",
    "does",
    "in",
    "me",
    "that",
    "so",
    "to",
    "it",
    "i",
    "you",
    "there",
    "was",
    "for",
    "on",
    "at",
    "what",
    "which",
    "who",
    "how",
    "why",
}


def reword(rng: Random, text: str) -> str:
    """Other words of the same meaning, or hardly more than the keywords."""
    if rng.random() < 0.3:
        for old in rng.sample(list(_SAME), 5):
            if old in text:
                text = text.replace(old, rng.choice(_SAME[old]), 1)
    elif rng.random() < 0.12:
        kept = [word for word in text.split(" ") if word.lower().strip("?.,") not in _SMALL or rng.random() < 0.5]
        text = " ".join(kept) or text
    return text


def ask(rng: Random, questions: tuple[str, ...], clauses: tuple[str, ...]) -> str:
    """A direct or an indirect question, in other words now and then, roughened."""
    if clauses and rng.random() < 0.4:
        text = rng.choice(PHRASES["indirect"]).format(c=rng.choice(clauses))
    else:
        text = rng.choice(questions)
    return roughen(rng, reword(rng, text))


def said(user: str, answer: str, thinking: str, hidden: tuple[str, ...] = ()) -> Episode:
    """One question and its answer."""
    return [Turn("user", user), Turn("assistant", answer, thinking, hidden=hidden)]
