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
from puna_llama_cpp.structured_output.json_schema import needs_unicode_escapes, tighten_schema
from puna_llama_cpp.structured_output.wire import KIND_NAMES

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# A model may write white space where JSON has it, but no more than llama.cpp's own grammars let it: without a limit
# some models go on for ever.
_WHITESPACE_PATTERN = r"( |\n{1,2}[ \t]{0,20})"
# With \u a name of an open object may be spelled by numbers, and would not be known for a property that has a schema.
_ESCAPES = 'nrbtf\\"'
_GUIDANCE: "JsonCompileOptions" = {"whitespace_pattern": _WHITESPACE_PATTERN, "json_allowed_escapes": _ESCAPES}
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
_LARK_DIRECTIVES = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*|%json\s*|%mark\s*')
"""Texts that may hold our words in a grammar without meaning them, or the words themselves."""
_ERROR_PREFIX = re.compile(r"^at \d+\(\d+\): failed to compile JSON schema: ")
_SOURCE_LISTING = re.compile(r"\n +\d+ \| .*", re.DOTALL)
_MAX_REASON_CHARS = 300
"""Letters of a reason. llguidance prints whole expressions."""
_EXPLANATIONS = {
    "recursion limit exceeded": "it is nested too deeply",
    "Unable to determine if regex is empty": "patterns that must hold together are too complex",
    "too many expressions constructed": "it is too complex",
    "NoExtensionBias": "nothing satisfies it",
}
"""Messages of llguidance in words of its own trade, and their meanings."""
_REPHRASED = {
    "min/maxProperties only": "minProperties/maxProperties only",
    "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf": (
        "oneOf whose options might hold at once"
    ),
}


class Compiler:
    """Compiles constraints for one vocabulary."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, special_tokens: Mapping[str, int]) -> None:
        """`marks`: special tokens by their text."""
        self._tokenizer = tokenizer
        self._special_tokens = special_tokens

    def matcher(self, kind: str, text: str) -> llguidance.LLMatcher:
        """Compile a constraint. InvalidRequestError: it is wrong, or uses what cannot be enforced, which is named."""
        native = llguidance.LLMatcher(self._tokenizer, self._grammar(kind, text), log_level=0, limits=_LIMITS)
        if native.is_error():
            raise InvalidRequestError(f"{KIND_NAMES[kind]} cannot be enforced: {_summary(native.get_error())}")
        if native.is_stopped() and not native.is_accepting():
            raise InvalidRequestError(f"{KIND_NAMES[kind]} cannot be enforced: nothing satisfies it")
        return native

    def start(self, kind: str, text: str) -> tuple[llguidance.LLMatcher, bytes]:
        """Compile a constraint, and return it with its first mask. InvalidRequestError: as for matcher and advance."""
        native = self.matcher(kind, text)
        try:
            return native, next_mask(native)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{KIND_NAMES[kind]} cannot be enforced: {error}") from error

    def _grammar(self, kind: str, text: str) -> str:
        try:
            match kind:
                case "json_schema":
                    return _schema_grammar(text) + _OPTIONS
                case "gbnf":
                    return gbnf_to_lark(text) + _OPTIONS
                case "lark":
                    return self._resolve_lark(text) + _OPTIONS
                case "regex":
                    return f"start: /{llguidance.regex_to_lark(text, use_ascii='')}/{_OPTIONS}"
                case other:
                    raise InvalidRequestError(f'unknown kind of constraint "{other}"')
        except (ValueError, GbnfToLarkError) as error:
            raise InvalidRequestError(f"{KIND_NAMES[kind]} cannot be read: {_first_line(str(error))}") from error

    def _resolve_lark(self, text: str) -> str:
        """Hold the schemas in a Lark grammar to what a schema of its own is held to; name the tokens of its marks."""
        written: list[str] = []
        rules: list[str] = []
        at = 0
        while match := _LARK_DIRECTIVES.search(text, at):
            written.append(text[at : match.end()])
            at = match.end()
            if match[0].startswith(("%json", "%mark")):
                try:
                    value, at = json.JSONDecoder().raw_decode(text, at)
                except ValueError:
                    continue  # llguidance says what is wrong
                if match[0].startswith("%mark"):
                    written[-1] = written[-1].removesuffix(match[0]) + self._special_token(value)
                else:
                    expression, more = _schema_expression(json.dumps(value), len(written))
                    written[-1] = written[-1].removesuffix(match[0]) + expression
                    rules += more
        return "\n".join(["".join([*written, text[at:]]), *rules])

    def _special_token(self, text: object) -> str:
        """Return the special token that is spelled so; where there is none, the text."""
        token = self._special_tokens.get(text) if isinstance(text, str) else None
        return json.dumps(text) if token is None else f"<[{token}]>"


def next_mask(native: llguidance.LLMatcher) -> bytes:
    """Return the mask of what may come next, one bit a token.

    InvalidRequestError: nothing may, or llguidance gave up. The mask that it returns then allows the end alone, which
    would make of a text that was cut one that is complete.
    """
    mask = b"" if native.is_error() else native.compute_bitmask()
    if native.is_error():
        raise InvalidRequestError(_summary(native.get_error()))
    if (native.is_stopped() and not native.is_accepting()) or not mask.strip(b"\0"):
        raise InvalidRequestError("nothing satisfies the rest of it")
    return mask


def _schema_grammar(text: str) -> str:
    start, rules = _schema_expression(text)
    return "\n".join([f"start: {start}", *rules])


def _schema_expression(text: str, number: int = 0) -> tuple[str, list[str]]:
    """Return the expression of a schema, and rules that it needs. Of several in a grammar each has a number."""
    schema = json.loads(tighten_schema(text))
    if not isinstance(schema, dict):
        return f"%json {json.dumps(schema)}", []
    guidance = _guidance(schema)
    if needs_exact_numbers(schema):
        return exact_grammar(schema, guidance, number)
    return f"%json {json.dumps({**schema, 'x-guidance': guidance})}", []


def _guidance(schema: object) -> "JsonCompileOptions":
    return {**_GUIDANCE, "json_allowed_escapes": f"{_ESCAPES}u"} if needs_unicode_escapes(schema) else _GUIDANCE


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _summary(text: str) -> str:
    """Return the telling lines of llguidance's message: for expressions the reason stands in the last ones."""
    text = _SOURCE_LISTING.sub("", _ERROR_PREFIX.sub("", text.partition("\n<state>")[0]))
    for sign, meaning in _EXPLANATIONS.items():
        if sign in text:
            return meaning
    for theirs, ours in _REPHRASED.items():
        text = text.replace(theirs, ours)
    lines = [line.strip() for line in text.splitlines()]
    reasons = [line for line in lines[1:] if line.startswith("error:")]
    gist = " ".join([*lines[:1], *reasons]) or "it is too complex"
    return gist if len(gist) <= _MAX_REASON_CHARS else f"{gist[:_MAX_REASON_CHARS]}…"
