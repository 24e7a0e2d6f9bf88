"""What a request demands, against what a backend can do.

One rule holds for all backends. A demand on the form of the answer or on the kind of input is refused by name before
anything runs: structured output, log-probabilities, biases of tokens, tokens themselves. A parameter that only tunes
sampling is ignored by a backend without it, as Ollama ignores an option that it does not know.
"""

from puna.backend import NO_TOKENIZER, ModelFacts
from puna.errors import DemandUnsupportedError, UnsupportedOperationError
from puna.plugins import Manifest
from puna.serving.requests import GenerateRequest, RequestOptions

KINDS = {"json_object": "json_schema"}
"""Kinds of structured output that are sent as another kind."""


def check_demands(backend: Manifest, request: RequestOptions, *, n: int = 1, thinks: bool = False) -> None:
    """Raise DemandUnsupportedError for the first demand that the backend cannot meet.

    n: the number of answers. thinks: whether the model can think.
    """
    can = backend.capabilities
    # An upstream would evaluate the prompt, and count it, once for each answer.
    if n > 1 and can.chat:
        raise DemandUnsupportedError(backend.name, "several answers (n)")
    if (output := request.constraint) is not None:
        kind = KINDS.get(output.kind, output.kind)
        if kind not in can.constraints:
            raise DemandUnsupportedError(backend.name, f"structured output of kind {kind}")
    if request.logprobs and not can.logprobs:
        raise DemandUnsupportedError(backend.name, "log-probabilities")
    if request.logit_bias and "logit_bias" not in can.sampling:
        raise DemandUnsupportedError(backend.name, "logit_bias")

    if request.thinking_budget is not None and thinks and not (can.thinking_budget or request.think_if_possible):
        raise DemandUnsupportedError(backend.name, "thinking_budget")


def enforced_budget(backend: Manifest | None, request: RequestOptions) -> int | None:
    """Return the thinking budget of the request if the backend enforces it."""
    return request.thinking_budget if backend is not None and backend.capabilities.thinking_budget else None


def check_prompt(backend: Manifest, request: GenerateRequest) -> None:
    """Raise DemandUnsupportedError for a completion that cannot become a conversation of one message.

    A backend that takes messages completes no prompt as it is.
    """
    if not backend.capabilities.chat:
        return
    for name, given in (
        ("raw", request.raw),
        ("suffix", request.suffix),
        ("template", request.template),
        ("context", request.context),
        ("render_only", request.render_only),
        ("CountTokens", request.count_only),
    ):
        if given:
            raise DemandUnsupportedError(backend.name, name)


def check_tokenizer(facts: ModelFacts) -> None:
    """Raise UnsupportedOperationError if the model has no tokenizer."""
    if not facts.tokenizer:
        raise UnsupportedOperationError(NO_TOKENIZER)


def check_scoring(backend: Manifest) -> None:
    """Raise DemandUnsupportedError if the backend gives no log-probabilities of a prompt."""
    if not backend.capabilities.prompt_logprobs:
        raise DemandUnsupportedError(backend.name, "log-probabilities of a prompt")
