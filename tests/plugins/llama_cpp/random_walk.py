"""Random texts that a constraint allows, built byte by byte without a model."""

import json
import random
import re

import llguidance
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.compiler import Compiler, next_mask

COMPILER = Compiler(llguidance.LLTokenizer("byte"), {})
END = COMPILER._tokenizer.eos_token
ENDINGS = b'"]}'
MAX_BYTES = 4000


class TooLongError(Exception):
    """The random choices did not reach an end."""


def random_text(kind, text, seed=0):
    """Return one text that a constraint allows.

    Raises InvalidRequestError if the constraint is refused or cannot be followed.
    """
    rng = random.Random(seed)
    native = COMPILER.matcher(kind, text)
    found = bytearray()
    while len(found) < MAX_BYTES:
        mask = int.from_bytes(next_mask(native), "little")
        allowed = [token for token in range(256) if mask >> token & 1]
        if mask >> END & 1 and (not allowed or rng.random() < 0.7):
            return found.decode()
        ends = [token for token in allowed if token in ENDINGS]
        plain = [token for token in allowed if 32 < token < 127] or allowed
        token = rng.choice(ends if ends and rng.random() < 0.4 else plain)
        found.append(token)
        native.consume_token(token)
    raise TooLongError(bytes(found))


def accepts(schema, text):
    """Return whether a schema's constraint allows a text."""
    native = COMPILER.matcher("json_schema", json.dumps(schema))
    data = text.encode()
    return native.try_consume_tokens(list(data)) == len(data) and native.is_accepting()


def schema_violations(schema, seeds=6):
    """Return how random texts that a schema's constraint allows violate the schema, or the error that refuses it."""
    kind = validator_for(schema, default=Draft202012Validator)
    validator = kind(schema, format_checker=kind.FORMAT_CHECKER)
    found = []
    for seed in range(seeds):
        try:
            text = random_text("json_schema", json.dumps(schema), seed)
        except InvalidRequestError as error:
            return [str(error)]
        except TooLongError:
            continue
        try:
            found += [f"{error.message}: {text}" for error in validator.iter_errors(json.loads(text))]
        except re.error:  # expressions that Python does not know
            json.loads(text)
    return found
