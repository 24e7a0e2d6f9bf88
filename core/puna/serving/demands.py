"""What a request demands, against what a backend can do.

One rule holds for all backends. A demand on the form of the answer or on the kind of input is refused by name before
anything runs: structured output, log-probabilities, biases of tokens, tokens themselves. A parameter that only tunes
sampling is ignored by a backend without it, as Ollama ignores an option that it does not know.
"""

from puna.backend import ModelFacts
from puna.errors import TokenizerMissingError


def check_tokenizer(facts: ModelFacts) -> None:
    """Raise TokenizerMissingError if the model has no tokenizer."""
    if not facts.tokenizer:
        raise TokenizerMissingError
