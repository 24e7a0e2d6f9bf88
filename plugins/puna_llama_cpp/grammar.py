"""Constrained output: llguidance says at every step which tokens the grammar allows."""

import ctypes
import json
import re
import threading
from typing import TYPE_CHECKING

import llama_cpp.llama_cpp as lib
import llguidance
import numpy as np
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark
from numpy.typing import NDArray

from puna.backend import BackendError, Constraint, InvalidRequestError
from puna_llama_cpp.schema import patterns, tightened
from puna_llama_cpp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# A model may write white space where JSON has it, but no more than llama.cpp's own grammars let it: without a limit
# some models go on for ever.
_SPECIAL = b"\xff"  # in front of tokens that no text can stand for
_SPACE = r"( |\n{1,2}[ \t]{0,20})"
# By \u every letter has a second spelling, and a name spelled so would not be known for a property that has a schema.
_ESCAPES = 'nrbtf\\"'
_GUIDANCE: "JsonCompileOptions" = {"whitespace_pattern": _SPACE, "json_allowed_escapes": _ESCAPES}
_TRIED_STEPS = 3  # tokens
_TRIED_PATTERNS = 100  # a schema that has more is tried in part
_SHOWN = 80  # letters of a pattern in an error
_LARK = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*|%json\s*|%mark\s*')
"""What may hold our words in a grammar without meaning them, or the words themselves."""


class Matcher:
    """What one sequence has written so far, held against its grammar."""

    def __init__(self, native: llguidance.LLMatcher, vocabulary_size: int) -> None:
        """Start at the grammar's beginning."""
        self._native = native
        self._size = vocabulary_size

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Rule out, in place, what may not come next. BackendError: the grammar outgrew llguidance's limits."""
        if self._native.is_error():
            raise BackendError(f"the constraint cannot be followed further: {_first_line(self._native.get_error())}")
        if self._native.is_stopped() and not self._native.is_accepting():
            raise BackendError("the constraint cannot be followed further: nothing satisfies the rest of it")
        bits = np.unpackbits(np.frombuffer(self._native.compute_bitmask(), np.uint8), bitorder="little")
        logits[bits[: self._size] == 0] = -np.inf

    def accept(self, token: int) -> None:
        """Go on by the token that was drawn."""
        self._native.consume_token(token)


class Grammars:
    """Makes matchers for one vocabulary. May be used from any thread."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Wait with the costly reading of the vocabulary until a constraint comes."""
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._tokenizer: llguidance.LLTokenizer | None = None

    def matcher(self, constraint: Constraint) -> Matcher:
        """Compile a constraint. InvalidRequestError: it is wrong, or uses what cannot be enforced, which is named."""
        grammar = _compile(constraint, self._vocabulary)
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self._vocabulary)
        native = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if native.is_error():
            raise InvalidRequestError(f"{_NAMES[constraint.kind]} cannot be enforced: {_gist(native.get_error())}")
        if native.is_stopped() and not native.is_accepting():
            raise InvalidRequestError(f"{_NAMES[constraint.kind]} cannot be enforced: nothing satisfies it")
        self._try(constraint, native, self._tokenizer)
        return Matcher(native, self._vocabulary.size)

    def _try(self, constraint: Constraint, native: llguidance.LLMatcher, tokenizer: llguidance.LLTokenizer) -> None:
        """Find expressions that outgrow llguidance's limits, which it notices not before their first letters."""
        if constraint.kind != "json_schema":
            if not self._goes(native.deep_copy()):
                raise InvalidRequestError(f"{_NAMES[constraint.kind]} cannot be enforced: it is too complex")
            return
        for pattern in sorted(patterns(constraint.text))[:_TRIED_PATTERNS]:  # wherever in a schema they stand
            grammar = _compile(
                Constraint("json_schema", json.dumps({"type": "string", "pattern": pattern})), self._vocabulary
            )
            alone = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
            if not alone.is_error() and not self._goes(alone):  # one that is wrong stands where nothing looks
                shown = pattern if len(pattern) <= _SHOWN else f"{pattern[:_SHOWN]}…"
                raise InvalidRequestError(f'JSON schema cannot be enforced: the pattern "{shown}" is too complex')

    def _goes(self, native: llguidance.LLMatcher) -> bool:
        """Whether the first tokens of some text can be followed."""
        for _ in range(_TRIED_STEPS):
            if native.is_stopped():
                break
            bits = np.unpackbits(np.frombuffer(native.compute_bitmask(), np.uint8), bitorder="little")
            allowed = (int(token) for token in np.flatnonzero(bits[: self._vocabulary.size]))
            token = next((token for token in allowed if token not in self._vocabulary.ends), None)
            if token is None:
                break
            native.consume_token(token)
        return not native.is_error()


def _tokenizer(vocabulary: Vocabulary) -> llguidance.LLTokenizer:
    """Tell llguidance the vocabulary. Takes up to a second; its own helper for this calls what llama.cpp deprecates."""
    ends = sorted(vocabulary.ends, key=lambda token: token != vocabulary.eos)
    tokenizer: llguidance.LLTokenizer = llguidance.LLTokenizer.from_llamacpp(  # type: ignore[attr-defined] # no stub
        tokens=[
            _SPECIAL * vocabulary.looks_special(token) + vocabulary.spell(token, special=True)
            for token in range(vocabulary.size)
        ],
        vocab_ptr=vocabulary.pointer,
        tokenize_fptr=ctypes.cast(lib.llama_tokenize, ctypes.c_void_p).value,
        eos_token=ends or vocabulary.eos,
        slices=None,
    )
    return tokenizer


_WORDS = {
    "min/maxProperties only": "minProperties/maxProperties only",
    "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf": (
        "oneOf whose options might hold at once"
    ),
}
_NAMES = {"json_schema": "JSON schema", "gbnf": "GBNF grammar", "lark": "Lark grammar", "regex": "regular expression"}


def _compile(constraint: Constraint, vocabulary: Vocabulary) -> str:
    text = constraint.text
    try:
        match constraint.kind:
            case "json_schema":
                return llguidance.LLMatcher.grammar_from_json_schema(tightened(text), defaults=_GUIDANCE)
            case "gbnf":
                return llguidance.LLMatcher.grammar_from_lark(gbnf_to_lark(text))
            case "lark":
                return llguidance.LLMatcher.grammar_from_lark(_resolved(text, vocabulary))
            case "regex":
                return llguidance.LLMatcher.grammar_from_regex(text)
            case other:
                raise InvalidRequestError(f'unknown kind of constraint "{other}"')
    except (ValueError, GbnfToLarkError) as error:
        raise InvalidRequestError(f"{_NAMES[constraint.kind]} cannot be read: {_first_line(str(error))}") from error


def _resolved(text: str, vocabulary: Vocabulary) -> str:
    """Hold the schemas in a Lark grammar to what a schema of its own is held to; name the tokens of its marks."""
    written, at = [], 0
    while match := _LARK.search(text, at):
        written.append(text[at : match.end()])
        at = match.end()
        if match[0].startswith(("%json", "%mark")):
            try:
                schema, at = json.JSONDecoder().raw_decode(text, at)
            except ValueError:
                continue  # llguidance says what is wrong
            if match[0].startswith("%mark"):
                written[-1] = written[-1].removesuffix(match[0]) + _mark(schema, vocabulary)
                continue
            strict = json.loads(tightened(json.dumps(schema)))
            written.append(json.dumps({**strict, "x-guidance": _GUIDANCE} if isinstance(strict, dict) else strict))
    return "".join([*written, text[at:]])


def _mark(text: object, vocabulary: Vocabulary) -> str:
    """Return the special token that is spelled so; where there is none, the text."""
    tokens = vocabulary.special([text]) if isinstance(text, str) else ()
    special = [token for token in tokens if vocabulary.looks_special(token)]
    return f"<[{special[0]}]>" if special else json.dumps(text)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _gist(text: str) -> str:
    """Return the telling lines of llguidance's message: for expressions the reason stands in the last ones."""
    text = text.partition("\n<state>")[0]
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    lines = [line.strip() for line in text.splitlines()]
    reasons = [line for line in lines if line.startswith("error:")]
    return " ".join([lines[0], *reasons]) if lines else text
