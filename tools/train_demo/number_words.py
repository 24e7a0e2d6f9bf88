"""Numbers below one hundred in English words."""

_ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int, joint: str = "-") -> str:
    """Write a number from 0 to 99 in words; ``joint`` stands between tens and ones."""
    if number < 20:
        return _ONES[number]
    tens = _TENS[number // 10 - 2]
    return tens + joint + _ONES[number % 10] if number % 10 else tens
