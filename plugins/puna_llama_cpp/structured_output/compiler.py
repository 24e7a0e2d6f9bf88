"""Reading constraints: from a schema, a grammar or an expression to a matcher of llguidance.

This runs in a process that is killed when it takes too much time or memory (`grammar_server`), so nothing here looks at
the size of what it reads.
"""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import llguidance
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.exact_integers import exact_grammar, needs_exact_numbers
from puna_llama_cpp.structured_output.json_schema import spells_controls, tightened
from puna_llama_cpp.structured_output.wire import NAMES

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# A model may write white space where JSON has it, but no more than llama.cpp's own grammars let it: without a limit
# some models go on for ever.
_SPACE = r"( |\n{1,2}[ \t]{0,20})"
# With \u a name of an open object may be spelled by numbers, and would not be known for a property that has a schema.
_ESCAPES = 'nrbtf\\"'
_GUIDANCE: "JsonCompileOptions" = {"whitespace_pattern": _SPACE, "json_allowed_escapes": _ESCAPES}
# Forced text comes in whatever tokens the model chooses, as in llama.cpp. llguidance would tokenize it, which takes a
# vocabulary that this process does not have.
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'
# Time and memory are bounded from outside, whatever they are spent on, so llguidance's own limits can be far away.
_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=100_000,
    initial_lexer_fuel=100_000_000,
    step_lexer_fuel=20_000_000,
    step_max_items=2_000_000,
    max_lexer_states=1_000_000,
    max_grammar_size=5_000_000,
    verbose_errors=False,
)
_LARK = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*|%json\s*|%mark\s*')
"""Texts that may hold our words in a grammar without meaning them, or the words themselves."""
_PLACE = re.compile(r"^at \d+\(\d+\): failed to compile JSON schema: ")
_LISTING = re.compile(r"\n +\d+ \| .*", re.DOTALL)
_LONGEST = 300
"""Letters of a reason. llguidance prints whole expressions."""
_MEANINGS = {
    "recursion limit exceeded": "it is nested too deeply",
    "Unable to determine if regex is empty": "patterns that must hold together are too complex",
    "too many expressions constructed": "it is too complex",
    "NoExtensionBias": "nothing satisfies it",
}
"""Messages of llguidance in words of its own trade, and their meanings."""
_WORDS = {
    "min/maxProperties only": "minProperties/maxProperties only",
    "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf": (
        "oneOf whose options might hold at once"
    ),
}


class Compiler:
    """Compiles constraints for one vocabulary."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, marks: Mapping[str, int]) -> None:
        """`marks`: special tokens by their text."""
        self._tokenizer = tokenizer
        self._marks = marks

    def matcher(self, kind: str, text: str) -> llguidance.LLMatcher:
        """Compile a constraint. InvalidRequestError: it is wrong, or uses what cannot be enforced, which is named."""
        native = llguidance.LLMatcher(self._tokenizer, self._grammar(kind, text), log_level=0, limits=_LIMITS)
        if native.is_error():
            raise InvalidRequestError(f"{NAMES[kind]} cannot be enforced: {_gist(native.get_error())}")
        if native.is_stopped() and not native.is_accepting():
            raise InvalidRequestError(f"{NAMES[kind]} cannot be enforced: nothing satisfies it")
        return native

    def begin(self, kind: str, text: str) -> tuple[llguidance.LLMatcher, bytes]:
        """Compile a constraint, and return it with its first mask. InvalidRequestError: as for matcher and advance."""
        native = self.matcher(kind, text)
        try:
            return native, advance(native)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{NAMES[kind]} cannot be enforced: {error}") from error

    def _grammar(self, kind: str, text: str) -> str:
        try:
            match kind:
                case "json_schema":
                    return _grammar_of_schema(text) + _OPTIONS
                case "gbnf":
                    return gbnf_to_lark(text) + _OPTIONS
                case "lark":
                    return self._resolved(text) + _OPTIONS
                case "regex":
                    return f"start: /{llguidance.regex_to_lark(text, use_ascii='')}/{_OPTIONS}"
                case other:
                    raise InvalidRequestError(f'unknown kind of constraint "{other}"')
        except (ValueError, GbnfToLarkError) as error:
            raise InvalidRequestError(f"{NAMES[kind]} cannot be read: {_first_line(str(error))}") from error

    def _resolved(self, text: str) -> str:
        """Hold the schemas in a Lark grammar to what a schema of its own is held to; name the tokens of its marks."""
        written: list[str] = []
        rules: list[str] = []
        at = 0
        while match := _LARK.search(text, at):
            written.append(text[at : match.end()])
            at = match.end()
            if match[0].startswith(("%json", "%mark")):
                try:
                    value, at = json.JSONDecoder().raw_decode(text, at)
                except ValueError:
                    continue  # llguidance says what is wrong
                if match[0].startswith("%mark"):
                    written[-1] = written[-1].removesuffix(match[0]) + self._mark(value)
                else:
                    expression, more = _of_schema(json.dumps(value), len(written))
                    written[-1] = written[-1].removesuffix(match[0]) + expression
                    rules += more
        return "\n".join(["".join([*written, text[at:]]), *rules])

    def _mark(self, text: object) -> str:
        """Return the special token that is spelled so; where there is none, the text."""
        token = self._marks.get(text) if isinstance(text, str) else None
        return json.dumps(text) if token is None else f"<[{token}]>"


def advance(native: llguidance.LLMatcher) -> bytes:
    """Return the mask of what may come next, one bit a token.

    InvalidRequestError: nothing may, or llguidance gave up. The mask that it returns then allows the end alone, which
    would make of a text that was cut one that is complete.
    """
    mask = b"" if native.is_error() else native.compute_bitmask()
    if native.is_error():
        raise InvalidRequestError(_gist(native.get_error()))
    if (native.is_stopped() and not native.is_accepting()) or not mask.strip(b"\0"):
        raise InvalidRequestError("nothing satisfies the rest of it")
    return mask


def _grammar_of_schema(text: str) -> str:
    start, rules = _of_schema(text)
    return "\n".join([f"start: {start}", *rules])


def _of_schema(text: str, number: int = 0) -> tuple[str, list[str]]:
    """Return the expression of a schema, and rules that it needs. Of several in a grammar each has a number."""
    schema = json.loads(tightened(text))
    if not isinstance(schema, dict):
        return f"%json {json.dumps(schema)}", []
    guidance = _guidance(schema)
    if needs_exact_numbers(schema):
        return exact_grammar(schema, guidance, number)
    return f"%json {json.dumps({**schema, 'x-guidance': guidance})}", []


def _guidance(schema: object) -> "JsonCompileOptions":
    return {**_GUIDANCE, "json_allowed_escapes": f"{_ESCAPES}u"} if spells_controls(schema) else _GUIDANCE


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _gist(text: str) -> str:
    """Return the telling lines of llguidance's message: for expressions the reason stands in the last ones."""
    text = _LISTING.sub("", _PLACE.sub("", text.partition("\n<state>")[0]))
    for sign, meaning in _MEANINGS.items():
        if sign in text:
            return meaning
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    lines = [line.strip() for line in text.splitlines()]
    reasons = [line for line in lines[1:] if line.startswith("error:")]
    gist = " ".join([*lines[:1], *reasons]) or "it is too complex"
    return gist if len(gist) <= _LONGEST else f"{gist[:_LONGEST]}…"
