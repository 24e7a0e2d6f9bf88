"""Compiles constraints: from a JSON schema, a grammar or a regular expression to an llguidance matcher.

llguidance is trusted to build automata and to compute masks that are correct for their grammar. It is not trusted
with these: bounds on time and memory (`server` enforces them from
outside, so nothing here checks sizes), keywords that it follows loosely (`json_schema` restates or refuses them), large
integers (`exact_integers`), and giving up. When llguidance gives up in the middle of an answer, its next mask allows
only the end of the text, which would make a truncated answer look complete. `next_mask` makes an error of that.
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

# White space between JSON tokens is limited as in llama.cpp's own grammars. Without a limit some models write it for
# ever.
_WHITESPACE_PATTERN = r"( |\n{1,2}[ \t]{0,20})"
# Without \u in escapes: a model could spell the name of a property in numbers, and an open object would take it for an
# unlisted property without a schema.
_ESCAPES = 'nrbtf\\"'
_GUIDANCE: "JsonCompileOptions" = {"whitespace_pattern": _WHITESPACE_PATTERN, "json_allowed_escapes": _ESCAPES}
# The model chooses the tokens of forced text, as with llama.cpp's grammars. llguidance would have to tokenize it, for
# which this process has no vocabulary.
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'
# Time and memory are bounded from outside, so llguidance's own limits, which bound work, are set far away.
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
"""In a Lark grammar: the directives %json and %mark, and the texts in which the same letters are no directive."""
_ERROR_PREFIX = re.compile(r"^at \d+\(\d+\): failed to compile JSON schema: ")
_SOURCE_LISTING = re.compile(r"\n +\d+ \| .*", re.DOTALL)
_MAX_REASON_CHARS = 300
"""Characters of a reason. llguidance prints whole expressions."""
_EXPLANATIONS = {
    "recursion limit exceeded": "it is nested too deeply",
    "Unable to determine if regex is empty": "patterns that must hold together are too complex",
    "too many expressions constructed": "it is too complex",
    "NoExtensionBias": "nothing satisfies it",
}
"""Parts of llguidance's messages that name its internals, and what they mean for the constraint."""
# Parts of llguidance's messages that name its keywords or options, and the schema's words for them.
_REPHRASED = {
    "min/maxProperties only": "minProperties/maxProperties only",
    "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf": (
        "oneOf whose options might hold at once"
    ),
}


class Compiler:
    """Compiles constraints for one vocabulary."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, special_tokens: Mapping[str, int]) -> None:
        """Take the vocabulary. `special_tokens`: the ids of special tokens by their text, for %mark."""
        self._tokenizer = tokenizer
        self._special_tokens = special_tokens

    def matcher(self, kind: str, text: str) -> llguidance.LLMatcher:
        """Compile a constraint.

        Raises InvalidRequestError if it is wrong, or names the feature that cannot be enforced.
        """
        # log_level=0: llguidance would print the constraint, which belongs to a request, to standard error.
        native = llguidance.LLMatcher(self._tokenizer, self._grammar(kind, text), log_level=0, limits=_LIMITS)
        if native.is_error():
            raise InvalidRequestError(f"{KIND_NAMES[kind]} cannot be enforced: {_summary(native.get_error())}")
        # A grammar whose language is empty compiles, and stops before its first token.
        if native.is_stopped() and not native.is_accepting():
            raise InvalidRequestError(f"{KIND_NAMES[kind]} cannot be enforced: nothing satisfies it")
        return native

    def start(self, kind: str, text: str) -> tuple[llguidance.LLMatcher, bytes]:
        """Compile a constraint, and return the matcher with its first mask.

        Raises what `matcher` and `next_mask` raise.
        """
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
                    # use_ascii='': the classes \d, \w and \s keep their Unicode meaning.
                    return f"start: /{llguidance.regex_to_lark(text, use_ascii='')}/{_OPTIONS}"
                case other:
                    raise InvalidRequestError(f'unknown kind of constraint "{other}"')
        except (ValueError, GbnfToLarkError) as error:
            raise InvalidRequestError(f"{KIND_NAMES[kind]} cannot be read: {_first_line(str(error))}") from error

    def _resolve_lark(self, text: str) -> str:
        """Restate the schemas in a Lark grammar like schema constraints, and replace each %mark by its token."""
        written: list[str] = []
        rules: list[str] = []
        at = 0
        while match := _LARK_DIRECTIVES.search(text, at):
            written.append(text[at : match.end()])
            at = match.end()
            if match[0].startswith(("%json", "%mark")):
                try:
                    # JSON ends where it ends; the grammar goes on behind it without a delimiter.
                    value, at = json.JSONDecoder().raw_decode(text, at)
                except ValueError:
                    continue  # llguidance's error message is better
                if match[0].startswith("%mark"):
                    written[-1] = written[-1].removesuffix(match[0]) + self._special_token(value)
                else:
                    expression, more = _schema_expression(json.dumps(value), len(written))
                    written[-1] = written[-1].removesuffix(match[0]) + expression
                    rules += more
        return "\n".join(["".join([*written, text[at:]]), *rules])

    def _special_token(self, text: object) -> str:
        """Return the special token with this text, or the text itself if there is none."""
        token = self._special_tokens.get(text) if isinstance(text, str) else None
        return json.dumps(text) if token is None else f"<[{token}]>"


def next_mask(native: llguidance.LLMatcher) -> bytes:
    """Return the mask of tokens that may come next, one bit for each token.

    Raises InvalidRequestError if no token may come, or if llguidance gave up.
    """
    mask = b"" if native.is_error() else native.compute_bitmask()
    if native.is_error():
        raise InvalidRequestError(_summary(native.get_error()))
    # A mask without any bit, or a stop before the end, would make the sampler draw from logits that are all minus
    # infinity.
    if (native.is_stopped() and not native.is_accepting()) or not mask.strip(b"\0"):
        raise InvalidRequestError("nothing satisfies the rest of it")
    return mask


def _schema_grammar(text: str) -> str:
    start, rules = _schema_expression(text)
    return "\n".join([f"start: {start}", *rules])


def _schema_expression(text: str, number: int = 0) -> tuple[str, list[str]]:
    """Return a Lark expression for a schema, and the rules that it needs.

    `number` distinguishes the rules of several schemas in one grammar.
    """
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
    """Return the informative lines of an llguidance message. For expressions, the reason stands in the last lines."""
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
