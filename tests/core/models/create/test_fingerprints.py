"""Fingerprints: how near an estimate comes to the number of edits, and what a stored fingerprint tells."""

import json

import pytest

from puna.models.create import fingerprints
from puna.models.create.fingerprints import Fingerprint, nearest

USER = "{% if message.role == 'user' %}{{ 'Question: ' + message.content }}{% endif %}"
ANSWER = "{% if message.role == 'assistant' %}{{ 'Answer: ' + message.content + eos_token }}{% endif %}"
PLAIN = "{% for message in messages %}" + USER + ANSWER + "{% endfor %}{{ 'Answer:' }}"
SWAPPED = "{% for message in messages %}" + ANSWER + USER + "{% endfor %}{{ 'Answer:' }}"


def estimate(one: str, other: str, limit: float = 100) -> float:
    return Fingerprint.of("", one).distance(Fingerprint.of("", other), limit)


def test_equal_texts_have_no_distance():
    assert estimate(PLAIN, PLAIN) == 0


@pytest.mark.parametrize("added", ["~" * 60, "{# as long as a line of remarks tends to be in templates #}"])
def test_text_between_tags_counts_by_its_length(added):
    assert estimate(PLAIN, PLAIN.replace("{{ 'Answer:'", added + "{{ 'Answer:'")) == len(added)


def test_a_replaced_word_counts_by_the_longer_of_the_two():
    assert estimate(PLAIN, PLAIN.replace("Question", "Q")) == len("Question")


def test_reordered_tags_are_not_equal():
    assert 30 < estimate(PLAIN, SWAPPED, 400) < 2 * len(ANSWER)


def test_the_distance_is_symmetric():
    assert estimate(PLAIN, SWAPPED + "x") == estimate(SWAPPED + "x", PLAIN)


@pytest.mark.parametrize("other", ["", PLAIN * 2, "{{ x }}" * 40])
def test_a_distance_at_the_limit_or_beyond_is_the_limit(other):
    assert estimate(PLAIN, other, 90) == 90


def test_of_equally_near_fingerprints_the_first_is_taken():
    known = [Fingerprint.of(name, PLAIN) for name in ("first", "second")]
    assert nearest(PLAIN + "!", known, 100) == "first"


def test_the_nearest_is_taken_and_not_the_first():
    known = [Fingerprint.of("far", PLAIN + "~" * 50), Fingerprint.of("near", PLAIN + "~" * 5)]
    assert nearest(PLAIN, known, 100) == "near"


def test_fingerprints_are_read_as_they_were_written():
    known = (Fingerprint.of("plain", PLAIN), Fingerprint.of("long word", "w" * 3000))
    assert fingerprints.loads(fingerprints.dumps(known, "a test")) == known


def test_a_stored_fingerprint_has_no_word_of_the_text_in_it():
    stored = fingerprints.dumps([Fingerprint.of("plain", PLAIN)], "a test")
    assert not any(word in stored for word in ("message", "Question", "assistant", "endfor"))
    assert set("".join(json.loads(stored)["templates"][0]["segments"])) <= set("0123456789abcdef")
